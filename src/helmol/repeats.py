"""A thousand equal warnings are one line and a count."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

ALIKE = 3
"""Warnings that differ in their numbers and names only are shown so often."""


_NUMBER_OR_NAME = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d[\w.+-]*")


class Repeats(logging.Filter):
    """Let every warning through once, and few that are alike; count those that are held back.

    Use as a filter of a handler, and write :meth:`summary` at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()
        self._alike: Counter[str] = Counter()
        self._held: dict[str, tuple[str, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be shown; what is no warning, or not helmol's, always is."""
        if record.levelno < logging.WARNING or record.name.partition(".")[0] != "helmol":
            return True
        text = record.getMessage()
        kind = _NUMBER_OR_NAME.sub("…", text)
        if text not in self._seen:
            self._seen.add(text)
            self._alike[kind] += 1
            if self._alike[kind] <= ALIKE:
                return True
        first, count = self._held.get(kind, (text, 0))
        self._held[kind] = (first, count + 1)
        return False

    def summary(self) -> list[str]:
        """Return one line for every kind of warning that was held back, and start counting anew."""
        lines = [f"{count:,} more warnings like: {text}" for text, count in self._held.values()]
        self._held.clear()
        return lines


@contextmanager
def filtered(handler: logging.Handler) -> Iterator[None]:
    """Hold repeated warnings back from a handler, and give it the counts at the end."""
    repeats = Repeats()
    handler.addFilter(repeats)
    try:
        yield
    finally:
        handler.removeFilter(repeats)
        for line in repeats.summary():
            handler.handle(logging.LogRecord("helmol", logging.WARNING, __file__, 0, line, (), None))


@contextmanager
def in_one_call() -> Iterator[None]:
    """Hold repeated warnings back while one function works on many molecules; also a decorator.

    Handlers are the ones that get helmol's warnings: the program's own, else Python's to standard error.
    """
    with ExitStack() as stack:
        for handler in _handlers():
            # Whoever holds warnings back already counts these too.
            if not any(isinstance(known, Repeats) for known in handler.filters):
                stack.enter_context(filtered(handler))
        yield


def _handlers() -> list[logging.Handler]:
    """Return the handlers that get what helmol logs."""
    logger: logging.Logger | None = logging.getLogger("helmol")
    found: list[logging.Handler] = []
    while logger is not None:
        found += logger.handlers
        logger = logger.parent if logger.propagate else None
    return found or ([logging.lastResort] if logging.lastResort else [])


class _Collector(logging.Handler):
    """Keep the texts of warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a record."""
        self.texts.append(record.getMessage())


@contextmanager
def collected() -> Iterator[list[str]]:
    """Yield a list to which helmol's warnings go while the block runs, and nowhere else.

    For a process that works for another one, which will log them.
    """
    root, collector = logging.getLogger("helmol"), _Collector()
    handlers, propagates = root.handlers[:], root.propagate
    root.handlers[:], root.propagate = [collector], False
    try:
        yield collector.texts
    finally:
        root.handlers[:], root.propagate = handlers, propagates
