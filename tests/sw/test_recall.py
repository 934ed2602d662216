"""The recall protocol's golden model: exhausted where it is small, random where it is not."""

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flexserve_sw.machine import World
from flexserve_sw.recall import ACCESS, TRANSITIONS, Outcome, RecallTable
from flexserve_sw.regs import RecallCommand, RecallResult, RecallState

S, C, R = RecallState, RecallCommand, RecallResult
N, SEC = World.NORMAL, World.SECURE

# The protocol's table once more, written from its text: command, who may give it, from which states, to which.
WRITTEN = """
DELEGATE normal NORMAL         DELEGATED
ACCEPT   secure DELEGATED      FLEX
RECALL   normal FLEX           RECALLING
RELEASE  secure FLEX,RECALLING SCRUBBING
CANCEL   normal DELEGATED      NORMAL
SEAL     secure NORMAL,FLEX    SEALED
"""
TABLE = {
    C[name]: (World(world), {S[s] for s in sources.split(",")}, S[target])
    for name, world, sources, target in (line.split() for line in WRITTEN.strip().splitlines())
}


def expected(states: tuple[RecallState, ...], code: RecallCommand, first: int, count: int, by: World, locked: bool):
    """Result, offender and states that the table's text demands of a window of pages from 16 on."""
    end = 16 + len(states)
    if code not in TABLE:
        return R.BAD_COMMAND, first, states
    world, sources, target = TABLE[code]
    if by is not world or (locked and code is C.SEAL):
        return R.NOT_PERMITTED, first, states
    if count == 0 or not 16 <= first < end:
        return R.OUT_OF_WINDOW, first, states
    if first + count > end:
        return R.OUT_OF_WINDOW, end, states
    for page in range(first, first + count):
        if states[page - 16] not in sources:
            corrupt = states[page - 16] is S.CORRUPT
            return R.CORRUPT_STATE if corrupt else R.BAD_STATE, page, states
    after = list(states)
    after[first - 16 : first - 16 + count] = [target] * count
    return R.OK, 0, tuple(after)


@pytest.mark.parametrize("code", C, ids=lambda code: code.name)
def test_every_command_in_every_pair_of_states_does_what_the_table_says(code: RecallCommand) -> None:
    ranges = ((15, 1), (15, 2), (16, 0), (16, 1), (16, 2), (16, 3), (17, 1), (17, 2), (18, 1), (16, 0xFFFF_FFFF))
    for states in itertools.product(S, repeat=2):
        for (first, count), by, locked in itertools.product(ranges, World, (False, True)):
            table = RecallTable(16, 2, grace=10, locked=locked)
            table.states = list(states)
            outcome = table.command(code, first, count, by=by)
            result, offender, after = expected(states, code, first, count, by, locked)
            assert (outcome, tuple(table.states)) == (Outcome(result, offender), after), (states, first, count, by)


def test_access_is_what_the_table_says() -> None:
    normal, secure = {S.NORMAL}, {S.FLEX, S.RECALLING, S.SEALED}
    assert {s for s in S if N in ACCESS[s]} == normal
    assert {s for s in S if SEC in ACCESS[s]} == secure


def test_no_way_leads_from_secure_access_to_normal_access_but_through_a_scrub() -> None:
    steps = {(source, target) for _, sources, target in TRANSITIONS.values() for source in sources}
    reached = {state for state in S if SEC in ACCESS[state]}
    while more := {b for a, b in steps if a in reached} - reached - {S.SCRUBBING}:
        reached |= more
    assert not any(N in ACCESS[state] for state in reached)


def test_a_sealed_page_has_no_way_out() -> None:
    assert not any(S.SEALED in sources for _, sources, _ in TRANSITIONS.values())


def test_pages_outside_the_window_are_not_this_tables_to_deny() -> None:
    table = RecallTable(16, 2, grace=10, initial=S.SCRUBBING)
    assert table.allows(15, N)
    assert table.allows(18, SEC)
    assert not table.allows(16, N)


def lent(count: int = 4, **options: object) -> RecallTable:
    """A table whose pages are all in FLEX."""
    table = RecallTable(0, count, grace=100, **options)
    table.states = [S.FLEX] * count
    return table


def test_grace_ends_at_its_deadline_and_takes_what_was_not_released() -> None:
    table = lent()
    assert table.command(C.RECALL, 0, 3, by=N, now=50).result is R.OK
    assert table.command(C.RELEASE, 1, 1, by=SEC, now=60).result is R.OK
    assert table.expire(149) == []
    assert table.expire(150) == [0, 2]
    assert table.states == [S.SCRUBBING] * 3 + [S.FLEX]
    assert table.running == []


def test_a_timer_is_free_as_soon_as_its_last_page_is_released() -> None:
    table = lent(timers=1)
    assert table.command(C.RECALL, 0, 2, by=N).result is R.OK
    assert table.command(C.RECALL, 2, 1, by=N) == Outcome(R.NO_SLOT, 2)
    assert table.command(C.RELEASE, 0, 2, by=SEC).result is R.OK
    assert table.command(C.RECALL, 2, 1, by=N).result is R.OK


def test_a_range_under_a_running_timer_is_refused_even_where_it_was_lent_anew() -> None:
    table = lent()
    assert table.command(C.RECALL, 0, 2, by=N).result is R.OK
    table.command(C.RELEASE, 0, 1, by=SEC)
    table.scrubbed(0)
    table.command(C.DELEGATE, 0, 1, by=N)
    table.command(C.ACCEPT, 0, 1, by=SEC)
    assert table.command(C.RECALL, 0, 1, by=N) == Outcome(R.NO_SLOT, 0)
    assert table.expire(1_000) == [1]
    assert table.states[0] is S.FLEX


def test_tickets_count_lendings_and_an_old_one_opens_nothing() -> None:
    table = RecallTable(0, 1, grace=10, timers=1, ticketed=True)
    table.command(C.DELEGATE, 0, 1, by=N)
    assert table.command(C.ACCEPT, 0, 1, by=SEC, ticket=1).result is R.OK
    table.command(C.RELEASE, 0, 1, by=SEC, ticket=1)
    table.scrubbed(0)
    table.command(C.DELEGATE, 0, 1, by=N)
    assert table.command(C.ACCEPT, 0, 1, by=SEC, ticket=1) == Outcome(R.BAD_TICKET, 0)
    assert table.command(C.ACCEPT, 0, 1, by=SEC, ticket=2).result is R.OK


def test_only_a_page_in_scrubbing_can_be_reported_scrubbed() -> None:
    with pytest.raises(ValueError, match=r"SCRUBBING can be reported scrubbed, not 0x1 in"):
        lent().scrubbed(1)


class Worlds(RuleBasedStateMachine):
    """Two worlds at play over eight pages; ``secrets`` are the pages that hold a bit of the secure world's."""

    PAGES = 8

    def __init__(self) -> None:
        super().__init__()
        self.table = RecallTable(0, self.PAGES, grace=20, timers=2)
        self.now = 0
        self.secrets: set[int] = set()
        self.accepted: set[int] = set()
        self.asked: dict[int, int] = {}

    @rule(
        code=st.sampled_from(C),
        by=st.sampled_from(World),
        first=st.integers(-1, PAGES),
        count=st.integers(0, PAGES + 1),
    )
    def command(self, code: RecallCommand, by: World, first: int, count: int) -> None:
        before = list(self.table.states)
        outcome = self.table.command(code, first, count, by=by, now=self.now)
        pages = range(first, first + count)
        if outcome.result is not R.OK:
            assert self.table.states == before
            return
        assert all(self.table.states[p] is before[p] for p in range(self.PAGES) if p not in pages)
        if code is C.ACCEPT:
            self.accepted |= set(pages)
        if code is C.RECALL:
            self.asked |= {page: self.now for page in pages}

    @rule(page=st.integers(0, PAGES - 1))
    def secure_write(self, page: int) -> None:
        if self.table.allows(page, SEC):
            assert page in self.accepted or self.table.states[page] is S.SEALED
            self.secrets.add(page)

    @rule(cycles=st.integers(1, 15))
    def pass_time(self, cycles: int) -> None:
        self.now += cycles
        for page in self.table.expire(self.now):
            assert self.table.states[page] is S.SCRUBBING

    @precondition(lambda self: S.SCRUBBING in self.table.states)
    @rule(data=st.data())
    def scrub(self, data: st.DataObject) -> None:
        page = data.draw(st.sampled_from([p for p, s in enumerate(self.table.states) if s is S.SCRUBBING]))
        owed = self.table.owed
        self.table.scrubbed(page)
        self.secrets.discard(page)
        self.accepted.discard(page)
        assert self.table.freed[-1] == page
        assert self.table.owed == max(0, owed - 1)

    @rule(pages=st.integers(1, 4))
    def ask_by_size(self, pages: int) -> None:
        self.table.owed += pages

    @invariant()
    def no_secret_is_open_to_the_normal_world(self) -> None:
        assert not [page for page in self.secrets if self.table.allows(page, N)]

    @invariant()
    def no_page_is_open_to_both_worlds(self) -> None:
        assert not [page for page in range(self.PAGES) if self.table.allows(page, N) and self.table.allows(page, SEC)]

    @invariant()
    def every_recalling_page_has_exactly_one_running_timer(self) -> None:
        for page, state in enumerate(self.table.states):
            timers = [t for t in self.table.running if t.overlaps(page, 1)]
            if state is S.RECALLING:
                assert len(timers) == 1
                assert timers[0].deadline == self.asked[page] + self.table.grace

    @invariant()
    def no_grace_period_outlives_its_deadline(self) -> None:
        assert all(timer.deadline > self.now for timer in self.table.running)


TestWorlds = Worlds.TestCase
TestWorlds.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
