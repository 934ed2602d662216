"""Output files that appear whole or not at all.

A run takes minutes, so each output is proved writable before it starts and takes its final name only when complete.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flexserve_sw.errors import UserError

__all__ = ["PendingFile", "directory", "pending"]


class PendingFile:
    """A file under a temporary name beside its final one.

    Parameters
    ----------
    path
        Final name. Its folder must exist.

    Raises :class:`UserError` if the final name cannot be written.
    """

    def __init__(self, *, path: Path) -> None:
        self.path = path
        if path.is_dir():
            raise UserError(f"Cannot write {path}: it is a folder; name a file.")
        if path.exists() and not path.is_file():
            raise UserError(f"Cannot write {path}: it is not a regular file; name another.")
        if path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"Cannot write {path}: it is write-protected; name another file or change its permissions.")
        self.temporary = path.with_name(f".{secrets.token_hex(4)}-{path.name}")
        try:
            os.close(os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise UserError(f"Cannot write {path}: {_reason(error)}; name a file in a writable folder.") from None

    def write(self, content: str | bytes) -> None:
        """Replace the content under the temporary name."""
        try:
            self.temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            raise UserError(f"Cannot write {self.path}: {_reason(error)}; make room or name another file.") from None

    def write_json(self, content: Any) -> None:
        """Like :meth:`write`, as indented JSON."""
        self.write(json.dumps(content, indent=2, allow_nan=False) + "\n")

    def commit(self) -> None:
        """Give the file its final name."""
        try:
            os.replace(self.temporary, self.path)
        except OSError as error:
            raise UserError(f"Cannot write {self.path}: {_reason(error)}; name another file.") from None

    def discard(self) -> None:
        """Remove what is there under the temporary name, if anything."""
        self.temporary.unlink(missing_ok=True)


@contextmanager
def pending(*paths: Path | None) -> Iterator[list[PendingFile | None]]:
    """Reserve all ``paths`` (None stays None), and give all of them their final names only if the body succeeds."""
    files: list[PendingFile | None] = []
    places = [path.resolve() for path in paths if path is not None]
    for path in paths:
        if path is not None and places.count(path.resolve()) > 1:
            raise UserError(f"Two outputs are to be written to {path}: give each a file of its own.")
    try:
        for path in paths:
            files.append(None if path is None else PendingFile(path=path))
        yield files
        for file in files:
            if file is not None:
                file.commit()
    finally:
        for file in files:
            if file is not None:
                file.discard()


def directory(path: Path) -> Path:
    """Make ``path`` a folder that can be written to, and return it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        PendingFile(path=path / "probe").discard()
    except OSError as error:
        raise UserError(f"Cannot write into {path}: {_reason(error)}; name another folder.") from None
    return path


def _reason(error: OSError) -> str:
    return (error.strerror or "the system refused").lower()
