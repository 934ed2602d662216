"""Encryption of pages, model images, and what the vault proves."""

import numpy as np
import pytest

from flexserve_sw.designs.phone import Phone
from flexserve_sw.llm import quantise
from flexserve_sw.machine import PAGE_BYTES
from flexserve_sw.serving.crypto import PageCipher, TamperedPage, device_key
from flexserve_sw.serving.image import HEADER_BYTES, BadImage, build_image, parse_header, parse_manifest
from flexserve_sw.serving.vault import Vault, VaultFull
from tests.sw.llm.tiny import checkpoint
from tests.sw.phone_bench import on_phone

KEY = device_key(1)
PAGE = bytes(range(256)) * 16


def test_a_page_opens_only_as_what_it_was_sealed_as() -> None:
    cipher = PageCipher(KEY, b"a")
    text, tag = cipher.seal(3, 7, PAGE)
    assert len(text) == len(PAGE)
    assert text != PAGE
    assert cipher.open(3, 7, text, tag) == PAGE
    flipped = bytes([text[0] ^ 1]) + text[1:]
    for wrong in (
        lambda: cipher.open(4, 7, text, tag),
        lambda: cipher.open(3, 6, text, tag),
        lambda: cipher.open(3, 7, flipped, tag),
        lambda: cipher.open(3, 7, text, bytes(16)),
        lambda: PageCipher(KEY, b"b").open(3, 7, text, tag),
        lambda: PageCipher(device_key(2), b"a").open(3, 7, text, tag),
    ):
        with pytest.raises(TamperedPage):
            wrong()
    with pytest.raises(ValueError, match="must have 32 bytes"):
        PageCipher(b"short", b"a")


@pytest.mark.parametrize("protected", [True, False])
def test_an_image_brings_every_segment_back(protected: bool) -> None:
    model = quantise(checkpoint())
    cipher = PageCipher(KEY, b"model") if protected else None
    raw = build_image(model, cipher).data.tobytes()
    length, tag = parse_header(raw[:HEADER_BYTES], limit=1 << 20)
    segments = parse_manifest(raw[HEADER_BYTES : HEADER_BYTES + length], tag, cipher)
    assert [segment.name for segment in segments] == [segment.name for segment in model.segments]
    for stored, segment in zip(segments, model.segments, strict=True):
        body = raw[stored.offset : stored.offset + stored.pages * PAGE_BYTES]
        pages = [body[i : i + PAGE_BYTES] for i in range(0, len(body), PAGE_BYTES)]
        if cipher is not None:
            assert segment.payload[:64] not in raw
            pages = [cipher.open(stored.first + i, 0, p, stored.tags[i]) for i, p in enumerate(pages)]
        assert b"".join(pages)[: len(segment.payload)] == segment.payload
        assert stored.tensors == segment.tensors


def test_an_image_for_another_phone_or_with_a_changed_manifest_is_refused() -> None:
    cipher = PageCipher(KEY, b"model")
    raw = bytearray(build_image(quantise(checkpoint()), cipher).data.tobytes())
    length, tag = parse_header(bytes(raw), limit=1 << 20)
    manifest = bytes(raw[HEADER_BYTES : HEADER_BYTES + length])
    with pytest.raises(BadImage, match="not made for this phone"):
        parse_manifest(manifest, tag, PageCipher(device_key(2), b"model"))
    with pytest.raises(BadImage, match="was changed"):
        parse_manifest(bytes([manifest[0] ^ 1]) + manifest[1:], tag, cipher)
    with pytest.raises(BadImage, match="can't be parsed"):
        parse_manifest(b"{", b"", None)
    with pytest.raises(BadImage, match="no model image"):
        parse_header(bytes(HEADER_BYTES), limit=1 << 20)
    with pytest.raises(BadImage, match="no model image"):
        parse_header(bytes(raw[:HEADER_BYTES]), limit=16)


def test_counts_of_swap_slots_only_ever_rise_and_are_kept_in_sealed_memory() -> None:
    async def program(phone: Phone) -> None:
        vault: Vault = phone.vault
        seen: dict[int, int] = {}
        for round_ in range(3):
            records = [await vault.claim(100 + i) for i in range(5)]
            for record in records:
                assert record.count > seen.get(record.slot, 0)
                assert await vault.record(record.slot) == record
                seen[record.slot] = record.count
                vault.free(record.slot)
            assert len({record.slot for record in records}) == 5, round_
        at = (phone.plan.layout.sealed.first + 1) * PAGE_BYTES - phone.machine.dram.base
        assert np.any(phone.machine.dram.bytes[at : at + 32])
        assert await vault.key(0) == device_key(1)

    on_phone(program)


def test_a_full_vault_says_so() -> None:
    async def program(phone: Phone) -> None:
        for _ in range(phone.vault.slots):
            await phone.vault.claim(0)
        with pytest.raises(VaultFull, match="are in use"):
            await phone.vault.claim(0)
        with pytest.raises(ValueError, match="Swap slot must be"):
            await phone.vault.record(phone.vault.slots)

    on_phone(program)
