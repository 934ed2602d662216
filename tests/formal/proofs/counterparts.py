"""Tally and queues behave as their plain counterparts, which stand for them in the proofs of the paths."""

from amaranth.hdl import Mux
from amaranth.lib import fifo

from flexserve_hw.tzasc.tally import Tally
from tests.formal.harness import Harness, proof
from tests.formal.ideal import IdealQueue, IdealTally
from tests.formal.reduced import PATH, PATH_REDUCTIONS

INPUTS = ("epoch", "issue", "issue_id", "issue_epoch", "issue_forward", "head_id")
QUEUES = {"denied": {"depth": PATH.denied_depth}, "route": {"depth": PATH.bursts_ahead}}
"""Queues of the paths by one of each depth."""

WIDTH = 12

OUTPUTS = ("ready", "full", "denied", "forwarded")


@proof(reductions=PATH_REDUCTIONS)
def counts(h: Harness) -> None:
    """Under the epochs of the drain, and if no more than the limit is issued, it answers as plain counters do."""
    settings = {"id_width": PATH.bus.id_width, "limit": PATH.outstanding}
    plain = Tally(**settings)
    ideal = IdealTally(plain, **settings)
    plain.elaborate = ideal.elaborate
    plain, real = h.dut(plain, "plain"), h.dut(Tally(**settings), "real")
    for name in (*INPUTS, "complete", "complete_id", "complete_forward"):
        free = h.free(name, getattr(real, name).shape())
        h.m.d.comb += [getattr(real, name).eq(free), getattr(plain, name).eq(free)]
    some = Mux(real.complete_id, ideal.owed(1), ideal.owed(0))
    forwards = Mux(real.complete_id, ideal.forwards[1], ideal.forwards[0])
    h.assume("issues_when_ready_and_not_full", ~real.issue | (plain.ready & ~plain.full))
    h.assume("completes_what_was_issued", ~real.complete | (some != 0))
    h.assume("completes_by_its_kind", ~real.complete | Mux(real.complete_forward, forwards != 0, forwards != some))
    old = [sum(epochs[e] for epochs in ideal.epochs) for e in range(2)]
    turned = h.started & (real.epoch != h.past(real.epoch))
    h.assume("epoch_turns_when_the_old_one_is_empty", ~turned | (Mux(real.epoch, old[1], old[0]) == 0))
    for name in OUTPUTS:
        # Before it is ready nobody looks at the rest.
        same = getattr(real, name) == getattr(plain, name)
        h.prove(f"{name}_is_right", same | (~plain.ready if name != "ready" else 0), sec="SEC-06")
    same = real.complete_epoch == plain.complete_epoch
    h.prove("epoch_is_that_of_the_oldest", same | ~real.complete, sec="SEC-06")
    h.cover("full", real.full & real.ready)
    h.cover("both_epochs", (old[0] != 0) & (old[1] != 0))



@proof(fast=("denied",), depth=4, reductions={"12 bits": "contents are copied"}, variants=QUEUES)
def queue(h: Harness, depth: int) -> None:
    """The library's queue behaves as registers in a row, which stand for it in the proofs of the paths."""
    real, plain = (fifo.SyncFIFO(width=WIDTH, depth=depth) for _ in "ab")
    ideal = IdealQueue(plain)
    plain.elaborate = ideal.elaborate
    for name, one in (("real", real), ("plain", plain)):
        h.m.submodules[name] = one
    for name in ("w_en", "r_en", "w_data"):
        free = h.free(name, getattr(real, name).shape())
        h.m.d.comb += [getattr(real, name).eq(free), getattr(plain, name).eq(free)]
    for name in ("w_rdy", "r_rdy", "level"):
        h.prove(f"{name}_is_right", getattr(real, name) == getattr(plain, name))
    h.prove("oldest_comes_first", ~plain.r_rdy | (real.r_data == plain.r_data))
    h.cover("full", real.level == depth)
