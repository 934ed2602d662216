"""Register blocks generated from the SystemRDL description of a frame."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from systemrdl.node import FieldNode, RegfileNode, RegNode
from systemrdl.rdltypes import AccessType, OnWriteType

from .regbus import RegisterBusSignature
from .source import elaborate

__all__ = ["RegisterBlock"]

_HW_WRITES = (AccessType.w, AccessType.rw)
_SW_WRITES = (AccessType.w, AccessType.rw)
_SW_READS = (AccessType.r, AccessType.rw)


class _Field:
    """What the properties of a field mean for hardware."""

    def __init__(self, node: FieldNode):
        self.name = node.inst_name
        self.lsb, self.width = node.lsb, node.width
        self.reset = node.get_property("reset") or 0
        self.sw_reads = node.get_property("sw") in _SW_READS
        self.sw_writes = node.get_property("sw") in _SW_WRITES
        self.onwrite = node.get_property("onwrite")
        self.hwset = bool(node.get_property("hwset"))
        self.swmod = bool(node.get_property("swmod"))
        self.swacc = bool(node.get_property("swacc"))
        self.swwel = node.get_property("swwel") is True
        hw_writes = node.get_property("hw") in _HW_WRITES
        self.constant = node.get_property("hw") is AccessType.na and not self.sw_writes
        self.driven = hw_writes and not self.hwset
        self.stored = not self.driven and not self.constant
        if self.onwrite not in (None, OnWriteType.woset, OnWriteType.woclr):
            raise ValueError(f"Field {node.get_path()} must have onwrite woset, woclr or none, not {self.onwrite!r}")
        if self.driven and self.sw_writes and not self.swmod:
            raise ValueError(
                f"Field {node.get_path()}, stored in hardware, must tell of writes by swmod, not {self.swmod!r}"
            )

    @property
    def lanes(self) -> int:
        """Byte lanes that the field touches, as a mask."""
        return sum(1 << lane for lane in range(self.lsb // 8, (self.lsb + self.width - 1) // 8 + 1))

    @property
    def members(self) -> dict:
        """Ports of the field, as the block sees them."""
        members = {}
        if self.driven:
            members["value"] = In(self.width)
        elif self.stored:
            members["value"] = Out(self.width, init=self.reset)
        if self.hwset:
            members["hwset"] = In(self.width)
        if self.swwel:
            members["swwel"] = In(1)
        if self.swmod:
            members["swmod"] = Out(1)
            members["written"] = Out(self.width)
        if self.swacc:
            members["swacc"] = Out(1)
        return members


def _fields(node: RegNode) -> list[_Field]:
    return [_Field(field) for field in node.fields()]


def _word(node: RegNode, ports):
    """What software reads."""
    parts, end = [], 0
    for field in sorted(_fields(node), key=lambda f: f.lsb):
        if field.sw_reads:
            value = Const(field.reset, field.width) if field.constant else getattr(ports, field.name).value
            parts += [Const(0, field.lsb - end), value]
            end = field.lsb + field.width
    return Cat(parts)


def _members(node) -> dict:
    members = {}
    for child in node.children(unroll=False):
        if isinstance(child, RegNode):
            fields = _fields(child)
            inner = {f.name: Out(wiring.Signature(f.members)) for f in fields if f.members}
            if any(f.sw_writes for f in fields):
                inner["reject"] = In(1)
        elif isinstance(child, RegfileNode):
            inner = _members(child)
        if not inner:
            continue
        member = Out(wiring.Signature(inner))
        members[child.inst_name] = member.array(*child.array_dimensions) if child.is_array else member
    return members


class RegisterBlock(wiring.Component):
    """Registers of one frame, generated from its SystemRDL address map.

    Every register, regfile and field is a named part of the interface, in the spelling of the RDL; arrays are indexed::

        m.submodules.regs = regs = RegisterBlock("flexmem_secure")
        wiring.connect(m, wiring.flipped(self.frame), regs.bus)        # self.frame: In(RegisterBusSignature())
        m.d.comb += regs.CAPACITY.pages.value.eq(params.pages)         # hw = w: the block's input
        grace = regs.GRACE.cycles.value                                # hw = r: the block's output
        m.d.comb += regs.GRACE.cycles.swwel.eq(regs.CONTROL.lock.value)
        with m.If(regs.CMD.COMMAND.code.swmod):                        # in the cycle of the write ...
            m.d.sync += command.eq(regs.CMD.COMMAND.code.written)      # ... with what is being written
        for name in ("FIRST", "COUNT", "TICKET", "COMMAND"):
            m.d.comb += getattr(regs.CMD, name).reject.eq(busy)        # writes answer SLVERR and change nothing
        m.d.comb += regs.IRQ_STATUS.command.hwset.eq(finished)         # sets the bit; software clears it
        m.d.comb += self.irq.eq(regs.irq)                              # any bit of IRQ_STATUS & IRQ_ENABLE
        left = regs.TIMER[2].LEFT.cycles.value

    Parameters
    ----------
    addrmap : str
        Name of the address map in the RDL sources.
    visible : None or tuple of str
        If given, the block has the input ``live``, and while that is low every register but these top-level ones
        reads as zero without side effect and ignores writes, answering OKAY.
    fixed : None or dict of str to int
        Stored fields that are constants in this instance, by their path below the map (``REGION[0].TOP_LOW.address``):
        they read as the given value and ignore writes. For what one element of an array has and the others have not.

    Members
    -------
    bus : In(RegisterBusSignature())
        Requests; the answer comes one cycle later.
    clear : In(1)
        Every stored field returns to its reset value at the end of this cycle, whatever else happens to it.
    live : In(1)
        Only with ``visible``.
    irq : Out(1)
        Only if the map has IRQ_STATUS and IRQ_ENABLE: some status bit is set and enabled.
    <REGISTER>.reject : In(1)
        On registers that software can write: while high, writes answer SLVERR and change nothing.
    <REGISTER>.<field>.value : In or Out
        An input for fields that hardware writes (``hw = w``, ``hw = rw``): sampled in the cycle of a read request.
        Otherwise an output, the stored value; also for ``hwset`` bits.
    <REGISTER>.<field>.hwset : In
        Bits to set. Setting wins over software clearing the bit in the same cycle.
    <REGISTER>.<field>.swwel : In(1)
        Write lock: while high, writes to the field are ignored, answering OKAY.
    <REGISTER>.<field>.swmod : Out(1), written : Out
        High in the cycle of a write request to the field; ``written`` is the value being written, which a stored
        ``value`` shows from the next cycle on. Never high for a write that is rejected, locked or hidden.
    <REGISTER>.<field>.swacc : Out(1)
        High in the cycle of a read request. The read returns ``value`` as it is in that cycle.

    Notes
    -----
    Byte strobes count per byte, but a field with ``swmod`` takes a write only when all its bytes are strobed. Writes to
    read-only fields are ignored, write-only fields read as zero. Addresses without a register answer SLVERR, or zero
    and OKAY if the map has the property ``reserved_okay``. Fields that hardware and software both write (``hw = rw``)
    are stored in hardware: the block only passes on ``swmod`` and ``written`` and reads ``value``.

    Latency and ordering
    --------------------
    A request is taken in its cycle, the answer is registered. ``swmod``, ``written`` and ``swacc`` depend
    combinationally on the bus; nothing on the bus depends combinationally on the hardware side.
    """

    def __init__(
        self, addrmap: str, *, visible: tuple[str, ...] | None = None, fixed: dict[str, int] | None = None
    ):
        self._map = elaborate(addrmap)
        registers = {child.inst_name for child in self._map.children(unroll=False)}
        if visible is not None and not set(visible) <= registers:
            raise ValueError(f"Visible registers must be top-level names of {addrmap}, not {visible!r}")
        self._visible = visible
        self._fixed = dict(fixed or {})
        nodes = [node for node in self._map.descendants(unroll=True) if isinstance(node, RegNode)]
        stored = {self._path(node, field) for node in nodes for field in _fields(node) if field.stored}
        if unknown := set(self._fixed) - stored:
            raise ValueError(f"Fixed fields must be stored fields of {addrmap}, not {sorted(unknown)!r}")
        self._okay = bool(self._map.get_property("reserved_okay"))
        self._has_irq = {"IRQ_STATUS", "IRQ_ENABLE"} <= registers
        members = {"bus": In(RegisterBusSignature()), "clear": In(1)}
        if visible is not None:
            members["live"] = In(1)
        if self._has_irq:
            members["irq"] = Out(1)
        super().__init__(members | _members(self._map))

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        live = Const(1) if self._visible is None else self.live
        rdata, error = Signal(32), Signal()
        with m.Switch(bus.addr[2:]):
            for node, ports, shown in self._registers():
                with m.Case(node.absolute_address >> 2):
                    m.d.comb += rdata.eq(_word(node, ports))
                    if not shown:
                        with m.If(~live):
                            m.d.comb += rdata.eq(0)
                    if hasattr(ports, "reject"):
                        m.d.comb += error.eq(bus.write & ports.reject & (Const(1) if shown else live))
            if not self._okay:
                with m.Default():
                    m.d.comb += error.eq(1)
        with m.If(bus.valid):
            m.d.sync += [bus.rdata.eq(Mux(bus.write | error, 0, rdata)), bus.error.eq(error)]
        for node, ports, shown in self._registers():
            self._effects(m, node, ports, Const(1) if shown else live)
        for node, ports, _ in self._registers():
            for field in _fields(node):
                port = getattr(ports, field.name, None)
                if (fixed := self._fixed.get(self._path(node, field))) is not None:
                    m.d.comb += port.value.eq(fixed)
                    continue
                if field.hwset:
                    # After the write in statement order, so that no event is lost to a clear in the same cycle.
                    for bit in range(field.width):
                        with m.If(port.hwset[bit]):
                            m.d.sync += port.value[bit].eq(1)
                if field.stored:
                    with m.If(self.clear):
                        m.d.sync += port.value.eq(field.reset)
        if self._has_irq:
            bits = self.signature.members["IRQ_STATUS"].signature.members
            enabled = [
                getattr(self.IRQ_STATUS, name).value & getattr(self.IRQ_ENABLE, name).value
                for name in bits
                if name != "reject"
            ]
            m.d.comb += self.irq.eq(Cat(enabled).any())
        return m

    def _path(self, node, field):
        """Name of a field below the map."""
        below = node.get_path(array_suffix="[{index:d}]").removeprefix(self._map.get_path() + ".")
        return f"{below}.{field.name}"

    def _registers(self):
        """Every register with its ports (None if it has none) and whether it shows while the frame is not live."""

        def walk(node, ports, shown):
            for child in node.children(unroll=True):
                inner = getattr(ports, child.inst_name, None)
                if child.is_array and inner is not None:
                    for index in child.current_idx:
                        inner = inner[index]
                visible = shown or self._visible is None or (node is self._map and child.inst_name in self._visible)
                if isinstance(child, RegNode):
                    yield child, inner, visible
                else:
                    yield from walk(child, inner, visible)

        yield from walk(self._map, self, False)

    def _effects(self, m, node, ports, shown):
        """What a request to one register does to its fields."""
        bus, fields = self.bus, _fields(node)
        name = node.get_path_segment(array_suffix="_{index:d}").lower()
        writable, watched = any(f.sw_writes for f in fields), any(f.swacc for f in fields)
        if writable or watched:
            hit = Signal(name=f"hit_{name}")
            m.d.comb += hit.eq(bus.valid & shown & (bus.addr[2:] == node.absolute_address >> 2))
        if writable:
            write = Signal(name=f"write_{name}")
            m.d.comb += write.eq(hit & bus.write & ~ports.reject)
        for field in fields:
            if field.swacc:
                m.d.comb += getattr(ports, field.name).swacc.eq(hit & ~bus.write)
            if field.sw_writes and self._path(node, field) not in self._fixed:
                self._write(m, field, getattr(ports, field.name), write)

    def _write(self, m, field, port, write):
        bus = self.bus
        data = bus.wdata[field.lsb : field.lsb + field.width]
        take = write & ~port.swwel if field.swwel else write
        if field.swmod:
            take = take & ((bus.strb & field.lanes) == field.lanes)
            m.d.comb += [port.swmod.eq(take), port.written.eq(data)]
        if not field.stored:
            return
        # One condition around all of it: a register that is not written costs a simulator next to nothing.
        with m.If(take):
            for lane in range(4):
                if not field.lanes >> lane & 1:
                    continue
                part = slice(max(8 * lane - field.lsb, 0), min(8 * lane + 8 - field.lsb, field.width))
                old, new = port.value[part], data[part]
                if field.onwrite is OnWriteType.woset:
                    new = old | new
                elif field.onwrite is OnWriteType.woclr:
                    new = old & ~new
                with m.If(bus.strb[lane]):
                    m.d.sync += old.eq(new)
