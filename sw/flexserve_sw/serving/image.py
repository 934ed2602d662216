"""A model in flash.

A header, a manifest, and pages, encrypted and authenticated unless the design has no protection.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..llm.image import QuantModel, Segment, Tensor, TensorKind
from ..machine import PAGE_BYTES
from .crypto import TAG_BYTES, PageCipher, TamperedPage

__all__ = ["HEADER_BYTES", "BadImage", "FlashImage", "StoredSegment", "build_image", "parse_header", "parse_manifest"]

_MAGIC = b"FLEXLM01"
_HEADER = struct.Struct("<8sII16s")
HEADER_BYTES = PAGE_BYTES
_MANIFEST_PAGE = 0xFFFF_FFFF


class BadImage(Exception):
    """What lies in flash is no model image, or not one made for this phone."""


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


def build_image(model: QuantModel, cipher: PageCipher | None) -> FlashImage:
    """Lay a model out for flash: what its provider does. Without a cipher everything is in the clear."""
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
    tag = bytes(TAG_BYTES)
    if cipher:
        manifest, tag = cipher.seal(_MANIFEST_PAGE, 0, manifest)
    header = _HEADER.pack(_MAGIC, len(manifest), number, tag)
    data = header + bytes(HEADER_BYTES - len(header)) + manifest + bytes(body)
    return FlashImage(data=np.frombuffer(data, np.uint8))


def parse_header(raw: bytes, *, limit: int) -> tuple[int, bytes]:
    """Length and tag of the manifest. ``limit`` bounds what a forged header can make the reader ask for."""
    magic, length, _, tag = _HEADER.unpack_from(raw)
    if magic != _MAGIC or length == 0 or length % PAGE_BYTES or length > limit:
        raise BadImage("Flash holds no model image")
    return length, tag


def parse_manifest(raw: bytes, tag: bytes, cipher: PageCipher | None) -> tuple[StoredSegment, ...]:
    """Segments of the image; raises :class:`BadImage` if the manifest was not made with this key."""
    try:
        content = json.loads(cipher.open(_MANIFEST_PAGE, 0, raw, tag) if cipher else raw)
    except TamperedPage as error:
        raise BadImage("The manifest in flash was not made for this phone, or was changed") from error
    except ValueError as error:
        raise BadImage("The manifest in flash can't be parsed") from error
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
