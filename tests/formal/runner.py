"""Run proofs, print what came of each claim, and write it to ``build/formal/summary.json``."""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from . import engines
from .engines import BOUNDED, COVERED, PROVED, REFUTED, Answer
from .harness import BAD, PROOFS, REACHED, Claim, Proof
from .model import Model, build
from .saboteurs import SABOTEURS, Saboteur

__all__ = ["Outcome", "betray", "main", "proofs", "prove", "write_summary"]

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "formal"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A claim of a proof with its answer; ``expected``: it came out as it should."""

    proof: str
    claim: Claim
    answer: Answer

    @property
    def expected(self) -> bool:
        claim, answer = self.claim, self.answer
        if claim.kind == "cover":
            return answer.result == COVERED
        bounded = claim.bound is not None and answer.result == BOUNDED and (answer.depth or 0) >= claim.bound
        return answer.result == PROVED or bounded

    def row(self) -> dict[str, object]:
        """For the summary."""
        answer = asdict(self.answer) | {"seconds": round(self.answer.seconds, 2)}
        claim = asdict(self.claim) | {"property": self.claim.name}
        del claim["name"]
        return {"proof": self.proof, **claim, **answer, "expected": self.expected}


def proofs(words: Iterable[str] = (), *, fast: bool = False) -> list[Proof]:
    """Proofs of all files, or those whose names contain one of ``words``, or the ``fast`` ones."""
    for path in sorted((Path(__file__).parent / "proofs").glob("*.py")):
        importlib.import_module(f"tests.formal.proofs.{path.stem}")
    words = list(words)
    return [
        found
        for found in PROOFS.values()
        if (found.fast or not fast) and (not words or any(word in found.name for word in words))
    ]


def prove(proof: Proof, *, folder: Path = BUILD, limit: int | None = None, pypi: bool = False) -> list[Outcome]:
    """Build ``proof`` and ask the engines about every claim; ``pypi``: use no other engines than those from PyPI."""
    model = build(proof, folder / proof.name)
    limit = min(limit or proof.limit, proof.limit)
    answers = _smt(model, limit) if pypi or proof.induction or engines.ABC is None else _abc(model, limit)
    lemmas = all(answers[claim.name].result == PROVED for claim in model.claims if claim.lemma)
    outcomes = []
    for claim in model.claims:
        answer = answers[claim.name]
        if not lemmas and not claim.lemma and answer.result == PROVED:
            answer = replace(answer, result=BOUNDED, engine=f"{answer.engine}, on a lemma not proved", depth=0)
        outcomes.append(Outcome(proof=proof.name, claim=claim, answer=answer))
    return outcomes


def betray(
    saboteur: Saboteur,
    *,
    folder: Path = BUILD,
    depth: int = 60,
    limit: int = 60,
    pypi: bool = False,
    at_work: bool = True,
) -> Outcome:
    """Look for a run that refutes what must notice ``saboteur``, when it is ``at_work`` and when it is not."""
    (proof,) = (found for found in proofs([saboteur.proof]) if found.name == saboteur.proof)
    folder = folder / f"{saboteur.name}{'' if at_work else ' resting'}"
    model = build(proof, folder, claim=saboteur.claim, sabotage=saboteur if at_work else None)
    (claim,) = model.claims
    answer = engines.refute(model, claim.name, depth, limit, pypi=pypi)
    return Outcome(proof=proof.name, claim=claim, answer=answer)


def _smt(model: Model, limit: float) -> dict[str, Answer]:
    answers = engines.induction(model, model.proof.depth, limit)
    if any(claim.kind == "cover" for claim in model.claims):
        answers |= engines.covers(model, model.proof.cover_depth, limit)
    return answers


def _abc(model: Model, limit: float) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for lemma in (True, False):
        names = [claim.name for claim in model.claims if claim.kind == "prove" and claim.lemma == lemma]
        if len(names) > 1:
            # Often the proof of all is hardly harder than that of one.
            together = engines.pdr(model, [BAD + name for name in names], limit / 3)
            if together.result == PROVED:
                answers |= dict.fromkeys(names, together)
        for name in names:
            if name not in answers:
                answers[name] = engines.pdr(model, [BAD + name], limit)
    for claim in model.claims:
        if claim.kind == "cover":
            answers[claim.name] = engines.search(model, REACHED + claim.name, limit)
    return answers


def write_summary(outcomes: list[Outcome], seconds: float, path: Path = BUILD / "summary.json") -> None:
    """Write every claim with its answer, and what each proof reduces and why."""
    names = dict.fromkeys(outcome.proof for outcome in outcomes)
    path.parent.mkdir(parents=True, exist_ok=True)
    summary = {
        "seconds": round(seconds, 1),
        "claims": len(outcomes),
        "as_expected": sum(outcome.expected for outcome in outcomes),
        "results": {
            result: sum(outcome.answer.result == result for outcome in outcomes)
            for result in (PROVED, BOUNDED, REFUTED, COVERED, engines.UNREACHED)
        },
        "proofs": {n: {"text": PROOFS[n].text, "reductions": dict(PROOFS[n].reductions)} for n in names},
        "properties": [outcome.row() for outcome in outcomes],
    }
    path.write_text(json.dumps(summary, indent=1) + "\n")


def _show(outcomes: list[Outcome], seconds: float) -> None:
    table = Table(title=f"Formal verification, {seconds:.0f} s")
    for column in ("proof", "property", "SEC", "result", "engine", "depth", "seconds"):
        table.add_column(column, justify="right" if column in ("depth", "seconds") else "left", no_wrap=True)
    for o in outcomes:
        colour = "green" if o.expected and o.answer.result != BOUNDED else "yellow" if o.expected else "red"
        table.add_row(
            escape(o.proof),
            o.claim.name,
            " ".join(o.claim.sec),
            f"[{colour}]{o.answer.result}[/]",
            o.answer.engine,
            "unbounded" if o.answer.depth is None else str(o.answer.depth),
            f"{o.answer.seconds:.1f}",
        )
    # Wide enough for every column: in a narrow one results would be the first to vanish.
    table.width = Console(width=1000).measure(table).maximum
    console = Console(width=max(table.width, Console().width))
    console.print(table)
    for o in outcomes:
        if o.answer.witness:
            console.print(escape(f"{o.proof}: {o.claim.name}: {o.answer.witness}"))
        if o.claim.why:
            console.print(escape(f"{o.proof}: {o.claim.name} is bounded: {o.claim.why}"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 1 if a claim did not come out as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="run proofs whose names contain one of these")
    parser.add_argument("--fast", action="store_true", help="run the subset that every test run proves")
    parser.add_argument("--pypi", action="store_true", help="use engines from PyPI only")
    parser.add_argument("--limit", type=int, help="seconds per property, at most")
    parser.add_argument("--jobs", type=int, default=2, help="proofs at a time")
    parser.add_argument("--output", type=Path, default=BUILD, help="folder of all files")
    parser.add_argument("--saboteur", choices=SABOTEURS, help="break the design so, and ask about what must notice")
    options = parser.parse_args(arguments)
    if options.saboteur:
        saboteur = SABOTEURS[options.saboteur]
        print(f"{saboteur.name}: {saboteur.text}")
        outcome = betray(saboteur, folder=options.output, limit=options.limit or 60, pypi=options.pypi)
        return _report([outcome], outcome.answer.seconds, options.output)
    chosen = proofs(options.words, fast=options.fast)
    if not chosen:
        print(f"No proof has one of the words {options.words} in its name.", file=sys.stderr)
        return 2
    start = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = pool.map(lambda p: prove(p, folder=options.output, limit=options.limit, pypi=options.pypi), chosen)
        outcomes = [outcome for run in runs for outcome in run]
    return _report(outcomes, time.monotonic() - start, options.output)


def _report(outcomes: list[Outcome], seconds: float, folder: Path) -> int:
    """Show and write what came of it; the exit status."""
    _show(outcomes, seconds)
    write_summary(outcomes, seconds, folder / "summary.json")
    return 0 if all(outcome.expected for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
