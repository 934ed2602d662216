"""What a person sees while sessions run: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

__all__ = ["LiveView", "PlainView", "View", "view"]


class View(Protocol):
    """Watches sessions. Used as a context; an exception leaves the terminal in order."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note(self, text: str) -> None:
        """Say in a sentence what is going on before sessions run."""

    def step(self, session: str, done: int, total: int, what: str, cycle: int) -> None:
        """``session`` has done ``done`` of ``total`` steps and is busy with ``what``."""

    def token(self, text: str) -> None:
        """The answer grew by ``text``."""

    def answered(self) -> None:
        """The answer is complete."""

    def ended(self, session: str, cycles: int, seconds: float) -> None:
        """``session`` is over."""


class LiveView:
    """Answer and progress bars, redrawn in place."""

    def __init__(self, console: Console, *, prompt: str = "") -> None:
        self._answer = Text(prompt, style="dim")
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[what]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._console = console
        self._live = Live(Group(self._answer, self._progress), console=console, refresh_per_second=8)

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """Above the live part."""
        self._console.print(Text(text, style="dim"))

    def step(self, session: str, done: int, total: int, what: str, cycle: int) -> None:
        """Move the session's bar."""
        shown = f"{what}, cycle {cycle:,}"
        if session not in self._tasks:
            self._tasks[session] = self._progress.add_task(session, total=total, what=shown)
        self._progress.update(self._tasks[session], completed=done, total=total, what=shown)

    def token(self, text: str) -> None:
        """Lengthen the answer."""
        self._answer.append(text, style="default not dim")

    def answered(self) -> None:
        """Nothing to do: the answer stays where it is."""

    def ended(self, session: str, cycles: int, seconds: float) -> None:
        """Fill the session's bar."""
        if session in self._tasks:
            task = self._progress.tasks[self._progress.task_ids.index(self._tasks[session])]
            what = f"done: {cycles:,} cycles in {seconds:.1f} s"
            self._progress.update(task.id, completed=task.total, what=what)
            self._progress.stop_task(task.id)


class PlainView:
    """Tokens as they come on standard output, notes and ends of sessions as lines on standard error.

    Both may lead to the same file, so lines are held back while the answer is being written.
    """

    def __init__(self, *, prompt: str = "") -> None:
        self._prompt = prompt
        self._answering = False
        self._held: list[str] = []

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answered()

    def note(self, text: str) -> None:
        """As a line."""
        self._line(text)

    def step(self, session: str, done: int, total: int, what: str, cycle: int) -> None:
        """Nothing: lines cannot be redrawn."""

    def token(self, text: str) -> None:
        """At once, with the prompt before the first."""
        sys.stdout.write(text if self._answering else self._prompt + text)
        sys.stdout.flush()
        self._answering = True

    def answered(self) -> None:
        """End the answer's line, then the lines held back."""
        if self._answering:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._answering = False
        for text in self._held:
            self._line(text)
        self._held.clear()

    def ended(self, session: str, cycles: int, seconds: float) -> None:
        """As a line."""
        self._line(f"{session}: {cycles:,} cycles in {seconds:.1f} s")

    def _line(self, text: str) -> None:
        if self._answering:
            self._held.append(text)
        else:
            print(text, file=sys.stderr, flush=True)


def view(console: Console, *, prompt: str = "") -> View:
    """The live view on a terminal, else the plain one."""
    return LiveView(console, prompt=prompt) if console.is_terminal else PlainView(prompt=prompt)
