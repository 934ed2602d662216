"""SEC-08: who reaches which register frame, and what a request does there."""

from amaranth.hdl import Cat, Const, Mux, Signal, Value
from amaranth.lib.wiring import In, Out
from systemrdl.node import RegNode
from systemrdl.rdltypes import AccessType, OnWriteType

from flexserve_hw.bus.axi4 import Resp
from flexserve_hw.bus.identity import Identity
from flexserve_hw.regs.block import RegisterBlock
from flexserve_hw.regs.fabric import RegisterFabric, soc_frames
from flexserve_hw.regs.source import elaborate
from flexserve_hw.tzasc.frames import ManagementFrames
from tests.formal.harness import Harness, proof
from tests.formal.reduced import PATH

SECURE = ("TZC", "FLEX_SECURE", "NPU_SECURE", "GATE_SECURE")
MANAGED = ("FLEX_NORMAL", "GATE_NORMAL")
MASTERS = {
    "normal": Identity(nsaid=0),
    "secure": Identity(nsaid=0, may_be_secure=True),
    "bridge": Identity(nsaid=None, may_be_secure=True),
}
"""The CPU's two ports, and a port whose world and NSAID are what its surroundings say."""
FRAME_BITS = 12


def _channels(fabric: RegisterFabric):
    """Per master and direction: whether it writes, address channel, response channel, and its world and NSAID."""
    for name, rule in MASTERS.items():
        port = getattr(fabric, name)
        for writes, address, answer in ((1, port.aw, port.b), (0, port.ar, port.r)):
            nonsecure = address.payload.prot.nonsecure if rule.may_be_secure else Const(1)
            nsaid = address.payload.user if rule.nsaid is None else Const(rule.nsaid, 4)
            yield writes, port, address, answer, nonsecure, nsaid


def _permitted(frame, nonsecure, nsaid, managers):
    """The rules, said a second time."""
    if frame.name in SECURE:
        return ~nonsecure
    return nonsecure & managers.bit_select(nsaid, 1) if frame.name in MANAGED else nonsecure


@proof(reductions={})
def fabric(h: Harness) -> None:
    """A request reaches the frame it addresses if that is open to its world and NSAID; others get DECERR and zeros."""
    frames = soc_frames()
    dut = h.dut(RegisterFabric(masters=MASTERS, frames=frames, addr_width=32))
    h.drive(dut, "in")
    m = h.m
    taken, writes, nonsecure = Signal(), Signal(), Signal()
    number, addr, data, strb, nsaid = Signal(3), Signal(32), Signal(32), Signal(4), Signal(4)
    channels = list(_channels(dut))
    for n, (direction, port, address, _, world, user) in enumerate(channels):
        with m.If(address.valid & address.ready):
            m.d.sync += [writes.eq(direction), number.eq(n), addr.eq(address.payload.addr)]
            m.d.sync += [nonsecure.eq(world), nsaid.eq(user)]
            m.d.sync += [data.eq(port.w.payload.data), strb.eq(port.w.payload.strb)]
    accepts = [address.valid & address.ready for _, _, address, *_ in channels]
    m.d.comb += taken.eq(Cat(accepts).any())
    asks, answers = h.past(taken), h.past(h.past(taken))
    busy = asks | answers
    # What the fabric holds is the access that was taken last: this makes the claims inductive.
    choosing, answering = h.inner("choosing"), h.inner("answering")
    h.prove("lemma_phase", (choosing == ~busy) & (answering == answers) & ~(asks & answers), lemma=True)
    request = h.inner("request")
    held = Cat(number, addr, request[35], nonsecure, request[37], nsaid)
    h.prove("lemma_request", request[: len(held)] == held, lemma=True)
    h.prove("lemma_data", ~writes | (request[len(held) :] == Cat(data, strb)), lemma=True)
    h.prove("lemma_direction", ~busy | (writes == ~number[0]), lemma=True)
    for n, (direction, port, _, answer, *_) in enumerate(channels):
        others = Cat(accept for k, accept in enumerate(accepts) if k != n)
        h.prove(f"channel_{n}_is_taken_alone", ~(accepts[n] & (others.any() | busy)), sec="SEC-08")
        if direction:
            h.prove(f"data_go_with_address_{n}", accepts[n] == (port.w.valid & port.w.ready), sec="SEC-08")
        kept = h.past(answer.valid & ~answer.ready)
        payload = Value.cast(answer.payload)
        h.prove(f"answer_{n}_is_held", ~kept | (answer.valid & (payload == h.past(payload))), sec="SEC-08")
        due = h.past(answers & (number == n))
        h.prove(f"answer_{n}_follows_its_request_alone", answer.valid == (kept | due), sec="SEC-08")

    reached, rdata, error = Signal(), Signal(32), Signal()
    for frame in frames:
        bus = getattr(dut, frame.port)
        managers = getattr(dut, f"{frame.port}_managers") if frame.name in MANAGED else Const(0, 16)
        here = asks & (addr[FRAME_BITS:] == frame.base >> FRAME_BITS)
        may = _permitted(frame, nonsecure, nsaid, managers)
        h.prove(f"{frame.port}_is_reached_by_its_audience_alone", bus.valid == (here & may), sec="SEC-08")
        as_asked = Cat(bus.write, bus.addr) == Cat(writes, addr[:FRAME_BITS])
        as_asked &= ~writes | (Cat(bus.wdata, bus.strb) == Cat(data, strb))
        h.prove(f"{frame.port}_gets_what_was_asked", ~bus.valid | as_asked, sec="SEC-08")
        h.cover(f"{frame.port}_is_reached", bus.valid)
        h.cover(f"{frame.port}_is_refused", here & ~may)
        with m.If(h.past(here & may)):
            m.d.comb += [reached.eq(1), rdata.eq(bus.rdata), error.eq(bus.error)]
    resp = Mux(reached, Mux(error, Resp.SLVERR.value, Resp.OKAY.value), Resp.DECERR.value)
    for n, (direction, _, _, answer, *_) in enumerate(channels):
        due = h.past(answers & (number == n))
        right = answer.payload.resp.as_value() == h.past(resp)
        if not direction:
            right = right & (answer.payload.data == h.past(rdata))
        h.prove(f"answer_{n}_is_the_frame_s_or_DECERR_with_zeros", ~due | right, sec="SEC-08 SEC-01")


def _pair(h: Harness, make, secret) -> list:
    """Two designs with the same free inputs, but for those of which ``secret(path)`` says that they may differ."""
    pair = [h.dut(make(), name) for name in ("left", "right")]
    members = [[*design.signature.flatten(design)] for design in pair]
    for (path, member, left), (_, _, right) in zip(*members, strict=True):
        if member.flow == In:
            name = "_".join(map(str, path))
            left, right = Value.cast(left), Value.cast(right)
            same = h.free(f"both_{name}", len(left))
            h.m.d.comb += [left.eq(same), right.eq(h.free(f"other_{name}", len(left)) if secret(path) else same)]
    return pair


@proof(reductions={"two masters": "those of the secure world share one port or stand in its place"})
def fabric_hides_the_secure_world(h: Harness) -> None:
    """Two fabrics whose secure masters and secure frames differ in all but timing look alike to the normal master."""
    masters = {name: MASTERS[name] for name in ("normal", "secure")}
    private = ("secure", *(frame.lower() for frame in SECURE))
    left, right = _pair(
        h,
        lambda: RegisterFabric(masters=masters, frames=soc_frames(), addr_width=32),
        lambda path: path[0] in private and path[-1] not in ("valid", "ready"),
    )
    for path, member, ours in left.normal.signature.flatten(left.normal):
        if member.flow == Out:
            theirs = right.normal
            for part in path:
                theirs = getattr(theirs, part)
            h.prove(f"normal_{'_'.join(path)}_is_the_same", Value.cast(ours) == Value.cast(theirs), sec="SEC-08 SEC-01")
    # Both are at the same access, and what it is they know alike if it is the normal master's: this makes it inductive.
    requests = [h.inner("request", name) for name in ("left", "right")]
    for name in ("choosing", "answering", "arbiter.last"):
        h.prove(f"lemma_{name.replace('.', '_')}", h.inner(name, "left") == h.inner(name, "right"), lemma=True)
    h.prove("lemma_number", requests[0][:2] == requests[1][:2], lemma=True)
    own, sent = requests[0][1] == 0, slice(2, len(requests[0]) - 36)
    h.prove("lemma_request", ~own | (requests[0][sent] == requests[1][sent]), lemma=True)
    h.prove("lemma_world", ~own | h.inner("choosing", "left") | requests[0][35], lemma=True)
    reached = [h.inner("reached", name) for name in ("left", "right")]
    secure = sum(1 << n for n, frame in enumerate(soc_frames()) if frame.name in SECURE)
    answered = own & h.inner("answering", "left")
    h.prove("lemma_reached", ~answered | ((reached[0] == reached[1]) & ~(reached[0] & secure).any()), lemma=True)
    answers = [design.secure.r for design in (left, right)]
    h.cover("secrets_differ", answers[0].valid & (answers[0].payload.data != answers[1].payload.data))


def _registers(node, ports, path=()):
    """Every register of a map with its ports (None if it has none) and the names that lead to it."""
    for child in node.children(unroll=True):
        inner = getattr(ports, child.inst_name, None)
        for index in child.current_idx or () if inner is not None else ():
            inner = inner[index]
        where = (*path, child.inst_name, *(child.current_idx or ()))
        if isinstance(child, RegNode):
            yield child, inner, where
        else:
            yield from _registers(child, inner, where)


def _bytes(lanes):
    """Each bit eight times."""
    return Cat(lane.replicate(8) for lane in lanes)


BLOCKS = {
    "tzc400": {},
    "flexmem_normal": {},
    "flexmem_secure": {},
    "gate_normal": {},
    "gate_secure": {},
    "npu_frame": {"visible": ("ID", "CAPS", "STATUS")},
    "storage": {},
}


@proof(reductions={}, depth=1, variants={name: {"name": name, "options": options} for name, options in BLOCKS.items()})
def block(h: Harness, name: str, options: dict) -> None:
    """Each stored bit of a frame goes by the description of its register alone: strobes, locks, hidden frames."""
    dut = h.dut(RegisterBlock(name, **options))
    h.drive(dut, "in")
    m, bus = h.m, dut.bus
    visible = options.get("visible")
    word, error = Signal(32), Signal(init=not elaborate(name).get_property("reserved_okay"))
    m.d.sync += [word.eq(0), error.eq(error.init)]
    follows, told, told_reads = [], [], []
    for node, ports, where in _registers(elaborate(name), dut):
        shown = dut.live if visible is not None and where[0] not in visible else Const(1)
        addressed = bus.addr[2:] == node.absolute_address >> 2
        reject = getattr(ports, "reject", Const(0))
        read = Signal(32, name="_".join(("read", *map(str, where))))
        with m.If(addressed):
            m.d.sync += [word.eq(Mux(bus.write | ~shown, 0, read)), error.eq(bus.write & reject & shown)]
        for field in node.fields():
            port = getattr(ports, field.inst_name, None)
            bits = slice(field.lsb, field.lsb + field.width)
            constant = Const(field.get_property("reset") or 0, field.width)
            value = constant if port is None else getattr(port, "value", None)
            if field.get_property("sw") is not AccessType.w:
                m.d.comb += read[bits].eq(value)
            if port is None:
                continue
            strobes = _bytes(bus.strb)[bits]
            writes = bus.valid & bus.write & addressed & shown & ~reject & ~getattr(port, "swwel", Const(0))
            if hasattr(port, "swmod"):
                # Such a field takes all its bytes or none.
                writes = writes & strobes.all()
                told.append((port.swmod == writes) & (~port.swmod | (port.written == bus.wdata[bits])))
            if hasattr(port, "swacc"):
                told_reads.append(port.swacc == (bus.valid & ~bus.write & addressed & shown))
            if value is None or port.signature.members["value"].flow == In:
                continue
            data = bus.wdata[bits]
            taken = {OnWriteType.woset: value | data, OnWriteType.woclr: value & ~data}.get(
                field.get_property("onwrite"), data
            )
            mask = Mux(writes & (field.get_property("sw") is not AccessType.r), strobes, 0)
            after = (value & ~mask) | (taken & mask) | getattr(port, "hwset", Const(0))
            reset = field.get_property("reset") or 0
            follows.append(value == h.past(Mux(dut.clear, reset, after)[: field.width], init=reset))
    h.prove("stored_bits_follow_the_description", Cat(follows).all(), sec="SEC-08")
    h.prove("hardware_is_told_of_writes_that_count_alone", Cat(told).all(), sec="SEC-08")
    h.prove("side_effects_of_reads_need_a_read_that_counts", Cat(told_reads).all(), sec="SEC-08")
    answered = ~h.past(bus.valid) | ((bus.rdata == Mux(error, 0, word)) & (bus.error == error))
    h.prove("answers_follow_the_description", answered, sec="SEC-08")
    h.cover("write_is_taken", bus.valid & bus.write & ~h.past(bus.valid))


@proof(reductions={"smallest window and table": "frames copy what the filter tells them; nothing is counted here"})
def flexmem_lock(h: Harness) -> None:
    """Once locked, configuration stays until reset; the window stays from the moment it is enabled."""
    dut = h.dut(ManagementFrames(params=PATH))
    h.drive(dut, "in")
    for name in ("locked", "enable"):
        value = getattr(dut, name)
        h.prove(f"{name}_holds", ~h.past(value) | value, sec="SEC-08")
    held = {"locked": ("grace", "managers", "base", "pages"), "enable": ("base", "pages")}
    for reason, names in held.items():
        for name in names:
            value = getattr(dut, name)
            frozen = ~h.past(getattr(dut, reason)) | (value == h.past(value))
            h.prove(f"{name}_stands_once_{reason}", frozen, sec="SEC-08")
    low, high = PATH.grace_min, PATH.grace_max
    h.prove("grace_period_is_within_its_limits", (dut.grace >= low) & (dut.grace <= high), sec="SEC-07")
    quiet = ~(dut.normal.valid & dut.normal.write)
    orders = dut.commands[0].start | dut.request
    h.prove("normal_world_commands_by_writes_alone", ~(quiet & orders), sec="SEC-08")
    h.prove("secure_world_commands_by_writes_alone", ~dut.commands[1].start | (dut.secure.valid & dut.secure.write))
    h.prove("freed_pages_are_popped_by_reads_alone", ~dut.pop | (dut.normal.valid & ~dut.normal.write), sec="SEC-08")
    h.cover("locked", dut.locked & dut.enable & (dut.managers == 2))


@proof(reductions={"smallest window and table": "frames copy what the filter tells them; nothing is counted here"})
def flexmem_normal_frame_hides_the_secure_one(h: Harness) -> None:
    """Two pairs of frames that differ in what is the secure world's alone look alike from the normal one."""
    secret = ("secure", "violations", "running", "ranges", "left", "recalled", "expired", "corrupt", "corrupt_pfn")

    def private(path):
        # Both worlds' requests come at the same time; the secure world's command port is its own.
        return (path[0] in secret and path != ("secure", "valid")) or path[:2] == ("commands", 1)

    left, right = _pair(h, lambda: ManagementFrames(params=PATH), private)
    # What the secure world sets for the normal one to see: grace period and window.
    h.assume("grace_is_public", left.grace == right.grace)
    # The table on the chip; one in memory may take longer over the secure world's question, and that shows in time.
    h.assume("table_answers_at_once", getattr(left.table, "valid", Const(1)))
    for part in ("rdata", "error"):
        same = getattr(left.normal, part) == getattr(right.normal, part)
        h.prove(f"normal_{part}_is_the_same", same, sec="SEC-08 SEC-01")
    h.prove("normal_interrupt_is_the_same", left.irq_normal == right.irq_normal, sec="SEC-08 SEC-01")
    h.cover("secrets_differ", left.secure.rdata != right.secure.rdata)
