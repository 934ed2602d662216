"""What the NPU must not lose: its cycles in the phone's SoC, its bits at every size, a clean end of each fault."""

import re

import pytest

from flexserve_cosim.npubench.alone import MEMORY_BYTES, Alone, Conditions
from flexserve_cosim.npubench.campaign import VARIANTS, Mismatch, case, check, draw
from flexserve_cosim.npubench.faults import FAULTS, provoke
from flexserve_cosim.npubench.lists import RESULTS, SOURCES, check_lists, token_list
from flexserve_cosim.npubench.suite import DECODE, GROUPS, PREFILL, RANDOM, SWEEP, YARDSTICKS, figures, measure
from flexserve_cosim.report.npu import npu_page
from flexserve_sw.npu import Load
from flexserve_sw.regs import NpuFault

from .support import SEED

pytestmark = [pytest.mark.rtl, pytest.mark.xdist_group("npubench")]

GEMMS = 12
"""Random GEMMs per array size in a test run; ``make gemm-soak`` runs a thousand, on arrays of 32 too."""


@pytest.fixture(scope="module")
def measured():
    return measure()


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "shape"])
def test_every_figure_keeps_its_limit(measured, group):
    chosen = [figure for figure in figures(measured) if figure.group == group]
    limited = [figure for figure in chosen if figure.holds is not None]
    assert len(limited) == {"gemm": len(YARDSTICKS), "decode": 1, "filter": 2, "estimate": 1}[group]
    assert not [(figure.name, figure.value, figure.limit) for figure in limited if not figure.holds]


def test_every_job_was_measured_and_none_beats_the_arithmetic(measured):
    jobs = [*DECODE, *PREFILL, *SWEEP, *RANDOM, *([size] for size in YARDSTICKS)]
    assert set(measured.secure) == {tuple(job) for job in jobs}
    assert all(job["cycles"] > job["ideal"] for job in measured.secure.values())


def test_page_shows_every_figure(measured):
    page = npu_page(measured, version="0")
    assert page.count("<svg") == 4
    assert all(figure.name.strip() in page for figure in figures(measured))


@pytest.fixture(params=[4, 8, 16], scope="module")
def npu(request):
    with Alone(VARIANTS[request.param], seed=SEED) as alone:
        yield alone


def test_random_gemms_under_back_pressure_are_bit_exact(npu):
    for seed in range(SEED, SEED + GEMMS):
        check(npu, case(seed))


def test_random_lists_kept_in_order_by_tokens_alone_agree_with_the_golden_executor(npu):
    for seed in range(SEED, SEED + 10 * GEMMS):
        check_lists(npu, seed)


def test_lists_need_their_tokens(npu, monkeypatch):
    """Control: without its tokens a list computes something else, and in memory that it should not."""

    def bare(rng, caps):
        none = dict.fromkeys(("wait_prev", "wait_next", "signal_prev", "signal_next"), False)
        return [descriptor._replace(**none) for descriptor in token_list(rng, caps)]

    monkeypatch.setattr("flexserve_cosim.npubench.lists.token_list", bare)
    complaints = [complaint for seed in range(SEED, SEED + 10) if (complaint := _complaint(npu, seed))]
    assert len(complaints) >= 8
    assert all(int(re.search(r"first at (0x\w+)", text)[1], 16) in RESULTS for text in complaints)


@pytest.mark.parametrize("where", [0x800, SOURCES.start + 100, RESULTS.start + 5, MEMORY_BYTES - 1])
def test_a_byte_that_no_list_stores_is_noticed_wherever_it_is(npu, monkeypatch, where):
    """Control: a store that goes astray, to a list's sources, below them or far away."""
    run = npu.run

    def astray(job, address):
        outcome = run(job, address)
        npu.memory[where] ^= 1
        return outcome

    monkeypatch.setattr(npu, "run", astray)
    assert f"1 bytes differ, first at {where:#x};" in _complaint(npu, SEED)


def _complaint(npu, seed):
    try:
        check_lists(npu, seed)
    except Mismatch as mismatch:
        return str(mismatch)
    return ""


def test_every_fault_ends_in_a_report_and_leaves_the_npu_usable(npu):
    seen = {name: provoke(npu, name, seed=SEED) for name in FAULTS}
    # NONE is what comes of a denial or an abort after the end of a job, which a large array reaches sooner.
    assert set(seen.values()) - {NpuFault.NONE} == {
        NpuFault.BUS_ERROR,
        NpuFault.BAD_DESCRIPTOR,
        NpuFault.SCRATCHPAD_RANGE,
        NpuFault.FETCH_ERROR,
        NpuFault.BAD_TICKET,
        NpuFault.ABORTED,
    }


def test_bench_notices_a_wrong_weight(npu):
    """Control: a GEMM whose weights are not those of the expected result is a mismatch."""
    npu.own(secure=False)
    npu.behave(Conditions(), seed=SEED)
    drawn = draw(npu.memory, 20, 40, 30, int8=False, relu=False, caps=npu.caps, seed=SEED)
    weights = next(d for d in drawn.program if isinstance(d, Load) and d.signal_next)
    npu.memory[weights.address] ^= 1
    assert npu.run(drawn.program, drawn.list_at).fault is NpuFault.NONE
    assert (drawn.found(npu.memory)[0] != drawn.expected).any()


def test_mismatch_says_how_to_run_the_case_again(npu, monkeypatch):
    wrong = "flexserve_cosim.npubench.campaign.requantise"
    monkeypatch.setattr(wrong, lambda sums, *_, relu: (sums * 0 + 1).astype("i1"))
    quantised = next(seed for seed in range(1, 100) if case(seed).int8)
    with pytest.raises(Mismatch, match=rf"--seed {quantised} --count 1$"):
        check(npu, case(quantised))
