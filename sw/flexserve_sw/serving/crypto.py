"""AES-256-GCM over pages: confidentiality, integrity, and which page of which object it is."""

from __future__ import annotations

import hashlib
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["KEY_BYTES", "TAG_BYTES", "PageCipher", "TamperedPage", "device_key"]

KEY_BYTES = 32
TAG_BYTES = 16
_NONCE = struct.Struct("<IQ")


class TamperedPage(Exception):
    """Ciphertext that fails its check: changed, swapped with another page, or out of date."""


def device_key(seed: int) -> bytes:
    """The key that is fused into the simulated phone of this seed, and that its model provider encrypted for."""
    return hashlib.sha256(b"flexserve device key" + seed.to_bytes(8, "little")).digest()


class PageCipher:
    """Seals and opens pages of one domain.

    The nonce is ``(number, count)``: a page number and how often that page was sealed under this key. The same pair is
    never used for two different texts. ``domain`` separates uses of the same kind of key.
    """

    def __init__(self, key: bytes, domain: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"A key must have {KEY_BYTES} bytes, not {len(key)!r}")
        self._cipher = AESGCM(key)
        self._domain = domain

    def seal(self, number: int, count: int, text: bytes) -> tuple[bytes, bytes]:
        """Encrypt; return ciphertext of the same length, and tag."""
        sealed = self._cipher.encrypt(_NONCE.pack(number, count), text, self._domain)
        return sealed[:-TAG_BYTES], sealed[-TAG_BYTES:]

    def open(self, number: int, count: int, ciphertext: bytes, tag: bytes) -> bytes:
        """Check and decrypt; raises :class:`TamperedPage`."""
        try:
            return self._cipher.decrypt(_NONCE.pack(number, count), ciphertext + tag, self._domain)
        except InvalidTag:
            raise TamperedPage(f"Page {number}, version {count}, does not match its tag") from None
