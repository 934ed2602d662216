"""What the bench does in every cycle: drive the masters and the memory, then look at every handshake."""

from amaranth.hdl import C

from flexserve_hw.bus.axi4 import Resp
from flexserve_sw.machine import World
from flexserve_sw.recall import Outcome
from flexserve_sw.regs import RecallCommand, RecallResult, RecallState

PAGE = 4096
S = RecallState
_FORBIDDEN_TO_NORMAL_WRITES = (S.FLEX, S.RECALLING, S.SCRUBBING, S.SEALED)


def _address(burst):
    return {
        "id": burst.id,
        "addr": burst.address,
        "len": burst.beats - 1,
        "size": burst.size,
        "burst": burst.kind,
        "prot": {"privileged": int(burst.privileged), "nonsecure": int(burst.world is World.NORMAL), "instruction": 0},
        "user": burst.nsaid,
    }


class _Channel:
    """Keeps an offered transfer until it is taken."""

    def __init__(self, ctx, stream):
        self.ctx, self.stream, self.item = ctx, stream, None

    def offer(self, item, payload):
        self.item = item
        self.ctx.set(self.stream.payload, payload)
        self.ctx.set(self.stream.valid, 1)

    def withdraw(self):
        self.item = None
        self.ctx.set(self.stream.valid, 0)


async def clockwork(bench, ctx):
    dut, memory = bench.dut, bench.memory
    up, down = dut.upstream, dut.downstream
    aw, w, ar = _Channel(ctx, up.aw), _Channel(ctx, up.w), _Channel(ctx, up.ar)
    r, b = _Channel(ctx, down.r), _Channel(ctx, down.b)
    samples = [up.aw.ready, up.w.ready, up.ar.ready, up.r.valid, up.r.payload, up.b.valid, up.b.payload]
    samples += [down.aw.valid, down.aw.payload, down.w.valid, down.w.payload, down.ar.valid, down.ar.payload]
    samples += [down.r.ready, down.b.ready, dut.probe_page, dut.probe_decision, dut.probe_expired]
    samples += [dut.probe_ar_allow, dut.probe_ar_deny, dut.probe_aw_allow, dut.probe_aw_deny]
    samples += [dut.probe_miss if bench.table else C(0)]
    owner = _Owners()
    judged = {False: [], True: []}
    if bench.table:
        bench.table.begin(ctx)
    previous = {}
    while True:
        # Masters offer.
        for channel, queue in ((aw, bench.aw), (ar, bench.ar)):
            if channel.item is None and queue and not _lazy(bench, queue[0]):
                burst = queue.popleft()
                burst.offered = bench.cycle
                channel.offer(burst, _address(burst))
        if w.item is None and bench.w and bench.random.random() >= bench.stall:
            burst = bench.w[0]
            late = burst.gap and (burst.accepted < 0 or bench.cycle < burst.accepted + burst.gap * (burst.sent + 1))
            if not late:
                n = burst.sent
                last = n == burst.beats - 1 if burst.last is None else burst.last[n]
                w.offer(burst, {"data": burst.data[n], "strb": burst.strobes[n], "last": int(last)})
        r_ready = bench.r_ready and bench.random.random() >= bench.stall
        b_ready = bench.b_ready and bench.random.random() >= bench.stall
        ctx.set(up.r.ready, r_ready)
        ctx.set(up.b.ready, b_ready)
        # Memory offers and stalls.
        aw_ready = not memory.hold_addresses and not memory.stalled()
        ar_ready = not memory.stalled()
        w_ready = bool(memory.write_addresses) and not memory.stalled()
        if memory.data_first:
            # The address is taken only while its data are offered; a beat is taken with its address or after it.
            aw_ready = aw_ready and bool(ctx.get(down.w.valid)) and not memory.write_addresses
        ctx.set(down.aw.ready, aw_ready)
        ctx.set(down.ar.ready, ar_ready)
        ctx.set(down.w.ready, w_ready)
        if r.item is None and memory.reads and not memory.hold_reads and not memory.stalled():
            at, payload, beats, entry = memory.reads[0]
            if at <= bench.cycle:
                n = len(beats)
                value, world = memory.word(entry["addresses"][n])
                memory.words.setdefault(entry["addresses"][n] // memory.step, (value, world))
                last = n == len(entry["addresses"]) - 1
                if entry["nonsecure"] and bench.state(entry["addresses"][n] // PAGE) is not None:
                    assert world is World.NORMAL or value == 0, f"SEC-01: {entry} returns a secret (seed {bench.seed})"
                beats.append(value)
                r.offer(
                    (last, value),
                    {"id": payload.id, "data": value, "resp": Resp.OKAY, "last": int(last)},
                )
        if b.item is None and not memory.hold_answers and not memory.stalled():
            ripe = [entry for entry in memory.answers if entry[0] <= bench.cycle]
            if memory.hold_scrub_answers:
                ripe = [entry for entry in ripe if not entry[1] >> bench.params.bus.id_width]
            heads = [e for n, e in enumerate(ripe) if all(x[1] != e[1] for x in ripe[:n])]
            if heads:
                entry = memory.random.choice(heads) if memory.stall else heads[0]
                memory.answers.remove(entry)
                b.offer(entry, {"id": entry[1], "resp": entry[2]})

        if bench.table:
            bench.table.offer(ctx)
        _, _, *values = await ctx.tick().sample(*samples, *(bench.table.samples if bench.table else ()))
        if bench.table:
            bench.table.look(values[len(samples) :])
        (
            up_aw_ready, up_w_ready, up_ar_ready, up_r_valid, up_r, up_b_valid, up_b,
            down_aw_valid, down_aw, down_w_valid, down_w, down_ar_valid, down_ar,
            down_r_ready, down_b_ready, page, decision, expired, ar_allow, ar_deny, aw_allow, aw_deny, miss,
        ) = values[: len(samples)]  # fmt: skip
        _stable(bench, previous, "aw", down_aw_valid, down_aw, aw_ready)
        _stable(bench, previous, "w", down_w_valid, down_w, w_ready)
        _stable(bench, previous, "ar", down_ar_valid, down_ar, ar_ready)
        _stable(bench, previous, "r", up_r_valid, up_r, r_ready)
        _stable(bench, previous, "b", up_b_valid, up_b, b_ready)

        for write, allow, deny in ((False, ar_allow, ar_deny), (True, aw_allow, aw_deny)):
            if allow or deny:
                burst = judged[write].pop(0)
                assert bool(allow) in burst.verdicts, f"{burst}: {bool(allow)} at verdict (seed {bench.seed})"
                burst.allowed = bool(allow)
                owner.accepted(burst)

        # Page events first: an address accepted in the cycle of a table write sees the new state.
        if page.valid:
            _page_event(bench, page)
        if expired:
            _expired(bench)
        if decision.valid:
            _decision(bench, decision)

        for write in (False, True):
            for burst in judged[write]:
                # What must be fetched is judged by any state that the page has until then.
                burst.missed = burst.missed or bool(miss >> write & 1)
                if burst.missed:
                    burst.verdicts.add(bench.allows(burst))
        for channel, ready, write in ((aw, up_aw_ready, True), (ar, up_ar_ready, False)):
            if channel.item is not None and ready:
                burst = channel.item
                burst.accepted = bench.cycle
                burst.verdicts.add(bench.allows(burst))
                judged[write].append(burst)
                bench.waiting[write].setdefault(burst.id, []).append(burst)
                bench.accepted.append(burst)
                channel.withdraw()
        if w.item is not None and up_w_ready:
            burst = w.item
            burst.sent += 1
            if burst.sent == burst.beats:
                bench.w.popleft()
            w.withdraw()

        if down_ar_valid and ar_ready:
            burst = owner.forwarded(False, down_ar)
            memory.reads.append(
                (
                    bench.cycle + memory.latency,
                    down_ar,
                    [],
                    {"addresses": burst.addresses(), "nonsecure": down_ar.prot.nonsecure, "burst": burst},
                )
            )
        if down_aw_valid and aw_ready:
            scrub = bool(down_aw.id >> bench.params.bus.id_width)
            burst = None if scrub else owner.forwarded(True, down_aw)
            if scrub:
                step = memory.step
                addresses = [down_aw.addr + n * step for n in range(down_aw.len + 1)]
                state = bench.state(down_aw.addr // PAGE)
                assert state is S.SCRUBBING, f"scrub of a page in {state!r} (seed {bench.seed})"
                memory.scrub_addresses.append((bench.cycle, down_aw.addr))
            else:
                addresses = burst.addresses()
            memory.write_addresses.append((down_aw, addresses, scrub, burst))
        if down_w_valid and w_ready:
            _memory_write(bench, memory, down_w)
        if r.item is not None and down_r_ready:
            last, _ = r.item
            if last:
                *_, entry = memory.reads[0]
                entry["burst"].memory_data = memory.reads.popleft()[2]
            r.withdraw()
        if b.item is not None and down_b_ready:
            b.withdraw()
        if up_r_valid and r_ready:
            _read_beat(bench, up_r)
        if up_b_valid and b_ready:
            _write_answer(bench, up_b)
        bench.cycle += 1


def _lazy(bench, burst):
    return bench.random.random() < bench.stall


def _stable(bench, previous, name, valid, payload, ready):
    """A transfer once offered stays as it is until it is taken."""
    before = previous.get(name)
    if before is not None:
        assert (valid, payload) == (1, before), f"{name} changed while offered (seed {bench.seed})"
    previous[name] = payload if valid and not ready else None


class _Owners:
    """Which accepted burst a downstream address belongs to: allowed ones go down in order of acceptance."""

    def __init__(self):
        self.expected = {True: [], False: []}

    def accepted(self, burst):
        if burst.allowed:
            self.expected[burst.write].append(burst)

    def forwarded(self, write, address):
        assert self.expected[write], f"{address} went downstream though nothing was allowed"
        burst = self.expected[write].pop(0)
        seen = (address.addr, address.id, address.len, address.prot.nonsecure)
        asked = (burst.address, burst.id, burst.beats - 1, int(burst.world is World.NORMAL))
        assert seen == asked, f"{seen} went downstream instead of {asked}"
        return burst


def _memory_write(bench, memory, beat):
    address, addresses, scrub, burst = memory.write_addresses[0]
    n = memory.write_beats
    memory.busy_writes += 1
    last = n == len(addresses) - 1
    assert beat.last == last, f"WLAST at beat {n} of {len(addresses)} (seed {bench.seed})"
    index = addresses[n] // memory.step
    if scrub:
        assert beat.data == 0
        memory.words[index] = (0, World.NORMAL)
    else:
        assert beat.data == burst.data[n], f"beat {n} of another burst in {burst} (seed {bench.seed})"
        nonsecure = address.prot.nonsecure
        state = bench.state(addresses[n] // PAGE)
        if nonsecure and addresses[n] // PAGE not in bench.quiet_pages:
            assert state not in _FORBIDDEN_TO_NORMAL_WRITES, f"SEC-02: write in {state!r} (seed {bench.seed})"
        if beat.strb:
            memory.words[index] = (beat.data, World.NORMAL if nonsecure else World.SECURE)
    memory.write_beats += 1
    if last:
        memory.write_beats = 0
        memory.write_addresses.popleft()
        resp = Resp.OKAY
        if scrub and memory.fail_scrubs:
            memory.fail_scrubs -= 1
            resp = Resp.SLVERR
        memory.answers.append((bench.cycle + memory.latency, address.id, resp))


def _oldest(bench, write, identity):
    queue = bench.waiting[write].get(identity)
    assert queue, f"answer to ID {identity} that has nothing outstanding (seed {bench.seed})"
    return queue[0]


def _read_beat(bench, beat):
    burst = _oldest(bench, False, beat.id)
    burst.got.append(beat.data)
    burst.resp.append(beat.resp)
    last = len(burst.got) == burst.beats
    assert beat.last == last, f"RLAST at beat {len(burst.got)} of {burst} (seed {bench.seed})"
    if not burst.allowed:
        assert beat.data == 0, f"denied read returns data: {burst} (seed {bench.seed})"
        assert beat.resp == bench.denied_resp
    if last:
        if burst.allowed:
            assert burst.got == burst.memory_data, f"{burst} got other data than memory sent (seed {bench.seed})"
        burst.answered = bench.cycle
        bench.waiting[False][burst.id].pop(0)


def _write_answer(bench, answer):
    burst = _oldest(bench, True, answer.id)
    assert burst.sent == burst.beats, f"{burst} answered before its last beat (seed {bench.seed})"
    burst.resp.append(answer.resp)
    if not burst.allowed:
        assert answer.resp == bench.denied_resp
    burst.answered = bench.cycle
    bench.waiting[True][burst.id].pop(0)


def _page_event(bench, page):
    for n in range(bench.params.group):
        if not page.mask >> n & 1:
            continue
        pfn, new = page.pfn + n, S(page.state.value)
        old = bench.shadow.get(pfn)
        bench.shadow[pfn] = new
        bench.events.append((bench.cycle, pfn, old, new))
        if old is S.SCRUBBING:
            assert new is S.NORMAL
            words = bench.memory.page(pfn)
            assert all(word == (0, World.NORMAL) for word in words), f"{pfn:#x} is not all zeros (seed {bench.seed})"
            bench.golden.scrubbed(pfn)
            bench.scrubbed.append(pfn)


def _agree(bench):
    for pfn, state in bench.shadow.items():
        golden = bench.golden.state(pfn)
        assert state is golden, f"{pfn:#x} is {state!r}, not {golden!r}, in cycle {bench.cycle} (seed {bench.seed})"


def _expired(bench):
    due = [timer for timer in bench.golden.running if timer.deadline <= bench.cycle]
    assert due, f"a grace period ended early in cycle {bench.cycle} (seed {bench.seed})"
    timer = min(due, key=lambda t: t.deadline)
    for other in due:
        if other is not timer:
            other.deadline += 10_000_000
    bench.golden.expire(bench.cycle)
    for other in due:
        if other is not timer:
            other.deadline -= 10_000_000
    bench.expiries += 1
    _agree(bench)


def _decision(bench, decision):
    code, first, count = bench.open_commands[decision.frame]
    world = World.SECURE if decision.frame else World.NORMAL
    # The grace period starts when the check is over; the golden model learns of it when all is applied.
    words = bench.pages // bench.params.group
    walk = words + 2 + (bench.table.slowest * 2 * words if bench.table else 0)
    if bench.windowless:
        outcome = Outcome(RecallResult.OUT_OF_WINDOW, first)
    else:
        outcome = bench.golden.command(code, first, count, by=world, now=bench.cycle - walk)
    assert outcome.result == RecallResult(decision.result.value), (
        f"{RecallCommand(code).name} {first:#x}+{count} gives {decision.result}, not {outcome} (seed {bench.seed})"
    )
    bench.decided[decision.frame] = (bench.cycle, outcome)
    _agree(bench)
