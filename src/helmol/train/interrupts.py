"""Signals that wait for the end of a step, so that a checkpoint never holds half of one."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("helmol.train")

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what ends a job, and what schedulers send before."""


@contextmanager
def deferred_stop() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the signal that asked to stop, 0 if none did.

    A second Ctrl-C interrupts at once. Outside the main thread signals cannot be caught and the function
    always returns 0.
    """
    asked = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not asked and number == signal.SIGINT:
            log.info("stopping after this step (Ctrl-C again: at once, without a checkpoint)")
        asked = asked or number

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, handle) for number in STOPS}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
