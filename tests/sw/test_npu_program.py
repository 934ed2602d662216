"""Golden NPU executor and GEMM programs against plain numpy."""

import dataclasses
import typing

import numpy as np
import pytest

from flexserve_sw import npu
from flexserve_sw.machine import BusFault, Response
from flexserve_sw.npu.plan import plans
from flexserve_sw.npu.program import program
from flexserve_sw.regs import (
    NpuDescriptorLoad,
    NpuDescriptorMatmul,
    NpuDescriptorStore,
    NpuFault,
    NpuOp,
    NpuSpace,
)

A, W, C = 0x10_0000, 0x20_0000, 0x40_0000
SMALL = {4: npu.Caps(n=4, a_words=64, w_words=32, c_rows=32), 8: npu.Caps(n=8, a_words=64, w_words=64, c_rows=32)}


class Ram:
    """Byte memory; pages in ``denied`` answer DECERR."""

    def __init__(self, size=8 << 20):
        self.bytes = np.zeros(size, dtype=np.uint8)
        self.denied = set()
        self.guard = None

    def check(self, address, length):
        assert address // 4096 == (address + length - 1) // 4096
        if address // 4096 in self.denied or address + length > self.bytes.size:
            raise BusFault(address, Response.DECERR)

    def read(self, address, length):
        self.check(address, length)
        return self.bytes[address : address + length].tobytes()

    def write(self, address, payload):
        self.check(address, len(payload))
        self.bytes[address : address + len(payload)] = np.frombuffer(payload, dtype=np.uint8)


def place_gemm(ram, rng, m, k, n, caps):
    """Random operands in memory; returns the job's arguments and the true product."""
    a = rng.integers(-128, 128, (m, k), dtype=np.int8)
    w = rng.integers(-128, 128, (k, n), dtype=np.int8)
    a_stride = -(-k // 16) * 16
    padded = rng.integers(-128, 128, (m, a_stride), dtype=np.int8)
    padded[:, :k] = a
    ram.bytes[A : A + padded.size] = padded.reshape(-1).view(np.uint8)
    packed = npu.pack_weights(w, caps.n)
    ram.bytes[W : W + len(packed)] = np.frombuffer(packed, dtype=np.uint8)
    arguments = dict(
        m=m, k=k, n=n, a_addr=A, a_stride=a_stride, w_addr=W, c_addr=C, c_stride=-(-4 * n // 16) * 16, caps=caps
    )
    return arguments, a.astype(np.int32) @ w.astype(np.int32)


def read_c(ram, arguments):
    m, n, stride = arguments["m"], arguments["n"], arguments["c_stride"]
    rows = ram.bytes[C : C + m * stride].reshape(m, stride)
    return rows[:, : 4 * n].copy().view("<i4")


@pytest.mark.parametrize("seed", range(60))
def test_gemm_program_computes_the_product_for_any_shape(seed):
    rng = np.random.default_rng(seed)
    caps = [SMALL[4], SMALL[8], npu.Caps(n=8), npu.Caps(n=16), npu.Caps(n=32)][seed % 5]
    m, k, n = (int(rng.choice([1, 2, rng.integers(1, 40), rng.integers(1, 200)])) for _ in range(3))
    ram = Ram()
    ram.bytes[:] = 0xA5
    arguments, expected = place_gemm(ram, rng, m, k, n, caps)
    job = npu.gemm_program(**arguments)
    state = npu.NpuState(caps)
    state.a[:], state.w[:], state.c[:] = 99, 77, 12345
    npu.execute(job, ram.read, ram.write, caps, state=state)
    np.testing.assert_array_equal(read_c(ram, arguments), expected, err_msg=f"{seed=} {(m, k, n)} {caps}")
    rows = ram.bytes[C : C + m * arguments["c_stride"]].reshape(m, -1)
    assert (rows[:, 4 * n :] == 0xA5).all()
    assert (ram.bytes[C + m * arguments["c_stride"] :] == 0xA5).all()


@pytest.mark.parametrize("seed", range(40))
def test_weights_that_lie_row_by_row_give_the_same_product(seed):
    rng = np.random.default_rng(seed)
    caps = [npu.Caps(n=4, a_words=256, w_words=256), SMALL[8], npu.Caps(n=8), npu.Caps(n=16), npu.Caps(n=32)][seed % 5]
    m, k, n = (int(rng.choice([1, 2, rng.integers(1, 40), rng.integers(1, 200)])) for _ in range(3))
    ram = Ram()
    arguments, expected = place_gemm(ram, rng, m, k, n, caps)
    word = max(16, caps.n)
    tiles = ram.bytes[W : W + caps.tiles(n) * caps.tiles(k) * caps.n**2].view(np.int8)
    matrix = tiles.reshape(caps.tiles(n), -1, caps.n).transpose(1, 0, 2).reshape(caps.tiles(k) * caps.n, -1)[:k, :n]
    stride = -(-n // word) * word + int(rng.integers(0, 3)) * 16
    rows = rng.integers(-128, 128, (k, stride), dtype=np.int8)
    rows[:, :n] = matrix
    ram.bytes[W : W + 0x10_0000] = 0xA5
    ram.bytes[W : W + rows.size] = rows.reshape(-1).view(np.uint8)
    gemm = npu.Gemm(**{name: value for name, value in arguments.items() if name != "caps"}, w_stride=stride)
    jobs = [npu.gemm_program(**arguments, w_stride=stride)]
    if m * caps.tiles(k) <= caps.a_words // 4 and m <= 16:
        jobs.append(npu.packed_program([gemm], caps))
    for job in jobs:
        state = npu.NpuState(caps)
        state.a[:], state.w[:], state.c[:] = 99, 77, 12345
        ram.bytes[C : C + m * arguments["c_stride"]] = 0
        npu.execute(job, ram.read, ram.write, caps, state=state)
        np.testing.assert_array_equal(read_c(ram, arguments), expected, err_msg=f"{seed=} {(m, k, n)} {caps}")
        reads = [d for d in job if isinstance(d, npu.Load) and d.space is NpuSpace.WEIGHTS]
        assert all(d.address + (d.rows - 1) * d.stride + d.row_bytes <= W + rows.size for d in reads)


def test_rows_of_weights_are_as_far_apart_as_they_are_read():
    arguments = dict(m=1, k=20, n=20, a_addr=A, a_stride=32, w_addr=W, c_addr=C, c_stride=80)
    with pytest.raises(ValueError, match="must be at least 32 bytes apart, not 16"):
        npu.gemm_program(**arguments, w_stride=16, caps=npu.Caps())
    with pytest.raises(ValueError, match="multiple of 16, not 40"):
        npu.gemm_program(**arguments, w_stride=40, caps=npu.Caps())


@pytest.mark.parametrize(
    ("m", "k", "n"), [(1, 3000, 40), (3000, 40, 20), (40, 3000, 20), (700, 700, 64), (5, 20, 3000)]
)
def test_gemm_program_splits_what_does_not_fit(m, k, n):
    ram = Ram(16 << 20)
    caps = npu.Caps(n=16, a_words=1024, w_words=512, c_rows=256)
    arguments, expected = place_gemm(ram, np.random.default_rng(m * k * n), m, k, n, caps)
    npu.execute(npu.gemm_program(**arguments), ram.read, ram.write, caps)
    np.testing.assert_array_equal(read_c(ram, arguments), expected)


@pytest.mark.parametrize(("m", "k", "n"), [(1, 70, 40), (24, 100, 60), (64, 64, 64), (50, 30, 130)])
@pytest.mark.parametrize("size", [4, 8, 16])
def test_every_plan_computes_the_same_product(size, m, k, n):
    caps = npu.Caps(n=size, a_words=2048, w_words=2048, c_rows=512)
    ram = Ram(5 << 20)
    arguments, expected = place_gemm(ram, np.random.default_rng(m * k * n), m, k, n, caps)
    gemm = npu.Gemm(**{name: value for name, value in arguments.items() if name != "caps"})
    choices = list(plans(m, k, n, caps, value_bytes=4))
    assert len({tuple(plan) for plan in choices}) > 2
    for plan in choices:
        npu.execute(program(plan, (gemm,), caps), ram.read, ram.write, caps)
        np.testing.assert_array_equal(read_c(ram, arguments), expected, err_msg=f"{plan}")
        ram.bytes[C : C + m * arguments["c_stride"]] = 0


def place_several(ram, rng, sizes, caps):
    """Random GEMMs in memory, every other one with int8 results; returns them and what must come out where."""
    gemms, expected = [], []
    for number, (m, k, n) in enumerate(sizes):
        at = 0x50_0000 + 0x10_0000 * number
        arguments, sums = place_gemm(ram, rng, m, k, n, caps)
        ram.bytes[at : at + 0x1_0000] = ram.bytes[A : A + 0x1_0000]
        ram.bytes[at + 0x1_0000 : at + 0x8_0000] = ram.bytes[W : W + 0x7_0000]
        gemm = npu.Gemm(
            m=m, k=k, n=n, a_addr=at, a_stride=arguments["a_stride"], w_addr=at + 0x1_0000, c_addr=at + 0xA_0000,
            c_stride=-(-4 * n // 16) * 16,
        )  # fmt: skip
        if number % 2:
            parameters = (
                rng.integers(-500, 500, n).astype(np.int32),
                rng.integers(0, 1 << 16, n).astype(np.uint16),
                rng.integers(18, 26, n).astype(np.uint8),
            )
            ram.write(at + 0x9_0000, npu.pack_parameters(*parameters, caps.n)[:4096])
            gemm = dataclasses.replace(gemm, requantise=npu.Requantise(address=at + 0x9_0000))
            sums = npu.requantise(sums, *(values.astype(np.int64) for values in parameters))
        gemms.append(gemm)
        expected.append(sums)
    return gemms, expected


@pytest.mark.parametrize("size", [4, 8, 16, 32])
def test_packed_gemms_compute_all_products(size):
    caps, ram, rng = npu.Caps(n=size), Ram(16 << 20), np.random.default_rng(size)
    sizes = [(1, 64, 128), (1, 172, 64), (5, 64, 64), (1, 33, 17), (3, 200, 100), (1, 4, 4)]
    gemms, expected = place_several(ram, rng, sizes, caps)
    job = npu.packed_program(gemms, caps)
    npu.execute(job, ram.read, ram.write, caps)
    for gemm, right in zip(gemms, expected, strict=True):
        rows = ram.bytes[gemm.c_addr : gemm.c_addr + gemm.m * gemm.c_stride].reshape(gemm.m, -1)
        np.testing.assert_array_equal(rows[:, : gemm.n * right.itemsize].copy().view(right.dtype), right)
    kinds = {kind: [d for d in job if isinstance(d, kind)] for kind in (npu.Load, npu.Matmul, npu.Store)}
    assert sum(d.signal_prev for d in kinds[npu.Matmul]) == sum(d.wait_next for d in kinds[npu.Load])
    assert sum(d.signal_next for d in kinds[npu.Load]) == sum(d.wait_prev for d in kinds[npu.Matmul])


def test_packing_streams_the_weights_of_a_token_at_nine_tenths_of_the_bus_or_more():
    caps, sizes = npu.Caps(), [*[(64, 128), (64, 64), (64, 344), (172, 64)] * 5, (64, 512)]
    gemms = [npu.Gemm(m=1, k=k, n=n, a_addr=A, a_stride=176, w_addr=W, c_addr=C, c_stride=2048) for k, n in sizes]
    one = npu.job_cycles(npu.packed_program(gemms, caps), caps)
    each = sum(npu.job_cycles(npu.packed_program([gemm], caps), caps) for gemm in gemms)
    assert sum(k * n for k, n in sizes) / 16 / one > 0.9
    assert each > 1.2 * one


def test_what_cannot_be_packed_is_refused():
    gemm = npu.Gemm(m=200, k=200, n=16, a_addr=A, a_stride=208, w_addr=W, c_addr=C, c_stride=64)
    with pytest.raises(ValueError, match=r"not 200 rows of 200$"):
        npu.packed_program([gemm, gemm], npu.Caps())
    with pytest.raises(ValueError, match=r"not \[\]$"):
        npu.packed_program([], npu.Caps())


@pytest.mark.parametrize("seed", range(40))
def test_descriptors_survive_encoding(seed):
    rng = np.random.default_rng(seed)

    def pick(kind):
        values = {}
        for name, type_ in typing.get_type_hints(kind).items():
            if type_ is bool:
                values[name] = bool(rng.integers(2))
            elif name == "space":
                values[name] = NpuSpace(int(rng.integers(2)))
            elif name == "address":
                values[name] = int(rng.integers(1 << 40))
            elif name == "stride":
                values[name] = int(rng.integers(1 << 32))
            else:
                values[name] = int(rng.integers(1 << 16))
        return kind(**values)

    for kind in (npu.Fence, npu.Load, npu.Matmul, npu.Store):
        descriptor = pick(kind)
        assert len(descriptor.encode()) == npu.DESCRIPTOR_BYTES
        assert npu.decode(descriptor.encode()) == descriptor


def test_fields_of_descriptors_lie_where_the_registers_say():
    load, matmul, store = NpuDescriptorLoad(0), NpuDescriptorMatmul(0), NpuDescriptorStore(0)
    places = {
        npu.Load: {
            "stride": (load.STRIDE, load.STRIDE__VALUE), "rows": (load.SIZE, load.SIZE__ROWS),
            "row_bytes": (load.SIZE, load.SIZE__ROW_BYTES), "base": (load.PLACE, load.PLACE__BASE),
            "row_step": (load.PLACE, load.PLACE__ROW_STEP), "word_step": (load.STEP, load.STEP__WORD_STEP),
        },
        npu.Matmul: {
            "m": (matmul.SIZE_MK, matmul.SIZE_MK__M), "k": (matmul.SIZE_MK, matmul.SIZE_MK__K),
            "n": (matmul.SIZE_N, matmul.SIZE_N__N), "a_base": (matmul.A, matmul.A__BASE),
            "a_step": (matmul.A, matmul.A__STEP), "w_base": (matmul.W, matmul.W__BASE),
            "w_step": (matmul.W, matmul.W__STEP), "c_base": (matmul.C, matmul.C__BASE),
            "c_step": (matmul.C, matmul.C__STEP),
        },
        npu.Store: {
            "stride": (store.STRIDE, store.STRIDE__VALUE), "rows": (store.SIZE, store.SIZE__ROWS),
            "n": (store.SIZE, store.SIZE__N), "c_base": (store.C, store.C__BASE),
            "c_step": (store.C, store.C__STEP), "q_base": (store.Q, store.Q__BASE),
        },
    }  # fmt: skip
    for kind, fields in places.items():
        needed = dict.fromkeys(kind._fields[: -len(kind._field_defaults)], 0)
        zero = kind(**needed | ({"space": NpuSpace(0)} if kind is npu.Load else {}))
        for name, (register, field) in fields.items():
            value = (1 << field.width) - 2
            words = np.frombuffer(zero._replace(**{name: value}).encode(), "<u4")
            others = np.frombuffer(zero.encode(), "<u4").copy()
            others[register // 4] |= field.put(value)
            assert np.array_equal(words, others), (kind, name)
            with pytest.raises(ValueError, match="must fit"):
                npu.encode_program([zero._replace(**{name: 1 << field.width})])
    for descriptor, block in ((LOAD, load), (STORE, store)):
        words = np.frombuffer(descriptor._replace(address=2 << 32 | 16).encode(), "<u4")
        assert (words[block.ADDRESS_LO // 4], words[block.ADDRESS_HI // 4]) == (16, 2)


def test_unassigned_operations_do_not_decode():
    for op in set(range(16)) - set(NpuOp):
        with pytest.raises(ValueError, match=rf"not {op}$"):
            npu.decode(bytes([op]) + bytes(31))


def test_caps_survive_the_register():
    for caps in (*SMALL.values(), npu.Caps(), npu.Caps(n=32, a_words=65536)):
        assert npu.Caps.from_register(caps.to_register()) == caps


LOAD = npu.Load(space=NpuSpace.WEIGHTS, address=A, stride=16, rows=2, row_bytes=16, base=0, row_step=4, word_step=1)
MATMUL = npu.Matmul(m=4, k=4, n=4, a_base=0, a_step=4, w_base=0, w_step=0, c_base=0, c_step=4)
STORE = npu.Store(address=C, stride=16, rows=4, n=4, c_base=0, c_step=4)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (LOAD._replace(address=A + 8), NpuFault.BAD_DESCRIPTOR),
        (LOAD._replace(stride=24), NpuFault.BAD_DESCRIPTOR),
        (LOAD._replace(rows=0), NpuFault.BAD_DESCRIPTOR),
        (LOAD._replace(row_bytes=0), NpuFault.BAD_DESCRIPTOR),
        (LOAD._replace(wait_prev=True), NpuFault.BAD_DESCRIPTOR),
        (STORE._replace(signal_next=True), NpuFault.BAD_DESCRIPTOR),
        (npu.Fence(wait_next=True), NpuFault.BAD_DESCRIPTOR),
        (MATMUL._replace(k=0), NpuFault.BAD_DESCRIPTOR),
        (STORE._replace(n=0), NpuFault.BAD_DESCRIPTOR),
        (LOAD._replace(base=25), NpuFault.SCRATCHPAD_RANGE),
        (LOAD._replace(space=NpuSpace.ACTIVATIONS, rows=2, row_step=61), NpuFault.SCRATCHPAD_RANGE),
        (MATMUL._replace(a_base=61), NpuFault.SCRATCHPAD_RANGE),
        (MATMUL._replace(w_base=29), NpuFault.SCRATCHPAD_RANGE),
        (MATMUL._replace(n=8, w_step=29), NpuFault.SCRATCHPAD_RANGE),
        (MATMUL._replace(n=8, c_step=29), NpuFault.SCRATCHPAD_RANGE),
        (STORE._replace(c_base=29), NpuFault.SCRATCHPAD_RANGE),
    ],
)
def test_illegal_descriptors_fault_before_they_do_anything(bad, code):
    ram = Ram()
    state = npu.NpuState(SMALL[4])
    ram.bytes[A : A + 64] = 1
    with pytest.raises(npu.NpuFaulted) as caught:
        npu.execute([npu.Fence(), bad], ram.read, ram.write, SMALL[4], state=state, job_address=0x1000)
    assert (caught.value.code, caught.value.index, caught.value.address) == (code, 1, 0x1020)
    assert not state.a.any()
    assert not state.w.any()
    assert not ram.bytes[C : C + 4096].any()


@pytest.mark.parametrize("bad", [LOAD, MATMUL, STORE])
def test_the_largest_legal_place_does_not_fault(bad):
    room = {npu.Load: {"base": 24}, npu.Matmul: {"a_base": 60, "w_base": 28, "c_base": 28}, npu.Store: {"c_base": 28}}
    ram = Ram()
    npu.execute([bad._replace(**room[type(bad)])], ram.read, ram.write, SMALL[4])


def test_a_denied_page_is_a_bus_error_at_its_first_byte():
    ram = Ram()
    ram.denied.add((A + 4096) // 4096)
    job = [LOAD._replace(address=A + 4096 - 16, row_bytes=32)]
    with pytest.raises(npu.NpuFaulted) as caught:
        npu.execute(job, ram.read, ram.write, SMALL[4])
    assert (caught.value.code, caught.value.address) == (NpuFault.BUS_ERROR, A + 4096)


def test_a_job_is_fetched_checked_and_run_from_memory():
    ram = Ram()
    caps = npu.Caps(n=8)
    arguments, expected = place_gemm(ram, np.random.default_rng(5), 9, 30, 17, caps)
    program = npu.gemm_program(**arguments)
    ram.write(0x1000, npu.encode_program(program))
    assert npu.run_job(0x1000, len(program), ram.read, ram.write, npu.NpuState(caps)) == program
    np.testing.assert_array_equal(read_c(ram, arguments), expected)
    for address, count, code in ((0x1008, 1, NpuFault.BAD_DESCRIPTOR), (0x1000, 0, NpuFault.BAD_DESCRIPTOR)):
        with pytest.raises(npu.NpuFaulted) as caught:
            npu.run_job(address, count, ram.read, ram.write, npu.NpuState(caps))
        assert (caught.value.code, caught.value.index) == (code, 0)
    ram.denied.add(1)
    with pytest.raises(npu.NpuFaulted) as caught:
        npu.run_job(0x1000, 1, ram.read, ram.write, npu.NpuState(caps))
    assert (caught.value.code, caught.value.address) == (NpuFault.FETCH_ERROR, 0x1000)


def test_a_list_past_the_end_of_the_address_space_is_a_fetch_error():
    def read(address, length):
        return npu.Fence().encode()

    ram, state = Ram(), npu.NpuState(SMALL[4])
    assert len(npu.run_job(0x1_0000_0000 - 64, 2, read, ram.write, state)) == 2
    with pytest.raises(npu.NpuFaulted) as caught:
        npu.run_job(0x1_0000_0000 - 64, 3, read, ram.write, state)
    assert (caught.value.code, caught.value.index, caught.value.address) == (NpuFault.FETCH_ERROR, 2, 0x1_0000_0000)


def test_waiting_for_a_token_that_nobody_gave_stalls():
    ram = Ram()
    with pytest.raises(npu.NpuStalled):
        npu.execute([MATMUL._replace(wait_prev=True)], ram.read, ram.write, SMALL[4])


def test_programs_leave_no_token_behind_and_take_none_in_vain():
    for m, k, n in ((1, 1, 1), (1, 512, 512), (128, 512, 512), (64, 172, 64), (17, 100, 300)):
        job = npu.gemm_program(
            m=m, k=k, n=n, a_addr=A, a_stride=1024, w_addr=W, c_addr=C, c_stride=4096, caps=npu.Caps()
        )
        kinds = {kind: [d for d in job if isinstance(d, kind)] for kind in (npu.Load, npu.Matmul, npu.Store)}
        given = sum(d.signal_next for d in kinds[npu.Load])
        assert given == sum(d.wait_prev for d in kinds[npu.Matmul])
        assert sum(d.signal_prev for d in kinds[npu.Matmul]) == sum(d.wait_next for d in kinds[npu.Load])
        assert sum(d.signal_next for d in kinds[npu.Matmul]) == sum(d.wait_prev for d in kinds[npu.Store])
        assert sum(d.signal_prev for d in kinds[npu.Store]) == sum(d.wait_next for d in kinds[npu.Matmul])


def test_estimated_time_is_near_the_arithmetic_limit_for_a_large_product():
    caps = npu.Caps()
    job = npu.gemm_program(m=128, k=512, n=512, a_addr=A, a_stride=512, w_addr=W, c_addr=C, c_stride=2048, caps=caps)
    assert 131_072 < npu.job_cycles(job, caps) < 134_000


@pytest.mark.parametrize("name", ["m", "k", "n"])
def test_empty_products_are_refused(name):
    sizes = {"m": 1, "k": 1, "n": 1, name: 0}
    with pytest.raises(ValueError, match=r"not 0$"):
        npu.gemm_program(**sizes, a_addr=A, a_stride=16, w_addr=W, c_addr=C, c_stride=16, caps=npu.Caps())
