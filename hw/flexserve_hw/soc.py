"""The simulated phone's SoC: masters, filter, NPU with its gate, storage device and register fabric."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from .bus.axi4 import AXI4Signature
from .bus.axil import AXILiteSignature
from .bus.identity import Identity
from .bus.interconnect import Interconnect
from .gate import NpuGate
from .npu.top import FlexNpu
from .params import Nsaid, SocParams
from .regs.fabric import RegisterFabric, soc_frames
from .storage import StorageDma
from .tzasc.filter import FlexFilter

__all__ = ["CPUS", "MASTERS", "Soc"]

CPUS = {
    "cpu_n": Identity(nsaid=Nsaid.CPU),
    "cpu_s": Identity(nsaid=Nsaid.CPU, may_be_secure=True),
    "hostile": Identity(nsaid=Nsaid.HOSTILE),
}
"""Masters outside the SoC, each with a port for memory and one for registers, and what is forced upon them."""

MASTERS = {
    "cpu_n": CPUS["cpu_n"],
    "cpu_s": CPUS["cpu_s"],
    "npu": Identity(nsaid=Nsaid.NPU, may_be_secure=True),
    "storage": Identity(nsaid=Nsaid.STORAGE),
    "hostile": CPUS["hostile"],
}
"""Masters in front of the filter, in the order of the numbers that their IDs carry on top."""

_PROBE_NAMES = {
    "probe_ar_allow": "probe_filter_ar_allow",
    "probe_ar_deny": "probe_filter_ar_deny",
    "probe_aw_allow": "probe_filter_aw_allow",
    "probe_aw_deny": "probe_filter_aw_deny",
    "probe_page": "probe_page_event",
    "probe_scrub": "probe_scrub_active",
    "probe_decision": "probe_command",
    "probe_expired": "probe_grace_expired",
}


_GATE_TO_NPU = ("secure", "live_normal", "live_secure", "ticket", "drain", "scrub")
_NPU_TO_GATE = ("drained", "scrubbed")


def _probes(core: wiring.Component) -> dict[str, str]:
    """Names of the core's probes outside and inside."""
    return {_PROBE_NAMES.get(name, name): name for name in core.signature.members if name.startswith("probe_")}


class Soc(wiring.Component):
    """Everything between the CPUs and the memories; whatever a test bench drives is a port.

    Parameters
    ----------
    params : SocParams

    Members
    -------
    cpu_n, cpu_s, hostile : In(AXI4Signature)
        Memory ports of the normal CPU, the secure CPU and a hostile DMA device.
    axil_cpu_n, axil_cpu_s, axil_hostile : In(AXILiteSignature)
        Their register ports.
    mem : Out(AXI4Signature)
        To memory; IDs are the filter's.
    flash_req, flash_rdata, flash_wdata, flash_wdone
        See :class:`.storage.StorageDma`.
    irq_flex_n, irq_flex_s, irq_tzc, irq_npu_n, irq_npu_s, irq_gate_n, irq_gate_s, irq_storage : Out(1)
        Level interrupts.
    probe_* : Out
        Signals to watch; nothing depends on them.

    Latency and ordering
    --------------------
    Those of the interconnect, the filter and the register fabric, one after the other.
    """

    def __init__(self, *, params: SocParams):
        self._params = params
        self._filter = FlexFilter(params=params.flex)
        self._npu = FlexNpu(params=params.npu)
        self._gate = NpuGate(grace_min=params.flex.grace_min, grace_max=params.flex.grace_max)
        self._storage = StorageDma(bus=params.npu.bus)
        bus = params.npu.bus
        below = self._filter.signature.members["downstream"].signature
        flash = {name: self._storage.signature.members[name] for name in ("flash_req", "flash_rdata", "flash_wdata")}
        super().__init__(
            {name: In(AXI4Signature(**_widths(bus))) for name in CPUS}
            | {f"axil_{name}": In(AXILiteSignature(addr_width=bus.addr_width)) for name in CPUS}
            | {"mem": Out(below)}
            | flash
            | {"flash_wdone": In(1)}
            | {
                f"irq_{name}": Out(1)
                for name in ("flex_n", "flex_s", "npu_n", "npu_s", "gate_n", "gate_s", "tzc", "storage")
            }
            | {outer: self._filter.signature.members[inner] for outer, inner in _probes(self._filter).items()}
            | {
                "probe_npu_secure": Out(1),
                "probe_npu_phase": self._npu.signature.members["phase"],
                "probe_gate_state": self._gate.signature.members["state"],
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.interconnect = interconnect = Interconnect(masters=MASTERS, **_widths(self._params.npu.bus))
        m.submodules.fabric = fabric = RegisterFabric(
            masters=CPUS,
            frames=soc_frames(),
            addr_width=self._params.npu.bus.addr_width,
        )
        m.submodules.filter = flex = self._filter
        m.submodules.npu = npu = self._npu
        m.submodules.gate = gate = self._gate
        m.submodules.storage = storage = self._storage
        for name in CPUS:
            connect(m, flipped(getattr(self, name)), getattr(interconnect, name))
            connect(m, flipped(getattr(self, f"axil_{name}")), getattr(fabric, name))
        if self._params.bypass:
            self._wires(m, interconnect.o)
        else:
            connect(m, interconnect.o, flex.upstream)
            connect(m, flex.downstream, flipped(self.mem))
        self._npu_and_gate(m, interconnect, fabric, npu, gate)
        self._storage_device(m, interconnect, fabric, storage)
        for frame in ("tzc", "flex_normal", "flex_secure"):
            connect(m, getattr(fabric, frame), getattr(flex, frame))
        m.d.comb += fabric.flex_normal_managers.eq(flex.managers)
        m.d.comb += [
            getattr(self, f"irq_{name}").eq(getattr(flex, f"irq_{name}")) for name in ("flex_n", "flex_s", "tzc")
        ]
        m.d.comb += [getattr(self, outer).eq(getattr(flex, inner)) for outer, inner in _probes(flex).items()]
        return m

    def _wires(self, m, masters):
        """Memory without the filter, whose ID bit for its own transactions stays zero."""
        mem = self.mem
        for name in ("aw", "w", "ar"):
            source, sink = getattr(masters, name), getattr(mem, name)
            m.d.comb += [sink.valid.eq(source.valid), source.ready.eq(sink.ready)]
            m.d.comb += [sink.payload[field].eq(source.payload[field]) for field, _ in sink.payload.shape()]
        for name in ("b", "r"):
            source, sink = getattr(mem, name), getattr(masters, name)
            m.d.comb += [sink.valid.eq(source.valid), source.ready.eq(sink.ready)]
            m.d.comb += [sink.payload[field].eq(source.payload[field]) for field, _ in sink.payload.shape()]

    def _npu_and_gate(self, m, interconnect, fabric, npu, gate):
        connect(m, npu.dma, interconnect.npu)
        for core, name in ((npu, "npu"), (gate, "gate")):
            connect(m, getattr(fabric, f"{name}_normal"), core.frame_n)
            connect(m, getattr(fabric, f"{name}_secure"), core.frame_s)
            m.d.comb += [getattr(self, f"irq_{name}_{world}").eq(getattr(core, f"irq_{world}")) for world in "ns"]
        m.d.comb += [getattr(npu, name).eq(getattr(gate, name)) for name in _GATE_TO_NPU]
        m.d.comb += [getattr(gate, name).eq(getattr(npu, name)) for name in _NPU_TO_GATE]
        m.d.comb += [
            fabric.gate_normal_managers.eq(gate.managers),
            self.probe_npu_secure.eq(gate.secure),
            self.probe_npu_phase.eq(npu.phase),
            self.probe_gate_state.eq(gate.state),
        ]

    def _storage_device(self, m, interconnect, fabric, storage):
        connect(m, storage.dma, interconnect.storage)
        connect(m, fabric.storage, storage.frame)
        connect(m, storage.flash_req, flipped(self.flash_req))
        connect(m, flipped(self.flash_rdata), storage.flash_rdata)
        connect(m, storage.flash_wdata, flipped(self.flash_wdata))
        m.d.comb += [storage.flash_wdone.eq(self.flash_wdone), self.irq_storage.eq(storage.irq)]


def _widths(bus) -> dict[str, int]:
    return {"addr_width": bus.addr_width, "data_width": bus.data_width, "id_width": bus.id_width}
