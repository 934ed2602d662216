"""A model in flash.

A header, a manifest, and pages, encrypted and authenticated unless the design has no protection. The header carries the
image's identifier, from which its key is derived; it is authenticated with the manifest.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..llm.image import QuantModel, Segment, Tensor, TensorKind
from ..machine import PAGE_BYTES
from .crypto import TAG_BYTES, PageCipher, TamperedPage, derive_key

__all__ = ["HEADER_BYTES", "BadImage", "FlashImage", "Header", "StoredSegment", "build_image", "parse_manifest"]

_MAGIC = b"FLEXLM02"
_HEADER = struct.Struct("<8sII32s16s")
HEADER_BYTES = PAGE_BYTES
_MANIFEST_PAGE = 0xFFFF_FFFF
_IMAGE_KEY, _IDENTIFIER_KEY = b"flexserve image", b"flexserve image identifier"
_PAGE_DOMAIN, _MANIFEST_DOMAIN = b"flexserve page", b"flexserve manifest"


class BadImage(Exception):
    """What lies in flash is no model image, or not one made for this phone."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """First page of an image: bytes of manifest, pages of body, and the tag of the manifest, which covers them all."""

    length: int
    pages: int
    identifier: bytes
    tag: bytes

    @classmethod
    def parse(cls, raw: bytes, *, limit: int) -> Header:
        """Read a header. ``limit`` bounds what a forged one can make the reader ask for. Raises :class:`BadImage`."""
        magic, length, pages, identifier, tag = _HEADER.unpack_from(raw)
        if magic != _MAGIC or length == 0 or length % PAGE_BYTES or length > limit:
            raise BadImage("Flash holds no model image")
        return cls(length=length, pages=pages, identifier=identifier, tag=tag)

    def pack(self) -> bytes:
        """A page."""
        return _HEADER.pack(_MAGIC, self.length, self.pages, self.identifier, self.tag).ljust(HEADER_BYTES, b"\0")

    def page_cipher(self, device: bytes) -> PageCipher:
        """Cipher of this image's pages on the phone that has this device key."""
        return PageCipher(derive_key(device, _IMAGE_KEY, self.identifier), _PAGE_DOMAIN)

    def manifest_cipher(self, device: bytes) -> PageCipher:
        """Cipher of the manifest, which opens only under the header that it was sealed with."""
        fields = _HEADER.pack(_MAGIC, self.length, self.pages, self.identifier, bytes(TAG_BYTES))
        return PageCipher(derive_key(device, _IMAGE_KEY, self.identifier), _MANIFEST_DOMAIN + fields)


@dataclass(frozen=True, kw_only=True)
class StoredSegment:
    """A segment in flash: ``pages`` pages from byte ``offset``, the first of them page ``first`` of the image.

    A tag each.
    """

    name: str
    first: int
    pages: int
    offset: int
    tags: tuple[bytes, ...]
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class FlashImage:
    """The bytes to put at offset 0 of flash, whole pages."""

    data: npt.NDArray[np.uint8]

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self.data.size)


def _pages(payload: bytes) -> list[bytes]:
    padded = payload + bytes(-len(payload) % PAGE_BYTES)
    return [padded[i : i + PAGE_BYTES] for i in range(0, len(padded), PAGE_BYTES)]


def _entry(segment: Segment, first: int, tags: list[bytes]) -> dict[str, Any]:
    tensors = [[t.name, t.kind.value, list(t.shape), t.offset, t.size] for t in segment.tensors]
    return {"name": segment.name, "first": first, "tags": [tag.hex() for tag in tags], "tensors": tensors}


def _identifier(model: QuantModel, device: bytes) -> bytes:
    """Names the content for those who have the device key: equal only for equal images, and no hint at what is inside.

    Every text that is sealed follows from what is hashed here, so a key never meets two texts with one nonce.
    """
    digest = hmac.new(derive_key(device, _IDENTIFIER_KEY, b""), digestmod=hashlib.sha256)
    directory = [[_entry(segment, 0, []), len(segment.payload)] for segment in model.segments]
    for part in (json.dumps([model.array, directory]).encode(), *(segment.payload for segment in model.segments)):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def build_image(model: QuantModel, device: bytes | None) -> FlashImage:
    """Lay a model out for the flash of the phone with this device key: what its provider does.

    Without a key everything is in the clear.
    """
    counts = [-(-len(segment.payload) // PAGE_BYTES) for segment in model.segments]
    identifier = bytes(32) if device is None else _identifier(model, device)
    header = Header(length=0, pages=sum(counts), identifier=identifier, tag=bytes(TAG_BYTES))
    cipher = None if device is None else header.page_cipher(device)
    body, entries = bytearray(), []
    number = 0
    for segment in model.segments:
        tags: list[bytes] = []
        for page in _pages(segment.payload):
            text, tag = cipher.seal(number + len(tags), 0, page) if cipher else (page, b"")
            body += text
            tags.append(tag)
        entries.append(_entry(segment, number, tags))
        number += len(tags)
    manifest = json.dumps({"array": model.array, "segments": entries}, separators=(",", ":")).encode()
    manifest += b" " * (-len(manifest) % PAGE_BYTES)
    header = replace(header, length=len(manifest))
    if device is not None:
        manifest, tag = header.manifest_cipher(device).seal(_MANIFEST_PAGE, 0, manifest)
        header = replace(header, tag=tag)
    return FlashImage(data=np.frombuffer(header.pack() + manifest + bytes(body), np.uint8))


def parse_manifest(raw: bytes, header: Header, device: bytes | None) -> tuple[StoredSegment, ...]:
    """Segments of the image.

    Raises :class:`BadImage` if header and manifest were not made for the phone with this device key, or don't match.
    """
    try:
        text = raw if device is None else header.manifest_cipher(device).open(_MANIFEST_PAGE, 0, raw, header.tag)
        content = json.loads(text)
    except TamperedPage as tampered:
        raise BadImage("The manifest in flash was not made for this phone, or was changed") from tampered
    except ValueError as error:
        raise BadImage("The manifest in flash can't be parsed") from error
    if sum(len(entry["tags"]) for entry in content["segments"]) != header.pages:
        raise BadImage("Header and manifest in flash don't match")
    body = HEADER_BYTES + len(raw)
    return tuple(
        StoredSegment(
            name=entry["name"],
            first=entry["first"],
            pages=len(entry["tags"]),
            offset=body + entry["first"] * PAGE_BYTES,
            tags=tuple(bytes.fromhex(tag) for tag in entry["tags"]),
            tensors=tuple(
                Tensor(name=name, kind=TensorKind(kind), shape=tuple(shape), offset=offset, size=size)
                for name, kind, shape, offset, size in entry["tensors"]
            ),
        )
        for entry in content["segments"]
    )
