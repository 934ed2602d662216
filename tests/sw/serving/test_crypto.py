"""Encryption of pages, model images, and what the vault proves."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flexserve_sw.designs.phone import Phone
from flexserve_sw.llm import quantise
from flexserve_sw.machine import PAGE_BYTES
from flexserve_sw.serving import crypto
from flexserve_sw.serving.crypto import PageCipher, TamperedPage, derive_key, device_key
from flexserve_sw.serving.image import HEADER_BYTES, BadImage, Header, build_image, parse_manifest
from flexserve_sw.serving.vault import Vault, VaultFull
from tests.sw.llm.tiny import checkpoint
from tests.sw.phone_bench import on_phone, serve_fast

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
    device = KEY if protected else None
    raw = build_image(model, device).data.tobytes()
    header = Header.parse(raw[:HEADER_BYTES], limit=1 << 20)
    cipher = header.page_cipher(KEY) if protected else None
    segments = parse_manifest(raw[HEADER_BYTES : HEADER_BYTES + header.length], header, device)
    assert [segment.name for segment in segments] == [segment.name for segment in model.segments]
    for stored, segment in zip(segments, model.segments, strict=True):
        body = raw[stored.offset : stored.offset + stored.pages * PAGE_BYTES]
        pages = [body[i : i + PAGE_BYTES] for i in range(0, len(body), PAGE_BYTES)]
        if cipher is not None:
            assert segment.payload[:64] not in raw
            pages = [cipher.open(stored.first + i, 0, p, stored.tags[i]) for i, p in enumerate(pages)]
        assert b"".join(pages)[: len(segment.payload)] == segment.payload
        assert stored.tensors == segment.tensors


def test_an_image_for_another_phone_or_with_a_changed_header_or_manifest_is_refused() -> None:
    raw = bytearray(build_image(quantise(checkpoint()), KEY).data.tobytes())
    header = Header.parse(bytes(raw), limit=1 << 20)
    assert header.pack() == raw[:HEADER_BYTES]
    manifest = bytes(raw[HEADER_BYTES : HEADER_BYTES + header.length])
    with pytest.raises(BadImage, match="not made for this phone"):
        parse_manifest(manifest, header, device_key(2))
    with pytest.raises(BadImage, match="was changed"):
        parse_manifest(bytes([manifest[0] ^ 1]) + manifest[1:], header, KEY)
    other = bytes([header.identifier[0] ^ 1]) + header.identifier[1:]
    for forged in (
        replace(header, pages=header.pages + 1),
        replace(header, identifier=other),
        replace(header, length=header.length + PAGE_BYTES),
        replace(header, tag=bytes(16)),
    ):
        with pytest.raises(BadImage, match="was changed"):
            parse_manifest(manifest, forged, KEY)
    with pytest.raises(BadImage, match="can't be parsed"):
        parse_manifest(b"{", header, None)
    with pytest.raises(BadImage, match="don't match"):
        parse_manifest(b'{"segments": []}', header, None)
    with pytest.raises(BadImage, match="no model image"):
        Header.parse(bytes(HEADER_BYTES), limit=1 << 20)
    with pytest.raises(BadImage, match="no model image"):
        Header.parse(bytes(raw[:HEADER_BYTES]), limit=16)


def test_no_two_texts_are_ever_sealed_under_one_key_and_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that any cipher seals while images are built and two boots swap pages out."""
    sealed: dict[tuple[bytes, bytes], bytes] = {}
    keys: set[bytes] = set()

    class Recorder:
        def __init__(self, key: bytes) -> None:
            self.key = key
            keys.add(key)

        def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
            assert sealed.setdefault((self.key, nonce), data) == data
            return AESGCM(self.key).encrypt(nonce, data, associated_data)

        def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
            return AESGCM(self.key).decrypt(nonce, data, associated_data)

    monkeypatch.setattr(crypto, "AESGCM", Recorder)
    model = quantise(checkpoint())
    first, *others = model.segments
    changed = replace(first, payload=bytes([first.payload[0] ^ 1]) + first.payload[1:])
    renamed = replace(first, name="other")
    models = [model, quantise(checkpoint(), array=8)]
    models += [replace(model, segments=(segment, *others)) for segment in (changed, renamed)]
    for model in models:
        build_image(model, KEY)
    assert len(keys) == len(models)
    build_image(models[0], KEY)
    assert len(keys) == len(models)
    before = len(keys)
    for _ in range(2):
        assert serve_fast(pressure=9, pressure_at=3, recall_by="size")["pages_moved"]["swapped_out"] > 0
    # The model of these runs, and a key for swapped-out pages in each of them.
    assert len(keys) - before in (2, 3)
    assert KEY not in keys


def test_keys_for_different_purposes_or_images_differ() -> None:
    keys = {
        derive_key(key, purpose, salt)
        for key in (KEY, device_key(2))
        for purpose in (b"a", b"b")
        for salt in (b"", b"x")
    }
    assert len(keys) == 8
    with pytest.raises(ValueError, match="must have 32 bytes"):
        derive_key(b"short", b"a", b"")


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
