"""The serving job on the transaction-level machine: same tokens everywhere, and what protection costs."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flexserve_sw.designs.design import DESIGNS
from flexserve_sw.designs.job import PHASES, serve
from flexserve_sw.designs.phone import Phone
from flexserve_sw.designs.plan import check
from flexserve_sw.errors import UserError
from flexserve_sw.fast import simulate
from flexserve_sw.llm import complete
from flexserve_sw.machine import PAGE_BYTES, BusFault, Initiator
from flexserve_sw.monitor.layout import Extent
from flexserve_sw.serving.pager import PagesTaken
from flexserve_sw.serving.segments import Kind
from tests.sw.llm.tiny import CONFIG, checkpoint
from tests.sw.phone_bench import SMALL, argument, machine, serve_fast

PROMPT = "a he cab"
KINDS = ("float", "int8")
"""Of keys and values; with int8 the NPU multiplies with them."""


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """One run per design."""
    return {name: serve_fast(design=name) for name in DESIGNS}


def test_every_design_gives_the_answer_of_the_int8_reference(results: dict[str, dict[str, Any]]) -> None:
    expected = complete(checkpoint(CONFIG), PROMPT, 8)
    for name, result in results.items():
        assert tuple(result["tokens"]) == expected.tokens, name
        assert result["text"] == expected.text, name
        assert (result["bit_exact"], result["reference_equal"]) == (True, True), name


def test_every_linear_value_is_compared(results: dict[str, dict[str, Any]]) -> None:
    prompt, made = results["flexserve"]["prompt_tokens"], len(results["flexserve"]["tokens"])
    rows = prompt + made - 1
    outputs = sum(n for name, (_, n) in CONFIG.linears.items() if name != "classifier")
    expected = rows * outputs + made * CONFIG.vocab
    for name, result in results.items():
        assert result["compared_values"] == expected, name


def test_phases_add_up_to_the_time_to_the_first_token(results: dict[str, dict[str, Any]]) -> None:
    for result in results.values():
        assert sum(result["ttft_phases"].values()) == result["ttft_cycles"]
        assert set(result["ttft_phases"]) == {*PHASES, "other"}
        for phase in PHASES:
            assert result["ttft_phases"][phase] <= result["ttft_busy"][phase] <= result["ttft_cycles"]
        assert result["ttft_phases"]["other"] < result["ttft_cycles"] / 50


def test_only_the_unprotected_design_stays_in_one_world_and_only_contiguous_memory_migrates(
    results: dict[str, dict[str, Any]],
) -> None:
    assert results["nw-base"]["world_switches"] == 0
    assert results["nw-base"]["ttft_phases"]["switch"] == 0
    for name in ("flexserve", "strawman", "strawman-opt"):
        assert results[name]["world_switches"] > 0
        assert results[name]["ttft_busy"]["switch"] > 0
    assert results["flexserve"]["cma_pages_migrated"] == results["nw-base"]["cma_pages_migrated"] == 0
    assert results["strawman"]["cma_pages_migrated"] > 0
    assert results["strawman-opt"]["cma_pages_migrated"] > 0


def test_no_design_provokes_a_violation(results: dict[str, dict[str, Any]]) -> None:
    assert {name: result["violations"] for name, result in results.items()} == dict.fromkeys(DESIGNS, 0)


def test_the_pipeline_hides_loading_and_the_serial_design_hides_nothing(results: dict[str, dict[str, Any]]) -> None:
    serial, piped = results["strawman"], results["strawman-opt"]
    overlap = {
        name: sum(result["ttft_busy"][phase] for phase in ("compute", "load", "decrypt", "allocate", "init"))
        - result["ttft_cycles"]
        for name, result in results.items()
    }
    # Only a request inside the opening of the model is counted twice when nothing overlaps.
    assert overlap["strawman"] <= serial["ttft_busy"]["load"] * 0.1
    assert overlap["strawman-opt"] > piped["ttft_cycles"] * 0.1


def test_recallable_memory_costs_more_than_none_and_less_than_contiguous_memory(
    results: dict[str, dict[str, Any]],
) -> None:
    ttft = {name: result["ttft_cycles"] for name, result in results.items()}
    assert ttft["nw-base"] < ttft["flexserve"] < min(ttft["strawman-opt"], ttft["strawman"]), ttft


def test_all_memory_and_the_npu_are_the_oss_again_after_the_answer() -> None:
    async def look(point: str, phone: Phone) -> None:
        if point == "answered":
            seen["lent"] = len(phone.os.flexmem.lent)

    seen: dict[str, int] = {}
    result = serve_fast(hook=look)
    assert seen["lent"] > 0
    assert result["page_states"][-1]["FLEX"] == 0
    assert result["page_states"][-1]["SEALED"] == 4


@pytest.mark.parametrize("by", ["size", "range", "both"])
@pytest.mark.parametrize("kv", KINDS)
def test_the_answer_survives_a_recall_and_stays_the_same(by: str, kv: str) -> None:
    result = serve_fast(kv=kv, pressure=9, recall_by=by, pressure_at=3, npu_recall_at=2)
    assert result["tokens"] == serve_fast(kv=kv)["tokens"]
    assert result["bit_exact"]
    assert result["violations"] == 0
    recall = result["recall"]
    assert recall["pages"] == 9
    assert {entry["by"] for entry in recall["recalls"]} == ({"size", "range"} if by == "both" else {by})
    assert recall["latency_cycles_max"] == max(entry["latency_cycles"] for entry in recall["recalls"])
    assert recall["npu_latency_cycles"] > 0
    moved = result["pages_moved"]
    assert moved["swapped_out"] == moved["swapped_in"]
    assert moved["reloaded"] == moved["dropped"] > 0
    assert result["expired_grace_periods"] == 0
    if by != "range":
        assert moved["swapped_out"] > 0


@pytest.mark.parametrize(
    ("tokens", "at", "hold", "by"), [(8, 1, 3, "size"), (8, 4, 3, "range"), (8, 8, 3, "both"), (12, 2, 9, "both")]
)
@pytest.mark.parametrize("kv", KINDS)
def test_the_greatest_pressure_that_a_run_is_allowed_can_be_borne(
    tokens: int, at: int, hold: int, by: str, kv: str
) -> None:
    options = {"kv": kv, "tokens": tokens, "pressure_at": at, "pressure_hold": hold, "recall_by": by, "timeline": False}
    with pytest.raises(UserError) as refused:
        check(argument(pressure=1 << 20, **options))
    most = int(str(refused.value).rsplit(" ", 1)[-1].rstrip("."))
    assert most > 0
    with pytest.raises(UserError, match=f"at most {most}"):
        check(argument(pressure=most + 1, **options))
    result = serve_fast(pressure=most, **options)
    assert result["recall"]["pages"] == most
    assert (len(result["tokens"]), result["violations"]) == (tokens, 0)
    assert (result["bit_exact"], result["reference_equal"]) == (True, True)


@pytest.mark.parametrize("kind", [Kind.WEIGHTS, Kind.WORK, Kind.KV])
@pytest.mark.parametrize("kv", KINDS)
def test_pages_taken_from_under_the_framework_are_noticed_and_never_read(kind: Kind, kv: str) -> None:
    """The OS gives no time to save anything: weights are loaded anew, lost keys and values end the answer."""

    async def take(point: str, phone: Phone) -> None:
        if point == "token:3":
            places = [(s, p) for s, p in phone.serving.pager.resident() if s.kind is kind]
            frames = [phone.serving.space.frame(s.first + p) for s, p in places[-2:]]
            # Who holds the lock keeps the recall handler from answering in time.
            async with phone.serving.pager.lock:
                for frame in frames:
                    assert frame is not None
                    await phone.os.flexmem.recall_range(Extent(frame, 1))
                    await phone.machine.store(frame * PAGE_BYTES, b"attacker" * 512, by=Initiator.NORMAL_CPU)

    if kind is Kind.KV:
        with pytest.raises(PagesTaken, match="before they could be saved"):
            serve_fast(kv=kv, hook=take, grace=1_000)
        return
    result = serve_fast(kv=kv, hook=take, grace=1_000)
    assert (result["bit_exact"], result["reference_equal"]) == (True, True)
    assert result["expired_grace_periods"] > 0
    assert result["violations"] > 0


@pytest.mark.parametrize("kv", KINDS)
def test_the_os_sees_nothing_of_a_running_model_while_it_sees_all_of_an_unprotected_one(kv: str) -> None:
    async def spy(point: str, phone: Phone) -> None:
        if point != "token:2":
            return
        frames = {phone.serving.space.frame(s.first + p) for s, p in phone.serving.pager.resident()}
        read = changed = 0
        for frame in sorted(f for f in frames if f is not None):
            try:
                read += any(await phone.machine.load(frame * PAGE_BYTES, PAGE_BYTES, by=Initiator.NORMAL_CPU))
            except BusFault as fault:
                read += any(fault.data)
            before = phone.machine.dram.bytes[frame * PAGE_BYTES - phone.machine.dram.base :][:16].tobytes()
            if phone.plan.design.secure:
                with suppress(BusFault):
                    await phone.machine.store(frame * PAGE_BYTES, bytes(16), by=Initiator.NORMAL_CPU)
                after = phone.machine.dram.bytes[frame * PAGE_BYTES - phone.machine.dram.base :][:16].tobytes()
                changed += before != after
        seen[phone.plan.design.name] = (len(frames), read, changed)

    seen: dict[str, tuple[int, int, int]] = {}
    for design in DESIGNS:
        result = serve_fast(design=design, kv=kv, hook=spy)
        frames, read, changed = seen[design]
        assert frames > 10
        if design == "nw-base":
            assert read > frames / 2
        else:
            assert (read, changed) == (0, 0)
            assert result["violations"] >= frames
        assert (result["bit_exact"], result["reference_equal"]) == (True, True)


def test_messages_tell_phases_and_tokens_in_order() -> None:
    messages: list[dict[str, Any]] = []
    result = serve_fast(messages=messages, tokens=4)
    phases = [(m["name"], m["event"]) for m in messages if m["kind"] == "phase"]
    whole = [entry for entry in phases if entry[0] != "prefill-forward"]
    assert whole == [(name, event) for name in ("boot", "prefill", "decode", "close") for event in ("begin", "end")]
    forward = [("prefill", "begin"), ("prefill-forward", "begin"), ("prefill-forward", "end"), ("prefill", "end")]
    assert phases[2:6] == forward
    tokens = [m for m in messages if m["kind"] == "token"]
    assert [m["token"] for m in tokens] == result["tokens"]
    assert PROMPT + "".join(m["text"] for m in tokens) == result["text"]


def test_the_job_runs_by_name_and_says_when_the_machine_is_not_the_planned_one() -> None:
    result = simulate(
        "flexserve_sw.designs.job:serve",
        argument(tokens=2),
        pages=SMALL["capacity"],
        dram_bytes=SMALL["dram_bytes"],
        flash_bytes=SMALL["flash_bytes"],
    )
    assert len(result["tokens"]) == 2
    with pytest.raises(UserError, match="give the same size to both"):
        simulate("flexserve_sw.designs.job:serve", argument(tokens=2))
    own = machine(array=8)
    with pytest.raises(UserError, match="array is 8 wide but the run was planned for 16"):
        own.kernel.complete(own.spawn(serve(own, argument(), lambda message: None), name="serve"), limit=1_000_000)


@pytest.mark.parametrize("array", [4, 8, 32])
@pytest.mark.parametrize("kv", KINDS)
def test_other_array_sizes_give_the_same_answer(array: int, kv: str) -> None:
    result = serve_fast(array=array, kv=kv, tokens=3)
    assert result["tokens"] == serve_fast(kv=kv, tokens=3)["tokens"]
    assert result["bit_exact"]


@pytest.mark.parametrize("kv", KINDS)
def test_a_foreign_checkpoint_answers_like_its_reference(shared_data: Path, kv: str) -> None:
    result = simulate(
        "flexserve_sw.designs.job:serve",
        {
            "checkpoint": str(shared_data / "stories260K.bin"),
            "tokenizer": str(shared_data / "tok512.bin"),
            "tokens": 8,
            "kv": kv,
            "pressure": 24,
        },
    )
    assert result["text"].startswith("Once upon a time, there was")
    assert (result["bit_exact"], result["reference_equal"]) == (True, True)
    assert result["recall"]["pages"] == 24
