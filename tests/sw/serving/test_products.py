"""Linear products on the NPU are exact however little room there is for the lists of their jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flexserve_sw.designs.job import Hook, serve
from flexserve_sw.designs.phone import Phone
from flexserve_sw.designs.plan import check
from flexserve_sw.errors import UserError
from flexserve_sw.fast import FastMachine
from flexserve_sw.llm import ModelConfig
from flexserve_sw.llm.image import Tensor, TensorKind
from flexserve_sw.machine import PAGE_BYTES
from flexserve_sw.monitor.layout import Extent
from flexserve_sw.npu import pack_weights
from flexserve_sw.serving import engine
from flexserve_sw.serving.npu import NpuProducts
from flexserve_sw.serving.parts import ListTooLong
from flexserve_sw.serving.segments import Kind, whole_pages
from tests.sw.designs.recalls import serve_with_recalls
from tests.sw.llm import tiny
from tests.sw.serving.test_attention import segment

WIDE = ModelConfig(dim=512, hidden=1024, layers=1, heads=8, kv_heads=4, vocab=280, seq_len=48)
"""Its longest lists take several pages."""


async def multiply(phone: Phone, rows: int, k: int, n: int, list_pages: int) -> tuple[int, int]:
    """Three exact products with one matrix; jobs of the first, and multiply-accumulates."""
    random = np.random.default_rng(k + n)
    serving = phone.serving
    assert serving._lease is not None
    caps, driver = serving.caps, serving._lease.driver
    matrix = random.integers(-127, 128, (k, n), np.int8)
    packed = pack_weights(matrix, caps.n)
    lists = await segment(phone, "descriptors", Kind.WORK, list_pages)
    length = NpuProducts.work_bytes([(k, n)], rows, caps)
    work = await segment(phone, "work", Kind.WORK, length // PAGE_BYTES, random)
    weights = await segment(phone, "weights", Kind.WEIGHTS, whole_pages(len(packed)) // PAGE_BYTES, random)
    await serving.space.store(weights.address, packed)
    products = NpuProducts(
        space=serving.space, lease=serving._lease, caps=caps, work=work, descriptors=lists, timeline=phone.timeline
    )
    tensor = Tensor(name="some", kind=TensorKind.TILES, shape=(k, n), offset=0, size=len(packed))
    jobs = []
    # Lists of parts are kept: the second time, none must be taken for another's.
    for _ in range(3):
        x = random.integers(-127, 128, (rows, k), np.int8)
        before = driver.jobs
        sums = await products.product("some", tensor, weights.address, x)
        jobs.append(driver.jobs - before)
        assert np.array_equal(sums, x.astype(np.int64) @ matrix.astype(np.int64))
    assert len(set(jobs)) == 1
    return jobs[0], products.macs


def options(folder: Path) -> dict[str, Any]:
    """Argument of a job that serves the wide model."""
    return {
        "checkpoint": str(tiny.write_llama2c(folder / "wide.bin", tiny.checkpoint(WIDE))),
        "tokenizer": str(tiny.write_tokenizer(folder / "tokenizer.bin")),
        "prompt": "a he cab",
        "tokens": 4,
        "capacity": 4096,
        "dram_bytes": 1 << 25,
    }


def machine() -> FastMachine:
    """The machine that :func:`options` describe."""
    return FastMachine(pages=4096, dram_bytes=1 << 25)


def multiplied(folder: Path, rows: int, k: int, n: int) -> tuple[int, int]:
    """What :func:`multiply` finds when a page is all that a list has."""
    own = machine()

    async def main() -> tuple[int, int]:
        phone = Phone.assemble(own, check(options(folder)))
        await phone.boot()
        return await multiply(phone, rows, k, n, list_pages=1)

    return own.kernel.complete(own.spawn(main(), name="program"), limit=100_000_000)


def answer(folder: Path, hook: Hook | None = None) -> dict[str, Any]:
    """Serve the wide model."""
    own = machine()
    job = serve(own, options(folder), lambda message: None, hook=hook)
    return own.kernel.complete(own.spawn(job, name="serve"), limit=100_000_000)


@pytest.mark.parametrize(
    ("rows", "k", "n"),
    [(1, 512, 1024), (5, 320, 600), (3, 512, 530), (100, 1040, 32), (128, 2048, 16), (90, 1500, 40)],
)
def test_a_product_whose_list_is_too_long_for_its_pages_becomes_several_jobs(
    tmp_path: Path, rows: int, k: int, n: int
) -> None:
    """Of neighbouring pages hardly any are neighbours in memory."""
    jobs, macs = multiplied(tmp_path, rows, k, n)
    assert jobs > 1
    assert macs == 3 * rows * k * n


def test_a_product_whose_list_has_room_is_one_job(tmp_path: Path) -> None:
    assert multiplied(tmp_path, 5, 96, 192) == (1, 3 * 5 * 96 * 192)


def test_a_matrix_that_no_part_makes_narrow_enough_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"smallest part of some is too long for a page; choose a narrower model\.$"):
        multiplied(tmp_path, 1, 32000, 16)


def jobs(result: dict[str, Any], name: str) -> list[str]:
    """Names of the NPU's jobs for a product, in order."""
    names = [entry["name"] for entry in result["timeline"] if entry.get("track") == "npu"]
    return [job for job in names if job.partition("[")[0] == name]


def test_a_recalled_page_in_the_middle_of_the_lists_changes_jobs_and_no_sum(tmp_path: Path) -> None:
    async def hook(point: str, phone: Phone) -> None:
        if point == "token:1":
            lists = next(s for s in phone.serving.pager.segments if s.name == "descriptors")
            frames = [phone.serving.space.frame(lists.first + page) for page in (1, 3, 5)]
            for frame in frames:
                assert frame is not None
                await phone.os.flexmem.recall_range(Extent(frame, 1))

    calm, recalled = answer(tmp_path), answer(tmp_path, hook)
    assert (recalled["bit_exact"], recalled["reference_equal"]) == (True, True)
    assert (recalled["tokens"], recalled["compared_values"]) == (calm["tokens"], calm["compared_values"])
    assert jobs(calm, "layers.0.gate_up") == ["layers.0.gate_up"] * 4
    assert len(jobs(recalled, "layers.0.gate_up")) > 4


def test_a_model_wider_than_the_pages_of_its_lists_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_DESCRIPTOR_PAGES", 1)
    result = answer(tmp_path)
    assert (result["bit_exact"], result["reference_equal"], result["violations"]) == (True, True, 0)
    assert len(jobs(result, "layers.0.gate_up")) > 4


@pytest.mark.interpreted
@pytest.mark.parametrize("kv", ["float", "int8"])
@pytest.mark.parametrize("gap", [900, 2100, 5300])
def test_an_npu_taken_back_in_the_middle_of_a_part_changes_no_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: int, kv: str
) -> None:
    """What is left of a job has a list too, which may have no room where the job's own had: here every third time."""
    lists: list[int] = []
    rest = NpuProducts._rest

    async def noting(self: NpuProducts, address: int, count: int, kept: int) -> tuple[int, int]:
        lists.append(count)
        if len(lists) % 3 == 0:
            raise ListTooLong("No room")
        return await rest(self, address, count, kept)

    monkeypatch.setattr(engine, "_DESCRIPTOR_PAGES", 1)
    monkeypatch.setattr(NpuProducts, "_rest", noting)
    own = machine()
    job = serve_with_recalls(own, {**options(tmp_path), "kv": kv, "gap": gap, "most": 40}, lambda message: None)
    result = own.kernel.complete(own.spawn(job, name="serve"), limit=100_000_000)
    assert (result["bit_exact"], result["reference_equal"], result["violations"]) == (True, True, 0)
    assert len(lists) > 12
