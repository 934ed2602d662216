"""A read port of the cached page-state table."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from flexserve_hw.params import FlexMemParams

from .layouts import TableReadSignature, word_width
from .line import PutSignature
from .states import CODE_WIDTH

__all__ = ["CachePort", "entry_layout", "mark_layout", "set_of"]


def mark_layout(params: FlexMemParams) -> data.StructLayout:
    """Which word an entry of the cache holds, if any."""
    return data.StructLayout({"valid": 1, "tag": word_width(params) - exact_log2(params.cache_lines)})


def entry_layout(params: FlexMemParams) -> data.StructLayout:
    """An entry of the cache. Its mark is stored twice, as it is and complemented."""
    mark = mark_layout(params)
    return data.StructLayout({"mark": mark, "complement": mark.size, "states": params.group * CODE_WIDTH})


def set_of(word, *, params: FlexMemParams):
    """Number of the one entry that may hold table word ``word``."""
    return word[: exact_log2(params.cache_lines)]


class CachePort(wiring.Component):
    """Answer from the cache, or wait until the word is there.

    All zeros is the answer if the word can't be had or believed: no page's state is a code word then.

    Parameters
    ----------
    params : FlexMemParams

    Members
    -------
    user : In(TableReadSignature)
        Who asks.
    nonsecure : Out(1)
        World of the question that is being answered.
    blank : In(1)
        Nobody minds what the table holds: answer at once.
    broken : In(1)
        Nothing of the table can be believed.
    read_en, read_set : Out, entry : In
        Read port of the cache, which sees writes of the same cycle.
    put : In(PutSignature)
        Words that become known. But for bad ones they are written to the cache in this cycle.
    want : Out(1), word : Out
        ``word`` is waited for.
    takes : Out(1)
        The word that is put is waited for, and no bad one.
    hit, miss : Out(1)
        A question of the cycle before is, or isn't, answered from the cache.

    Latency and ordering
    --------------------
    A hit is valid one cycle after ``user.en``; a miss one cycle after its word is put. An entry whose mark disagrees
    with its complement answers for every word that may lie in it, until another word is put there.
    """

    def __init__(self, *, params: FlexMemParams):
        self._params = params
        super().__init__(
            {
                "user": In(TableReadSignature(params=params)),
                "nonsecure": Out(1),
                "blank": In(1),
                "broken": In(1),
                "read_en": Out(1),
                "read_set": Out(exact_log2(params.cache_lines)),
                "entry": In(entry_layout(params)),
                "put": In(PutSignature(params=params)),
                "want": Out(1),
                "word": Out(word_width(params)),
                "takes": Out(1),
                "hit": Out(1),
                "miss": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        params, user, mark = self._params, self.user, self.entry.mark
        asked = Signal()
        fresh = Signal()
        failed = Signal()
        sound = Signal()
        found = Signal()
        mine = Signal()
        # An answer, once given, stays as it is, whatever becomes of the table: its user may have acted upon it.
        answered = Signal()
        hidden = Signal()
        hides = Signal()
        m.d.comb += [
            sound.eq(mark.as_value() == ~self.entry.complement),
            found.eq(sound & mark.valid & (mark.tag == self.word[exact_log2(params.cache_lines) :])),
            hides.eq(Mux(answered, hidden, self.broken | self.blank)),
            user.valid.eq(asked & (answered | found | ~sound | failed | hides)),
            user.data.eq(Mux(found & ~failed & ~hides, self.entry.states, 0)),
            self.want.eq(asked & ~user.valid),
            mine.eq(self.want & self.put.valid & (self.put.word == self.word)),
            self.takes.eq(mine & ~self.put.bad),
            self.read_en.eq(user.en | self.takes),
            self.read_set.eq(set_of(Mux(user.en, user.word, self.word), params=params)),
            self.hit.eq(fresh & found & ~self.blank),
            self.miss.eq(fresh & self.want),
        ]
        m.d.sync += [fresh.eq(user.en), answered.eq(user.valid & ~user.en), hidden.eq(hides)]
        with m.If(user.en):
            m.d.sync += [asked.eq(1), self.word.eq(user.word), self.nonsecure.eq(user.nonsecure), failed.eq(0)]
        with m.Elif(mine & self.put.bad):
            m.d.sync += failed.eq(1)
        return m
