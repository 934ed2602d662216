"""Messages from a session's process to whoever started it: JSON lines on the descriptor in ``FLEXSERVE_MESSAGES``."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from flexserve_sw.errors import UserError

__all__ = ["Channel", "open_channel", "read_order"]


class Channel:
    """Messages to the session, one JSON object per line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def send(self, kind: str, cycle: int, body: Any) -> None:
        """Send a line now: whoever reads shows it while the simulation runs."""
        line = {"type": kind, "cycle": cycle, "time": time.time(), "cpu": time.process_time(), "body": body}
        self._stream.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._stream.flush()

    def fail(self, cycle: int, error: Exception) -> None:
        """Say that the job has raised ``error``, which is being handled."""
        kind = "user" if isinstance(error, UserError) else "job"
        self.send("error", cycle, {"kind": kind, "message": str(error), "traceback": traceback.format_exc()})


@contextmanager
def open_channel() -> Iterator[Channel]:
    """The channel of this process, closed at the end."""
    with os.fdopen(int(os.environ["FLEXSERVE_MESSAGES"]), "w") as stream:
        yield Channel(stream)


def read_order() -> dict[str, Any]:
    """What this process is to do: the file that ``FLEXSERVE_SESSION`` names."""
    return cast(dict[str, Any], json.loads(Path(os.environ["FLEXSERVE_SESSION"]).read_text()))
