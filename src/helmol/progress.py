"""Show how far something long has come: a rich bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType

SECONDS_BETWEEN_LINES = 5.0

log = logging.getLogger("helmol.progress")


class Progress:
    """Count up to ``total`` and tell the user, with an estimate of the time left.

    Use as a context manager::

        with Progress("Labels", total=250, unit="molecules") as bar:
            bar.advance(note="2 failed")
    """

    def __init__(self, description: str, *, total: int, unit: str = "") -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done, self.note = 0, ""
        self._bar = None
        if sys.stderr.isatty():
            # rich takes 0.1 s to import; --help must not pay for it.
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Progress:
        self._start = self._last = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, note="")
        return self

    def advance(self, n: int = 1, *, note: str | None = None) -> None:
        """Count ``n`` more as done; ``note`` is shown behind the bar."""
        self.done += n
        self.note = self.note if note is None else note
        if self._bar is not None:
            self._bar.update(self._task, advance=n, note=self.note)
        elif time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            log.info(self._line())

    def _line(self) -> str:
        elapsed = time.monotonic() - self._start
        left = elapsed / max(self.done, 1) * (self.total - self.done)
        unit = f" {self.unit}" if self.unit else ""
        note = f", {self.note}" if self.note else ""
        count = f"{self.done}/{self.total}{unit}"
        return f"{self.description}: {count}, {elapsed:.0f} s, about {left:.0f} s left{note}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            log.info(self._line())
