"""A job that is recognised as a product does to memory, and leaves in the NPU, what its descriptors do one by one."""

import numpy as np
import pytest

from flexserve_sw import npu
from flexserve_sw.fast.memory import DRAM_BASE as BASE
from flexserve_sw.fast.memory import Dram, DramTiming
from flexserve_sw.fast.product import Matrices, Product
from flexserve_sw.fast.program import Program
from flexserve_sw.regs import NpuSpace

SIZE = 1 << 19
A, W, C = BASE + 0x1000, BASE + 0x2_0000, BASE + 0x5_0000


def memory(seed: int) -> Dram:
    """Memory with random contents, as the golden executor and as a product see it."""
    return Dram(size=SIZE, timing=DramTiming(), seed=seed)


def gemm(m: int, k: int, n: int, caps: npu.Caps) -> list[npu.Descriptor]:
    """A job with operands that lie apart."""
    return npu.gemm_program(
        m=m, k=k, n=n, a_addr=A, a_stride=-(-k // 16) * 16 + 16, w_addr=W, c_addr=C, c_stride=-(-n // 4) * 16, caps=caps
    )


def find(program: list[npu.Descriptor], caps: npu.Caps) -> Product | None:
    """What the machine finds in the encoded list."""
    return Program(npu.encode_program(program), caps, DramTiming()).product(Matrices())


@pytest.mark.parametrize("seed", range(40))
def test_product_equals_the_descriptors_in_memory_and_in_the_scratchpads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    caps = npu.Caps(n=int(rng.choice([4, 8, 16, 32])))
    m, k, n = (int(size) for size in rng.integers(1, [60, 200, 120]))
    program = gemm(m, k, n, caps)
    product = find(program, caps)
    assert product is not None
    state, left = (npu.NpuState(caps) for _ in range(2))
    for contents in (seed, seed, seed + 1000):
        expected, found = memory(contents), memory(contents)
        npu.execute(program, expected.read, expected.write, caps, state=state)
        read = product.run(found)
        assert np.array_equal(found.memory.bytes, expected.memory.bytes)
        product.leave(program, left, read)
        for name in ("a", "w", "c", "q"):
            assert np.array_equal(getattr(left, name), getattr(state, name)), name


@pytest.mark.parametrize("seed", range(10))
def test_lists_over_other_pages_are_told_apart(seed: int) -> None:
    """Loads and stores of one GEMM, moved to other pages of memory: some keep their neighbours, some get new ones."""
    rng = np.random.default_rng(seed)
    caps = npu.Caps()
    program = gemm(3, 180, 96, caps)
    pages = sorted({d.address // 4096 for d in program if isinstance(d, npu.Load | npu.Store)})
    for _ in range(4):
        moved = dict(zip(pages, rng.permutation(np.arange(0, SIZE // 4096 - 8, 8))[: len(pages)].tolist(), strict=True))
        job = [
            d._replace(address=BASE + moved[d.address // 4096] * 4096 + d.address % 4096)
            if isinstance(d, npu.Load | npu.Store) else d
            for d in program
        ]  # fmt: skip
        product = find(job, caps)
        assert product is not None
        expected, found = memory(seed), memory(seed)
        npu.execute(job, expected.read, expected.write, caps)
        product.run(found)
        assert np.array_equal(found.memory.bytes, expected.memory.bytes)


def test_list_worked_out_with_another_knows_its_own_pages_and_time() -> None:
    caps, timing = npu.Caps(), DramTiming()
    job = gemm(3, 180, 96, caps)
    moved = [d._replace(address=d.address + 0x10_0000) if isinstance(d, npu.Load | npu.Store) else d for d in job]
    shifted = [d._replace(address=d.address + 0x10) if isinstance(d, npu.Load) else d for d in job]
    first, second, third = (Program(npu.encode_program(list_), caps, timing) for list_ in (job, moved, shifted))
    assert second.reads == {page + 0x100 for page in first.reads}
    assert second.writes == {page + 0x100 for page in first.writes}
    assert list(second.descriptors) == moved
    for program, descriptors in ((first, job), (second, moved), (third, shifted)):
        times = npu.job_times(descriptors, caps, latency=timing.latency)
        assert program.cycles == times.cycles
        assert program.handed == times.handed[-1]


def test_changed_weights_are_seen() -> None:
    caps = npu.Caps()
    program = gemm(1, 16, 16, caps)
    product = find(program, caps)
    assert product is not None
    place = memory(1)
    place.write(A, bytes([1]) + bytes(15))
    for value in (3, 4):
        place.write(W, npu.pack_weights(np.full((16, 16), value, np.int8), caps.n))
        product.run(place)
        assert np.frombuffer(place.read(C, 64), "<i4").tolist() == [value] * 16


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kept", [512, 1])
def test_whatever_changes_between_runs_is_seen_in_memory_and_in_the_scratchpads(
    seed: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte anywhere in the operands, of several products that share what they may and are forgotten early or late."""
    monkeypatch.setattr("flexserve_sw.fast.product._MATRICES", kept)
    rng = np.random.default_rng(seed)
    caps, matrices = npu.Caps(), Matrices()
    k, n = 16 * int(rng.integers(6, 20)), 16 * int(rng.integers(6, 16))
    programs = [gemm(m, k, n, caps) for m in (1, 3, 1)]
    programs[2] = [d._replace(address=d.address + 0x8000) if isinstance(d, npu.Store) else d for d in programs[2]]
    products = [Program(npu.encode_program(program), caps, DramTiming()).product(matrices) for program in programs]
    expected, found = memory(seed), memory(seed)
    state, left = (npu.NpuState(caps) for _ in range(2))
    weights = k * n
    for _ in range(30):
        at = W + int(rng.integers(weights)) if rng.random() < 0.7 else A + int(rng.integers(k))
        number = int(rng.integers(len(programs)))
        product = products[number]
        assert product is not None
        npu.execute(programs[number], expected.read, expected.write, caps, state=state)
        read = product.run(found)
        assert np.array_equal(found.memory.bytes, expected.memory.bytes)
        late, byte = rng.random() < 0.5, bytes([int(rng.integers(256))])
        for place in (expected, found) if late else ():
            place.write(at, byte)
        product.leave(programs[number], left, read)
        for name in ("a", "w", "c"):
            assert np.array_equal(getattr(left, name), getattr(state, name)), name
        for place in () if late else (expected, found):
            place.write(at, byte)


def test_job_that_reads_what_an_earlier_one_left_or_quantises_is_no_product() -> None:
    caps = npu.Caps()
    program = gemm(4, 32, 16, caps)
    for kind in (npu.Load, npu.Matmul):
        without = [descriptor for descriptor in program if not isinstance(descriptor, kind)]
        assert find(without, caps) is None, kind
    adding = [d._replace(accumulate=True) if isinstance(d, npu.Matmul) else d for d in program]
    assert find(adding, caps) is None
    for change in ({"quantise": True}, {"rows": 5}, {"c_base": 1}):
        stores = [d._replace(**change) if isinstance(d, npu.Store) else d for d in program]
        assert find(stores, caps) is None, change
    parameters = npu.Load(
        space=NpuSpace.PARAMETERS, address=W, stride=128, rows=1, row_bytes=128, base=0, row_step=8, word_step=1
    )
    assert find([parameters, *program], caps) is None


def test_results_that_are_written_twice_are_left_to_the_descriptors() -> None:
    caps = npu.Caps()
    program = gemm(4, 32, 16, caps)
    assert find([*program, program[-1]], caps) is None
