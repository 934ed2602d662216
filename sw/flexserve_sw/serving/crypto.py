"""AES-256-GCM over pages: confidentiality, integrity, and which page of which object it is."""

from __future__ import annotations

import hashlib
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["KEY_BYTES", "TAG_BYTES", "PageCipher", "TamperedPage", "derive_key", "device_key"]

KEY_BYTES = 32
TAG_BYTES = 16
_NONCE = struct.Struct("<IQ")


class TamperedPage(Exception):
    """Ciphertext that fails its check: changed, swapped with another page, or out of date."""


def device_key(seed: int) -> bytes:
    """The key that is fused into the simulated phone of this seed, and that its model provider encrypts for.

    Nothing is sealed under it; keys are derived from it.
    """
    return hashlib.sha256(b"flexserve device key" + seed.to_bytes(8, "little")).digest()


def derive_key(key: bytes, purpose: bytes, salt: bytes) -> bytes:
    """A key for one ``purpose`` and one ``salt`` (HKDF-SHA256): differs from those for any other, and tells nothing."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"A key must have {KEY_BYTES} bytes, not {len(key)!r}")
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=purpose).derive(key)


class PageCipher:
    """Seals and opens pages under one key.

    The nonce is ``(number, count)``: a page number and how often that page was sealed under this key. No pair may be
    used for two texts, which is why every image has a key of its own, and so has the swap area of every boot: image
    pages are sealed once (count 0, the manifest under a number that no page has), and the count of a swap slot only
    rises. ``domain`` is authenticated with every text; it does not make nonces of one key distinct.
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
