"""A job that was stopped anywhere goes on from what it had stored, on an NPU that holds nothing."""


import numpy as np
import pytest

from flexserve_sw import npu

CAPS = {
    4: npu.Caps(n=4, a_words=64, w_words=128, c_rows=64, q_words=128),
    8: npu.Caps(n=8, a_words=64, w_words=64, c_rows=32, q_words=64),
}
A, W, Q, C = 0x1_0000, 0x2_0000, 0x4_0000, 0x5_0000
SIZE = 0x8_0000


class Ram:
    """Byte memory that counts what is read."""

    def __init__(self):
        self.bytes = np.zeros(SIZE, np.uint8)
        self.read_bytes = 0

    def read(self, address, length):
        self.read_bytes += length
        return self.bytes[address : address + length].tobytes()

    def write(self, address, payload):
        self.bytes[address : address + len(payload)] = np.frombuffer(payload, np.uint8)


def place(ram, rng, caps, m, k, n, *, int8, by_row=False):
    """A random GEMM in memory, its weights packed or row by row: its program."""
    ram.bytes[A:C] = rng.integers(0, 256, C - A, dtype=np.uint8)
    parameters = npu.Requantise(address=Q) if int8 else None
    return npu.gemm_program(
        m=m, k=k, n=n, a_addr=A, a_stride=-(-k // 16) * 16, w_addr=W, c_addr=C,
        c_stride=-(-n * (1 if int8 else 4) // 16) * 16, caps=caps, requantise=parameters,
        w_stride=-(-n // 16) * 16 if by_row else None,
    )  # fmt: skip


def halves(program):
    """Every STORE in two, as one that crosses a page is cut."""
    for descriptor in program:
        if isinstance(descriptor, npu.Store) and descriptor.rows > 1:
            first = descriptor.rows // 2
            yield descriptor._replace(rows=first, signal_prev=False)
            yield descriptor._replace(
                wait_prev=False,
                rows=descriptor.rows - first,
                address=descriptor.address + first * descriptor.stride,
                c_base=descriptor.c_base + first,
            )
        else:
            yield descriptor


def check_everywhere(program, whole, begin, caps, rng):
    """Stop ``program`` all over; what is left must give what ``whole`` holds. Returns whether it ever reads less."""
    everything, less = whole.read_bytes, False
    everywhere = range(len(program) + 1)
    for kept in everywhere if len(program) < 20 else sorted(rng.choice(everywhere, 12, replace=False).tolist()):
        stopped = Ram()
        stopped.bytes[:] = begin
        for store in program[:kept]:
            if isinstance(store, npu.Store):
                size = store.n * (1 if store.quantise else 4)
                for row in range(store.rows):
                    at = store.address + row * store.stride
                    stopped.bytes[at : at + size] = whole.bytes[at : at + size]
        rest = npu.remainder(program, kept, caps)
        # The executor stalls on a token that nobody gives, and starts with memories that hold something else.
        state = npu.NpuState(caps)
        for memory in (state.a, state.w, state.c, state.q):
            memory[:] = 0x55
        npu.execute(rest, stopped.read, stopped.write, caps, state=state)
        np.testing.assert_array_equal(stopped.bytes, whole.bytes)
        less = less or stopped.read_bytes < everything
    assert npu.remainder(program, len(program), caps) == []
    assert npu.remainder(program, 0, caps) == program
    return less


@pytest.mark.parametrize("seed", range(24))
def test_what_is_left_of_a_job_gives_the_result_that_the_whole_job_gives(seed):
    rng = np.random.default_rng(seed)
    caps = CAPS[4 if seed % 2 else 8]
    whole = Ram()
    m, k, n = (int(rng.integers(1, high)) for high in (70, 60, 60))
    program = list(halves(place(whole, rng, caps, m, k, n, int8=seed % 3 == 0, by_row=seed % 4 > 1)))
    begin = whole.bytes.copy()
    npu.execute(program, whole.read, whole.write, caps)
    assert (whole.bytes[C:] != begin[C:]).any()
    less = check_everywhere(program, whole, begin, caps, rng)
    assert less or sum(isinstance(d, npu.Store) for d in program) <= 2


@pytest.mark.parametrize("seed", range(6))
def test_a_job_of_several_products_goes_on_too(seed):
    rng, caps, whole = np.random.default_rng(seed), CAPS[8], Ram()
    whole.bytes[A:C] = rng.integers(0, 256, C - A, dtype=np.uint8)
    gemms, at = [], 0
    for _ in range(3):
        m, k, n = int(rng.integers(1, 4)), int(rng.integers(1, 30)), int(rng.integers(1, 20))
        gemms.append(
            npu.Gemm(m=m, k=k, n=n, a_addr=A + at, a_stride=32, w_addr=W + at, c_addr=C + at, c_stride=-(-n // 4) * 16)
        )
        at += 0x1000
    program = npu.packed_program(gemms, caps)
    begin = whole.bytes.copy()
    npu.execute(program, whole.read, whole.write, caps)
    assert check_everywhere(program, whole, begin, caps, rng)


def test_only_what_is_read_again_is_loaded_again():
    caps, rng, ram = CAPS[8], np.random.default_rng(1), Ram()
    program = place(ram, rng, caps, 16, 32, 64, int8=False)
    stores = [index for index, descriptor in enumerate(program) if isinstance(descriptor, npu.Store)]
    rest = npu.remainder(program, stores[-2] + 1, caps)
    loads = [descriptor for descriptor in rest if isinstance(descriptor, npu.Load)]
    assert len(loads) < sum(isinstance(descriptor, npu.Load) for descriptor in program)
    assert sum(isinstance(descriptor, npu.Store) for descriptor in rest) == 1


def test_a_place_outside_the_job_is_refused():
    program = place(Ram(), np.random.default_rng(1), CAPS[8], 8, 8, 8, int8=False)
    with pytest.raises(ValueError, match="must be 0 to"):
        npu.remainder(program, len(program) + 1, CAPS[8])
