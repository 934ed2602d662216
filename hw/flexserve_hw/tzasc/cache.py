"""The page-state table in memory, with a cache in front of it."""

from amaranth.hdl import C, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import exact_log2

from flexserve_hw.params import FlexMemParams

from .cache_port import CachePort, entry_layout, set_of
from .fetch import LineFetch
from .layouts import TableReadSignature, pfn_width, word_width
from .line import PORTS, memory_signature
from .line_writer import LineWriter
from .states import CODE_WIDTH

__all__ = ["BANKS", "CachedTable", "cache_members"]

BANKS = {"normal": ("ar", "aw"), "secure": ("ar", "aw"), "management": ("walk", "scan", "query")}
"""Banks of the cache, and the read ports that look into each."""


def cache_members(params: FlexMemParams) -> dict:
    """Members that a filter has with its table in memory, and lacks with its table on chip.

    table_bus : Out(AXI4Signature)
        To the memory that holds the table.
    probe_hit, probe_miss : Out(5)
        Per port of :data:`.line.PORTS`: a lookup was answered from the cache, or must be fetched.
    """
    if params.cache_lines is None:
        return {}
    ports = len(PORTS)
    return {"table_bus": Out(memory_signature(params)), "probe_hit": Out(ports), "probe_miss": Out(ports)}


class CachedTable(wiring.Component):
    """As :class:`.pages.PageTable`, for tables too large for the chip.

    Each word is a line in memory, with check bits over its states and its number. ``params.cache_lines`` of them are
    held here, direct mapped, in each of three banks: for accesses of the normal world, for those of the secure world,
    and for management. What the secure world reads and writes thus changes nothing in the bank that an access of the
    normal world is looked up in, and a line that it fetches answers nobody of the normal world. That it fetches at all
    may be felt, as lines come one at a time, and so may a word that a command writes: it is in every bank then, in
    place of another.

    Writes go through: what is written is in every bank in the same cycle and on its way to memory, so an entry can be
    given up at any time, and memory's copy is never used while a newer one is on the way.

    A word that fails its check, or is answered with an error, reads as all zeros, which is no code word in any page:
    everyone is denied, and who meets it raises the alarm. It is not kept; the next question fetches it again. After a
    failed write memory may hold an old state with a check that fits, and from a corrupt window lines may come that
    anyone wrote; so from then until reset every word reads as zeros, and no line is asked for or written.

    Parameters
    ----------
    params : FlexMemParams
        With ``cache_lines``.

    Attributes
    ----------
    banks : dict of str to Memory
        The cache, by the names of :data:`BANKS`, for tests that upset its bits.

    Members
    -------
    ar, aw, walk, scan, query, write_en, write_word, write_data, write_ready
        See :class:`.pages.PageTable`.
    blank : In(1)
        Every word is about to be written, and none is relied upon before: reads are answered at once, with zeros.
    base : In
        First page of the table in memory, aligned to its size.
    corrupt : In(1)
        ``base`` can't be believed.
    bus : Out(AXI4Signature)
        To that memory. The filter denies every access of a master to it, so nobody else reads or writes there.
    failed : Out(1), failed_word : Out
        A write of a word failed.
    hit, miss : Out(5)
        Per port: a question of the cycle before was answered from the cache, or was not.

    Latency and ordering
    --------------------
    A hit is answered in the next cycle; a miss after five cycles, the beats of its line and those of memory, and after
    the lines that other ports wait for. A question never waits for traffic of the masters: the bus is the table's own.
    Writes are seen by reads of the same cycle. The first ``cache_lines`` cycles after reset clear the cache; nobody may
    ask in them.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        self.banks = {
            name: memory.Memory(shape=entry_layout(params), depth=max(2, params.cache_lines), init=[]) for name in BANKS
        }
        read = In(TableReadSignature(params=params))
        super().__init__(
            {
                **dict.fromkeys(PORTS, read),
                "write_en": In(1),
                "write_ready": Out(1),
                "write_word": In(word_width(params)),
                "write_data": In(params.group * CODE_WIDTH),
                "blank": In(1),
                "base": In(pfn_width(params)),
                "corrupt": In(1),
                "bus": Out(memory_signature(params)),
                "failed": Out(1),
                "failed_word": Out(word_width(params)),
                "hit": Out(len(PORTS)),
                "miss": Out(len(PORTS)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params = self._params
        m.submodules.fetch = fetch = LineFetch(params=params)
        m.submodules.writer = writer = LineWriter(params=params)
        gone = Signal()
        broken = Signal()
        swept = Signal()
        sweep = Signal(range(params.cache_lines + 1))
        written = Signal()
        put_word = Signal(word_width(params))
        put_states = Signal(params.group * CODE_WIDTH)
        m.d.comb += [
            broken.eq(gone | self.corrupt),
            swept.eq(sweep == params.cache_lines),
            writer.base.eq(self.base),
            writer.i.valid.eq(self.write_en & swept & ~broken),
            writer.i.payload.word.eq(self.write_word),
            writer.i.payload.states.eq(self.write_data),
            # With nothing to be believed any more, writes go nowhere, so that nobody waits for them.
            self.write_ready.eq(broken | (writer.i.ready & swept)),
            written.eq(self.write_en & self.write_ready & ~broken),
            self.failed.eq(writer.failed),
            self.failed_word.eq(writer.failed_word),
            writer.asked.eq(fetch.asked),
            fetch.pending.eq(writer.pending),
            fetch.base.eq(self.base),
            fetch.written.eq(written),
            fetch.written_word.eq(self.write_word),
            fetch.taken.eq(~written),
            # One word a cycle becomes known; the engine's goes first.
            put_word.eq(Mux(written, self.write_word, fetch.fetched)),
            put_states.eq(Mux(written, self.write_data, fetch.states)),
        ]
        with m.If(~swept):
            m.d.sync += sweep.eq(sweep + 1)
        with m.If(writer.failed | self.corrupt):
            m.d.sync += gone.eq(1)

        down = flipped(self.bus)
        connect(m, fetch.ar, down.ar)
        connect(m, down.r, fetch.r)
        connect(m, writer.aw, down.aw)
        connect(m, writer.w, down.w)
        connect(m, down.b, writer.b)
        ports = {}
        for n, name in enumerate(PORTS):
            port = m.submodules[name] = ports[name] = CachePort(params=params)
            connect(m, flipped(getattr(self, name)), port.user)
            m.d.comb += [
                port.blank.eq(self.blank),
                port.broken.eq(broken),
                # A line comes to those alone who share the bank of who asked for it: an answer that comes sooner would
                # tell the other world what this one is after.
                port.put.valid.eq(written | (fetch.done & (fetch.fetched_bank == fetch.bank[n]))),
                port.put.word.eq(put_word),
                port.put.bad.eq(~written & fetch.bad),
                fetch.want[n].eq(port.want),
                fetch.word[n].eq(port.word),
                self.hit[n].eq(port.hit),
                self.miss[n].eq(port.miss),
            ]
        for number, (name, users) in enumerate(BANKS.items()):
            bank = m.submodules[name] = self.banks[name]
            store = bank.write_port()
            wanted = 0
            for user in users:
                port = ports[user]
                mine = {"normal": port.nonsecure, "secure": ~port.nonsecure, "management": C(1)}[name]
                read = bank.read_port(transparent_for=(store,))
                m.d.comb += [read.en.eq(port.read_en), read.addr.eq(port.read_set)]
                with m.If(mine):
                    m.d.comb += [port.entry.eq(read.data), fetch.bank[PORTS.index(user)].eq(number)]
                wanted = wanted | (port.takes & mine)
            m.d.comb += [
                # What is fetched goes into the bank of who waits for it alone.
                store.en.eq(~swept | written | (fetch.done & wanted)),
                store.addr.eq(Mux(swept, set_of(put_word, params=params), sweep)),
                store.data.mark.valid.eq(swept),
                store.data.mark.tag.eq(put_word[exact_log2(params.cache_lines) :]),
                store.data.complement.eq(~store.data.mark.as_value()),
                store.data.states.eq(put_states),
            ]
        return m
