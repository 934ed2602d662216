"""A driver of AXI4-Lite ports for testbenches in Amaranth's simulator."""

__all__ = ["read", "write"]


async def write(ctx, port, addr, value, *, nonsecure=0, strb=0xF):
    """Write a register; returns the response."""
    ctx.set(port.aw.payload, {"addr": addr, "prot": {"nonsecure": nonsecure}})
    ctx.set(port.w.payload, {"data": value, "strb": strb})
    ctx.set(port.aw.valid, 1)
    ctx.set(port.w.valid, 1)
    await ctx.tick().until(port.aw.ready & port.w.ready)
    ctx.set(port.aw.valid, 0)
    ctx.set(port.w.valid, 0)
    ctx.set(port.b.ready, 1)
    (payload,) = await ctx.tick().sample(port.b.payload).until(port.b.valid)
    ctx.set(port.b.ready, 0)
    return payload.resp.value


async def read(ctx, port, addr, *, nonsecure=0):
    """Read a register; returns the data and the response."""
    ctx.set(port.ar.payload, {"addr": addr, "prot": {"nonsecure": nonsecure}})
    ctx.set(port.ar.valid, 1)
    await ctx.tick().until(port.ar.ready)
    ctx.set(port.ar.valid, 0)
    ctx.set(port.r.ready, 1)
    (payload,) = await ctx.tick().sample(port.r.payload).until(port.r.valid)
    ctx.set(port.r.ready, 0)
    return payload.data, payload.resp.value
