"""Attention's products on the NPU over keys and values where they lie in scattered pages, and the cache around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flexserve_sw.designs.phone import Phone
from flexserve_sw.errors import UserError
from flexserve_sw.llm import ModelConfig, complete
from flexserve_sw.llm.attention import score_products, value_products
from flexserve_sw.machine import PAGE_BYTES, Initiator
from flexserve_sw.monitor.layout import Extent
from flexserve_sw.npu import Caps
from flexserve_sw.serving.attention import NpuAttention
from flexserve_sw.serving.cpu import CpuProducts
from flexserve_sw.serving.kv import CpuAttention, KvLayout, PagedInt8Cache
from flexserve_sw.serving.npu import NpuProducts
from flexserve_sw.serving.segments import Kind, PagedSegment
from tests.sw.llm.tiny import CONFIG, checkpoint
from tests.sw.phone_bench import on_phone, serve_fast

PROMPT = "a he cab"


async def segment(
    phone: Phone, name: str, kind: Kind, pages: int, random: np.random.Generator | None = None
) -> PagedSegment:
    """A segment whose pages are neighbours in memory, or have frames in random order."""
    pager = phone.serving.pager
    made = pager.add(name, kind, pages)
    frames = sorted(await pager.source.acquire(pages))
    if random is None:
        assert frames == [*range(frames[0], frames[0] + pages)]
    else:
        frames = list(random.permutation(frames))
    for page in range(pages):
        pager.space.map(made.first + page, int(frames[page]))
    return made


async def multiply(
    phone: Phone, layout: KvLayout, rows: int, count: int, seed: int, list_pages: int = 16
) -> dict[str, Any]:
    """Products of random rows on the NPU, and exact ones."""
    random = np.random.default_rng(seed)
    serving = phone.serving
    caps, space = serving.caps, serving.space
    assert serving._lease is not None
    position = count - rows
    lists = await segment(phone, "descriptors", Kind.WORK, list_pages)
    length = NpuAttention.work_bytes(layout, rows, caps, position=position)
    work = await segment(phone, "work", Kind.WORK, -(-length // PAGE_BYTES), random)
    kv = await segment(phone, "kv", Kind.KV, layout.pages(count)[0], random)
    await space.store(kv.address, random.integers(0, 256, kv.length, np.uint8).tobytes())
    stored = random.integers(-127, 128, (count, 2, layout.kv_heads, layout.head_dim), np.int8)
    padded = random.integers(-127, 128, (count, 2, layout.half), np.int8)
    padded[..., : layout.kv_heads * layout.head_dim] = stored.reshape(count, 2, -1)
    await space.store(kv.address, padded.tobytes())
    products = NpuProducts(
        space=space, lease=serving._lease, caps=caps, work=work, descriptors=lists, timeline=phone.timeline
    )
    attention = NpuAttention(products=products, space=space, caps=caps, layout=layout, work=work)
    queries = random.integers(-127, 128, (rows, layout.heads, layout.head_dim), np.int8)
    weights = random.integers(0, 128, (rows, layout.heads, count), np.int8)
    weights[np.arange(count)[None, None, :] > position + np.arange(rows)[:, None, None] + np.zeros_like(weights)] = 0
    before = await serving._lease.driver.counters()
    jobs = serving._lease.driver.jobs
    scores = await attention.scores("scores", kv.address, count, queries, position)
    mixed = await attention.mix("mix", kv.address, count, weights, position)
    return {
        "scores": np.array_equal(scores, score_products(queries, stored[:, 0], position)),
        "mix": np.array_equal(mixed, value_products(weights, stored[:, 1])),
        "jobs": serving._lease.driver.jobs - jobs,
        "busy": (await serving._lease.driver.counters()).since(before).busy,
        "macs": products.macs,
    }


SHAPES = [(4, 2, 8), (6, 3, 16), (8, 4, 8), (4, 4, 32), (8, 1, 16), (2, 2, 20), (6, 2, 64)]
"""Heads of queries and of keys, and their width."""


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("rows", "count"), [(1, 1), (1, 77), (9, 9), (3, 60), (70, 70)])
def test_products_on_the_npu_are_exact_over_scattered_pages(shape: tuple[int, int, int], rows: int, count: int) -> None:
    heads, kv_heads, head_dim = shape
    layout = KvLayout(heads=heads, kv_heads=kv_heads, head_dim=head_dim, array=16)
    result = on_phone(lambda phone: multiply(phone, layout, rows, count, seed=heads * count + rows))
    assert (result["scores"], result["mix"]) == (True, True)
    assert result["jobs"] == 2 * -(-rows // 32)
    pairs = heads * sum(range(count - rows + 1, count + 1))
    assert result["macs"] == 2 * pairs * head_dim


@pytest.mark.parametrize("array", [4, 8, 32])
@pytest.mark.parametrize(("rows", "count"), [(1, 50), (12, 40)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_are_exact_on_arrays_of_other_sizes(
    array: int, rows: int, count: int, shape: tuple[int, int, int]
) -> None:
    heads, kv_heads, head_dim = shape
    layout = KvLayout(heads=heads, kv_heads=kv_heads, head_dim=head_dim, array=array)
    result = on_phone(lambda phone: multiply(phone, layout, rows, count, seed=array + count), array=array)
    assert (result["scores"], result["mix"]) == (True, True)


@pytest.mark.parametrize(("rows", "count"), [(1, 500), (32, 96)])
def test_a_list_too_long_for_its_pages_becomes_several_jobs(rows: int, count: int) -> None:
    """With neighbouring pages never the neighbours in memory, a list is longer, and a page is all it has."""
    layout = KvLayout(heads=16, kv_heads=8, head_dim=16, array=16)
    result = on_phone(lambda phone: multiply(phone, layout, rows, count, seed=count, list_pages=1))
    assert (result["scores"], result["mix"]) == (True, True)
    assert result["jobs"] > 2


def test_what_lies_beyond_the_last_position_is_looked_at_by_nobody() -> None:
    """``multiply`` fills every page with noise; 33 positions end in the middle of a tile, the tile in a page."""
    layout = KvLayout(heads=4, kv_heads=2, head_dim=8, array=16)
    assert layout.whole(33) == 48
    result = on_phone(lambda phone: multiply(phone, layout, 1, 33, seed=3))
    assert (result["scores"], result["mix"]) == (True, True)


def test_heads_share_a_gemm_as_long_as_their_queries_fit_the_array() -> None:
    layout = KvLayout(heads=8, kv_heads=4, head_dim=8, array=16)
    assert [NpuAttention.heads_at_once(layout, rows) for rows in (1, 2, 3, 4, 5, 100)] == [4, 4, 2, 2, 2, 2]
    wide = KvLayout(heads=8, kv_heads=4, head_dim=16, array=16)
    assert [NpuAttention.heads_at_once(wide, rows) for rows in (1, 2, 3, 4, 5, 100)] == [4, 4, 2, 2, 1, 1]
    odd = KvLayout(heads=2, kv_heads=2, head_dim=20, array=16)
    assert NpuAttention.heads_at_once(odd, 100) == 2


def test_blocks_of_a_prompt_cover_it_once_and_bound_what_a_job_stores() -> None:
    layout = KvLayout(heads=32, kv_heads=8, head_dim=64, array=16)
    for rows, position in [(1, 0), (33, 0), (128, 0), (100, 2000)]:
        blocks = list(NpuAttention.blocks(layout, rows, position))
        assert [row for block in blocks for row in block] == list(range(rows))
        assert max(map(len, blocks)) <= 32
        stored = [len(block) * 32 * layout.whole(position + block.stop) * 4 for block in blocks]
        assert max(stored) <= 256 * 1024 or max(map(len, blocks)) == 1


@pytest.mark.parametrize("array", [4, 16, 32])
def test_a_row_is_cut_at_whole_words_wherever_a_page_ends(array: int) -> None:
    layout = KvLayout.of(ModelConfig(dim=60, hidden=8, layers=1, heads=6, kv_heads=3, vocab=300, seq_len=9), array)
    assert layout.half % max(16, array) == 0
    assert layout.half >= 30
    assert layout.pages(1) == (1, 1)
    assert layout.pages(1000)[0] == -(-layout.whole(1000) * layout.row_bytes // PAGE_BYTES)


def test_a_wrong_sum_of_the_npu_is_counted() -> None:
    """The comparison sees one bit of one sum."""

    class Wrong:
        async def scores(self, name: str, rows: int, count: int, queries: Any, position: int) -> Any:
            sums = score_products(queries, (await self.keys())[:, 0], position)
            sums[0, 1, 0] ^= 1
            return sums

        async def mix(self, name: str, rows: int, count: int, weights: Any, position: int) -> Any:
            return value_products(weights, (await self.keys())[:, 1])

        async def keys(self) -> Any:
            return stored

    random = np.random.default_rng(4)
    stored = random.integers(-127, 128, (5, 2, CONFIG.kv_heads, CONFIG.head_dim), np.int8)
    found: list[tuple[int, int]] = []

    async def program(phone: Phone) -> None:
        serving = phone.serving
        cache = PagedInt8Cache(
            pager=serving.pager,
            clock=serving.clock,
            track=serving.track,
            config=CONFIG,
            layout=KvLayout.of(CONFIG, 16),
            positions=8,
            products=Wrong(),
            scratch=(),
            check=lambda sums, right: found.append((sums.size, int((sums != right).sum()))),
        )
        scales = random.random((5, 2, CONFIG.kv_heads), np.float32)
        await cache.append(0, stored[:3], scales[:3])
        await cache.append(0, stored[3:], scales[3:])
        assert np.array_equal(await cache.scales(0), scales)
        queries = random.integers(-127, 128, (2, CONFIG.heads, CONFIG.head_dim), np.int8)
        weights = random.integers(0, 128, (2, CONFIG.heads, 5), np.int8)
        await cache.scores(0, queries, 3)
        await cache.mix(0, weights, 3)

    on_phone(program)
    assert found == [(5 * 2 * CONFIG.kv_heads, 0), (CONFIG.heads * 9, 1), (2 * CONFIG.heads * CONFIG.head_dim, 0)]


def test_a_wrong_bit_of_a_scale_in_memory_is_counted() -> None:
    found: list[tuple[int, int]] = []

    async def program(phone: Phone) -> None:
        serving = phone.serving
        layout = KvLayout.of(CONFIG, 16)
        cache = PagedInt8Cache(
            pager=serving.pager,
            clock=serving.clock,
            track=serving.track,
            config=CONFIG,
            layout=layout,
            positions=8,
            products=CpuAttention(space=serving.space, clock=serving.clock, layout=layout),
            scratch=(),
            check=lambda sums, right: found.append((sums.size, int((sums != right).sum()))),
        )
        random = np.random.default_rng(5)
        shape = (5, 2, CONFIG.kv_heads)
        await cache.append(0, np.zeros((*shape, CONFIG.head_dim), np.int8), random.random(shape, np.float32))
        scales = next(s for s in serving.pager.segments if s.name == "kv.0.scales")
        place = scales.address + 3 * layout.scale_bytes
        stored = bytearray(await serving.space.load(place, 16))
        stored[4] ^= 1
        await cache.scales(0)
        await serving.space.store(place, bytes(stored))
        await cache.scales(0)

    on_phone(program)
    assert found == [(5 * 2 * CONFIG.kv_heads, 0), (5 * 2 * CONFIG.kv_heads, 1)]


@pytest.mark.parametrize("kv", ["int8", "int8-cpu"])
@pytest.mark.parametrize("design", ["flexserve", "nw-base", "strawman", "strawman-opt"])
def test_every_design_gives_the_answer_of_the_reference(design: str, kv: str) -> None:
    result = serve_fast(design=design, kv=kv, tokens=20)
    expected = complete(checkpoint(CONFIG), PROMPT, 20, kv="int8")
    assert (tuple(result["tokens"]), result["text"]) == (expected.tokens, expected.text)
    assert (result["bit_exact"], result["reference_equal"], result["violations"]) == (True, True, 0)


@pytest.mark.parametrize("kv", ["float", "int8"])
def test_every_value_of_linear_layers_and_of_attention_is_compared(kv: str) -> None:
    result = serve_fast(kv=kv)
    prompt, made = result["prompt_tokens"], len(result["tokens"])
    assert (prompt, made) == (5, 8)
    last = prompt + made - 1
    # Outputs of a row, by hand: q and both k and v, o, gate and up, down; the classifier's once per token.
    outputs = CONFIG.layers * ((32 + 2 * 16) + 32 + 2 * 64 + 32)
    expected = last * outputs + made * CONFIG.vocab
    if kv == "int8":
        scores = CONFIG.heads * last * (last + 1) // 2
        values = last * CONFIG.heads * CONFIG.head_dim
        scales = sum(2 * CONFIG.kv_heads * used for used in range(prompt, last + 1))
        expected += CONFIG.layers * (scores + values + scales)
    assert (result["compared_values"], result["wrong_values"]) == (expected, 0)


@pytest.mark.parametrize(
    ("kv", "owner", "method"),
    [
        ("float", NpuProducts, "product"),
        ("int8", NpuProducts, "product"),
        ("int8", NpuAttention, "scores"),
        ("int8", NpuAttention, "mix"),
    ],
)
def test_one_wrong_sum_of_the_npu_makes_a_whole_run_not_bit_exact(
    monkeypatch: pytest.MonkeyPatch, kv: str, owner: type, method: str
) -> None:
    """One bit of one sum, once in the answer."""
    right, calls = getattr(owner, method), []

    async def flipping(self: Any, name: str, *rest: Any) -> Any:
        sums = (await right(self, name, *rest)).copy()
        calls.append(name)
        if len(calls) == 3:
            sums.reshape(-1)[0] ^= 1
        return sums

    monkeypatch.setattr(owner, method, flipping)
    result = serve_fast(kv=kv)
    assert len(calls) > 3
    assert (result["bit_exact"], result["wrong_values"]) == (False, 1)


def test_keys_and_values_take_a_quarter_of_the_bytes() -> None:
    rows = KvLayout.of(CONFIG, 16)
    assert rows.row_bytes * 4 == 2 * CONFIG.kv_dim * 4
    assert rows.scale_bytes == 16


def test_a_job_list_serves_for_as_many_tokens_as_a_tile_has_rows() -> None:
    lists: list[int] = []

    async def look(point: str, phone: Phone) -> None:
        if point.startswith("token:"):
            products = phone.serving._products
            assert not isinstance(products, CpuProducts)
            lists.append(sum("scores" in key[0] for key in products._pool._lists))

    result = serve_fast(kv="int8", tokens=30, hook=look)
    tiles = {-(-(result["prompt_tokens"] + token) // 16) for token in range(30)}
    assert lists == sorted(lists)
    assert lists[-1] == CONFIG.layers * (len(tiles) + 1)


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(UserError, match="kept as float, int8, int8-cpu, not as 'int4'"):
        serve_fast(kv="int4")
    assert NpuAttention.most_positions(Caps()) == 16384
    assert NpuAttention.most_positions(Caps(n=4)) == 4096


@pytest.mark.interpreted
def test_positions_beyond_what_the_npu_can_attend_over_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NpuAttention, "most_positions", staticmethod(lambda caps: 9))
    with pytest.raises(UserError, match="attends over 9 positions at most but prompt and answer have 13"):
        serve_fast(kv="int8")
    assert serve_fast(kv="int8-cpu", tokens=2)["bit_exact"]
    # A design without an NPU has no such limit.
    assert serve_fast(design="strawman", kv="int8", tokens=5)["bit_exact"]


def test_working_memory_that_is_too_small_is_noticed() -> None:
    layout = KvLayout(heads=4, kv_heads=2, head_dim=8, array=16)

    async def program(phone: Phone) -> None:
        serving = phone.serving
        assert serving._lease is not None
        random = np.random.default_rng(1)
        work, lists = [await segment(phone, name, Kind.WORK, 1, random) for name in ("work", "lists")]
        products = NpuProducts(
            space=serving.space, lease=serving._lease, caps=serving.caps, work=work, descriptors=lists,
            timeline=phone.timeline,
        )  # fmt: skip
        attention = NpuAttention(products=products, space=serving.space, caps=serving.caps, layout=layout, work=work)
        await attention.scores("scores", 0, 9, np.zeros((1, 4, 8), np.int8), 8)

    with pytest.raises(ValueError, match="Working memory must have 8192 bytes, not 4096"):
        on_phone(program)


@pytest.mark.parametrize("step", [170, 410, 990])
def test_keys_and_values_recalled_at_any_moment_come_back_as_they_were(step: int) -> None:
    """Of every token another moment: between the two products, in the middle of either, while rows are appended."""
    recalled: list[int] = []

    async def take(phone: Phone, delay: int) -> None:
        await phone.machine.delay(delay)
        space = phone.serving.space
        kv = [(s, page) for s, page in phone.serving.pager.resident() if s.kind is Kind.KV]
        frames = [frame for s, page in kv if (frame := space.frame(s.first + page)) is not None]
        for frame in frames[:2]:
            await phone.os.flexmem.recall_range(Extent(frame, 1))
            found = await phone.machine.load(frame * PAGE_BYTES, PAGE_BYTES, by=Initiator.NORMAL_CPU)
            recalled.append(int(any(found)))

    async def hook(point: str, phone: Phone) -> None:
        kind, _, number = point.partition(":")
        if kind == "token":
            phone.machine.spawn(take(phone, int(number) * step), name="os: recall")

    result = serve_fast(kv="int8", tokens=24, hook=hook)
    assert (result["bit_exact"], result["reference_equal"]) == (True, True)
    assert tuple(result["tokens"]) == complete(checkpoint(CONFIG), PROMPT, 24, kv="int8").tokens
    assert len(recalled) >= 24
    assert not any(recalled)
    assert result["pages_moved"]["swapped_in"] >= 24
    assert result["expired_grace_periods"] == 0
