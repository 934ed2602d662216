"""What is always true inside the page side: the invariants that its proofs rest on.

Each class names signals of one part and claims lemmas about them. They are proved with the rest, never assumed.
"""

from amaranth.hdl import Mux, Signal, Value
from amaranth.lib import data

from flexserve_hw.tzasc.commands import Work
from flexserve_hw.tzasc.timers import range_layout
from flexserve_sw.machine import World
from flexserve_sw.recall import TRANSITIONS
from flexserve_sw.regs import RecallState

from .harness import Harness
from .management import CODES, Management, Watch, walked

__all__ = ["Given", "Slots", "Walk", "drained"]

S = RecallState


class Walk:
    """Where the command engine is in its work."""

    def __init__(self, g: Management):
        h = g.h
        inner = h.inner
        self.work, self.more, self.cursor = inner("engine.work"), inner("engine.more"), inner("engine.cursor")
        self.at, self.reads = inner("engine.at"), walked(h)
        self.pages = data.View(range_layout(g.params), inner("engine.pages"))
        self.first, self.last = self.pages.first >> g.shift, self.pages.last >> g.shift
        self.apply, self.check = g.engine_in("APPLY"), g.engine_in("CHECK")
        self.command = self.work == Work.COMMAND
        self.finish = self.apply & (self.work == Work.FINISH)
        self.boot = self.apply & (self.work == Work.BOOT)
        # The word with the symbolic page is not written yet.
        self.ahead = self.apply & ((g.page >> g.shift) >= Mux(self.reads, self.at, self.cursor))

    def lemmas(self, h: Harness, g: Management) -> None:
        """A walk begins at the first word of its range and ends at the last."""
        walking = self.apply | self.check
        h.prove(
            "range_is_in_order", ~(walking | g.engine_in("CLAIM")) | (self.pages.first <= self.pages.last), lemma=True
        )
        h.prove("walk_starts", ~walking | self.reads | (self.more & (self.cursor == self.first)), lemma=True)
        inside = (self.at >= self.first) & (self.at <= self.last)
        goes_on = Mux(self.more, (self.at < self.last) & (self.cursor == self.at + 1), self.at == self.last)
        h.prove("walk_stays_in_range", ~(walking & self.reads) | (inside & goes_on), lemma=True)
        initialise = h.inner("window.initialise")
        h.prove("boot_first", ~initialise | g.engine_in("IDLE", "DECODE", "REFUSE") | self.boot, lemma=True)
        h.prove("boot_once", ~self.boot | initialise, lemma=True)
        h.prove("boot_or_state", ~(initialise & g.initialised), lemma=True)
        here = self.reads & (self.at == g.page >> g.shift)
        h.prove("walk_sees_what_is_stored", ~here | (g.code_in(g.core.table.walk.data, g.page) == g.state), lemma=True)
        h.prove("state_is_legal", ~g.initialised | g.is_in(g.state, *CODES), lemma=True)
        h.prove("window_is_sound", ~g.core.live.corrupt, lemma=True)
        h.prove("ready_after_boot", ~g.core.ready | g.initialised, lemma=True)
        h.prove(
            "commands_after_boot",
            ~(g.engine_in("CHECK", "CLAIM") | (self.apply & self.command)) | g.core.ready,
            lemma=True,
        )
        h.prove("window_before_work", (g.core.live.pages != 0) | g.engine_in("IDLE", "DECODE", "REFUSE"), lemma=True)


def drained(h: Harness, g: Management, w: Watch) -> Value:
    """Lemmas about epochs; returns whether the watched transaction was allowed by a state that is no more."""
    inner = h.inner
    wanted, draining = inner("drain.wanted"), inner("drain.draining")
    for direction, name in enumerate("rw"):
        for epoch in range(2):
            count = inner(f"drain.count_{name}{epoch}")
            h.prove(f"count_{name}{epoch}_is_right", count == g.counts[direction][epoch], lemma=True)
    old = Mux(g.epoch, g.counts[0][0] | g.counts[1][0], g.counts[0][1] | g.counts[1][1])
    h.prove("old_epoch_drains", (old == 0) | draining, lemma=True)
    h.prove("watched_is_counted", ~w.active | (w.count != 0), lemma=True)
    h.prove("watched_only_when_ready", ~w.active | g.core.ready, lemma=True)
    h.prove("verdict_of_the_watched", w.active & ~w.judging | ~(w.normal | w.secure), lemma=True)
    misfit = Signal(name="misfit")
    h.m.d.comb += misfit.eq(
        (w.normal & ~g.is_in(g.state, S.NORMAL)) | (w.secure & ~g.is_in(g.state, S.FLEX, S.RECALLING, S.SEALED))
    )
    h.prove("misfit_is_waited_for", ~misfit | wanted | (draining & (w.epoch != g.epoch)), lemma=True)
    return misfit


class Slots:
    """The scrubber's slots, and which of them works on the symbolic page."""

    def __init__(self, g: Management):
        h, inner, bursts = g.h, g.h.inner, g.bursts
        self.sending, self.slot, self.burst = inner("scrubber.sending"), inner("scrubber.slot"), inner("scrubber.burst")
        self.busy, self.pages, self.mine, self.complete, self.answers, self.failed = [], [], [], [], [], []
        turn = inner("scrubber.turn")
        for n in range(g.params.scrub_slots):
            busy, page, unsent, answers, failed = (
                inner(f"scrubber.slot{n}_{name}") for name in ("busy", "page", "unsent", "answers", "failed")
            )
            at_work = self.sending & (self.slot == n)
            h.prove(f"slot{n}_sends_what_is_unsent", (busy & unsent) == at_work, lemma=True)
            h.prove(f"slot{n}_sends_its_own_page", ~at_work | (inner("scrubber.base") == page), lemma=True)
            sent = Mux(at_work, self.burst, Mux(busy, bursts, 0))
            h.prove(f"slot{n}_counts_its_answers", (g.unanswered[n] + Mux(busy, answers, 0)) == sent, lemma=True)
            self.busy.append(busy)
            self.answers.append(answers)
            self.failed.append(failed)
            self.pages.append(page)
            self.mine.append(busy & (page == g.page))
            self.complete.append(busy & ~unsent & (answers == bursts) & ~failed)
        self.held_complete = Mux(turn, self.complete[1], self.complete[0])
        self.held_page = Mux(turn, self.pages[1], self.pages[0])
        self.held = inner("scrubber.held")
        h.prove("finish_is_held", ~self.held | self.held_complete, lemma=True)
        h.prove("one_slot_per_page", ~(self.mine[0] & self.mine[1]), lemma=True)
        h.prove("burst_of_the_page", self.sending | (self.burst == 0), lemma=True)


class Given:
    """The command that a frame has given, as the golden table reads it."""

    def __init__(self, g: Management, n: int):
        h, core, port = g.h, g.core, g.core.commands[n]
        self.port, self.world = port, World.SECURE if n else World.NORMAL
        self.code, self.taken = Signal(4, name=f"given{n}"), port.start & ~port.busy
        with h.m.If(self.taken):
            h.m.d.sync += self.code.eq(port.code)
        h.prove(f"code{n}_is_kept", ~port.busy | (h.inner(f"engine.code{n}") == self.code), lemma=True)
        # 34 bits hold any sum of frame numbers.
        self.first, self.beyond = Signal(34, name=f"first{n}"), Signal(34, name=f"beyond{n}")
        self.pfn = Signal(34, name=f"page{n}")
        h.m.d.comb += [
            self.first.eq(port.first),
            self.beyond.eq(port.first + port.count),
            self.pfn.eq(core.live.base + g.page),
        ]
        self.holds_page = (self.first <= self.pfn) & (self.pfn < self.beyond)

    def allows(self, g: Management, before, after) -> Value:
        """Whether the golden table lets this command lead from one state to the other."""
        result = Signal(name=f"allows_{self.world.name.lower()}")
        for command, (world, sources, target) in TRANSITIONS.items():
            if world is self.world:
                with g.h.m.If(self.code == command):
                    g.h.m.d.comb += result.eq(g.is_in(before, *sources) & g.is_in(after, target))
        return result

    def starts_from(self, g: Management, state) -> Value:
        """Whether the command may be given for a page in ``state``."""
        result = Signal(name=f"starts_{self.world.name.lower()}")
        for command, (world, sources, _) in TRANSITIONS.items():
            if world is self.world:
                with g.h.m.If(self.code == command):
                    g.h.m.d.comb += result.eq(g.is_in(state, *sources))
        return result
