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
        self.done, self.note, self._made = 0, "", 0
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
                TextColumn("{task.fields[rate]}"),
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
            self._task = self._bar.add_task(self.description, total=self.total, note="", rate="")
        return self

    def advance(self, n: int = 1, *, note: str | None = None, made: int | None = None) -> None:
        """Count ``n`` more as done.

        Args:
            n: how many.
            note: shown behind the bar.
            made: how many of them took work now, by which the rate and the time left go; by default all. What
                an earlier run has left behind takes none.
        """
        self.done += n
        self._made += n if made is None else made
        self.note = self.note if note is None else note
        if self._bar is not None:
            self._bar.update(self._task, advance=n, note=self.note, rate=self._rate())
        elif time.monotonic() - self._last > SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            log.info(self._line())

    def _per_second(self) -> float:
        """Return how many are made in a second; zero before the first."""
        return self._made / max(time.monotonic() - self._start, 1e-9)

    def _rate(self) -> str:
        """Return :meth:`_per_second` in words; of shares of the whole the time left says it."""
        return f"{self._per_second():.3g} {self.unit or 'steps'}/s" if self._made and self.unit != "%" else ""

    def _line(self) -> str:
        count = f"{self.done}/{self.total} {self.unit}".rstrip()
        seconds = f"{time.monotonic() - self._start:.0f} s" + (f" ({rate})" if (rate := self._rate()) else "")
        parts = [count, seconds]
        if to_do := self.total - self.done:
            # Before anything was made nobody knows.
            parts += [f"about {to_do / self._per_second():.0f} s left"] if self._made else []
        else:
            parts.append("about 0 s left")
        return f"{self.description}: {', '.join(filter(None, [*parts, self.note]))}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            log.info(self._line())
