"""The bench of simulation speed: three simulators that do the same work, and figures with limits."""

import json
import shutil

import pytest

from flexserve_cosim.commands.bench_sim import SimOptions, argument
from flexserve_cosim.commands.common import CLOCK_HZ, dram_timing, flash_timing
from flexserve_cosim.membench.figures import Figure
from flexserve_cosim.report.sim import sim_page
from flexserve_cosim.simbench.measure import CONFIGURATIONS, PHASES, Bench, Mark, Run, figures
from flexserve_hw.params import SocParams
from flexserve_sw.platforms import load_platform

from .support import SEED


@pytest.fixture(scope="module")
def simulators(tmp_path_factory):
    platform = load_platform()
    options = SimOptions(prompt="Once", array=16, rounds=1, seed=SEED, json=None, report=None)
    return Bench(
        SocParams(),
        argument(options),
        dram=dram_timing(platform),
        flash=flash_timing(platform),
        clock_hz=CLOCK_HZ,
        folder=tmp_path_factory.mktemp("recording"),
    )


@pytest.mark.rtl
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("simbench")
def test_all_three_simulators_do_the_same_work_and_ours_is_faster_than_stock(simulators):
    runs = {name: simulators.run(name) for name in CONFIGURATIONS}
    for phase in PHASES:
        spans = {tuple(mark.cycle for mark in run.phases[phase]) for run in runs.values()}
        assert len(spans) == 1
        assert all(run.khz(phase) > 0 and run.cpu_khz(phase) > 0 for run in runs.values())
    assert runs["cosim"].outcome == runs["stock"].outcome == simulators.recorded.outcome
    assert runs["cosim"].outcome["bit_exact"]
    assert runs["cosim"].outcome["tokens"]
    assert 0 < runs["cosim"].wakes < runs["cosim"].outcome["cycles"] / 100, "Python must not run every cycle"
    assert runs["cosim"].cpu_khz("prefill") > 2 * runs["stock"].cpu_khz("prefill"), "generous: machines differ"


@pytest.mark.rtl
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("simbench")
@pytest.mark.parametrize(
    ("change", "message"),
    [("outcome", "another outcome"), ("cycle", "nothing has ended|had not"), ("flash", "flash has other|other data")],
)
def test_replay_notices_what_differs_from_the_recording(simulators, monkeypatch, tmp_path, change, message):
    """Control: a record or a byte of memory changed must end the replay with the reason."""
    for path in simulators._folder.iterdir():
        shutil.copy(path, tmp_path)
    if change == "flash":
        memory = bytearray((tmp_path / "flash.bin").read_bytes())
        memory[len(memory) // 2] ^= 1
        (tmp_path / "flash.bin").write_bytes(memory)
    else:
        content = bytearray((tmp_path / "stimulus.bin").read_bytes())
        at = _last_completion(content)
        content[at + (24 if change == "outcome" else 0)] ^= 1
        (tmp_path / "stimulus.bin").write_bytes(content)
    monkeypatch.setattr(simulators, "_folder", tmp_path)
    with pytest.raises(RuntimeError, match=message):
        simulators.run("bare")


def _last_completion(content):
    """Offset of the last completion in the file: records are 48 bytes and payload, behind a head of 80 bytes."""
    at, found = 80, None
    while at < len(content):
        if int.from_bytes(content[at + 16 : at + 20], "little") == 4:
            found = at
        at += 48 + -(-int.from_bytes(content[at + 8 : at + 16], "little") // 16) * 16
    return found


def rounds(*, cosim, bare, stock):
    """Rounds in which each configuration takes so many seconds for a million cycles."""
    taken = {"cosim": cosim, "bare": bare, "stock": stock}
    return [
        {
            name: Run(name, {phase: (Mark(0, 0.0, 0.0), Mark(10**6, times[n], times[n])) for phase in PHASES}, {}, 0)
            for name, times in taken.items()
        }
        for n in range(len(cosim))
    ]


def test_ratios_are_medians_of_rounds_beside_their_limits():
    found = figures(rounds(cosim=[2.0, 4.0, 2.0], bare=[1.0, 4.0, 1.8], stock=[20.0, 30.0, 12.0]))
    ratios = {figure.name: figure for figure in found if figure.group == "prefill" and figure.at_least is not None}
    assert ratios["cosim / bare, by wall clock"].value == 0.9
    assert ratios["cosim / bare, by wall clock"].holds
    assert ratios["cosim / stock, by CPU time"].value == pytest.approx(7.5)
    assert next(f for f in found if f.name == "stock, by wall clock").value == 50.0
    slow = figures(rounds(cosim=[2.0], bare=[1.0], stock=[4.0]))
    assert [figure.holds for figure in slow if figure.at_least is not None] == [False] * 8


def test_page_shows_every_limit_and_says_when_one_is_missed():
    pytest.importorskip("matplotlib")
    taken = rounds(cosim=[2.0], bare=[1.0], stock=[40.0])
    summary = {
        "version": "0",
        "toolchain": "x",
        "options": {"prompt": "Once", "array": 16, "rounds": 1, "seed": 1},
        "wakes": 7,
        "cycles": dict.fromkeys(PHASES, 10**6),
        "configurations": {
            name: {phase: {"khz": [taken[0][name].khz(phase)], "cpu_khz": []} for phase in PHASES}
            for name in CONFIGURATIONS
        },
        "figures": [figure.as_json() for figure in figures(taken)],
    }
    text = sim_page(json.loads(json.dumps(summary)))
    assert text.count("MISSED") == 4
    assert text.count("kept") == 4
    assert text.count("<svg") == len(PHASES)
    assert Figure(group="prefill", name="x", value=1, unit="x", at_least=0.8).limit == ">= 0.8"
