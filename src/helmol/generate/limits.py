"""Limits of time and memory on one molecule, which hold inside a library that does not listen, too."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from helmol.errors import ConvergenceError

MORE_TO_STOP = 30.0
"""Seconds after its time, or as long again if that is less, in which a molecule can still end by itself; then
its process ends."""

LIBRARIES_MB = 700
"""What a worker takes before any molecule: Python, NumPy, PySCF."""


class TimeIsUp(ConvergenceError):
    """Say that a molecule has had its time."""


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Let a block take so much wall time.

    At its end the block is interrupted, as by Ctrl-C. A library that hangs in its own code does not hear of
    that: a little later (:data:`MORE_TO_STOP`) the whole process ends. Only in the main thread of a process;
    elsewhere nothing is limited.

    Args:
        seconds: the time; ``None``: as long as it takes.

    Raises:
        TimeIsUp: the time is up.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise TimeIsUp(f"took longer than {seconds / 60:g} minutes (minutes_per_molecule)")

    before = signal.signal(signal.SIGALRM, interrupt)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        end = seconds + min(seconds, MORE_TO_STOP)
        faulthandler.dump_traceback_later(end, exit=True, file=nowhere)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGALRM, before)


def limit_memory(mb: float | None) -> None:
    """Let this process hold no more than its share, and what its libraries take.

    What asks for more gets a ``MemoryError``, or is a library that does not check and takes the process with
    it: in both cases one molecule fails, not the machine.
    """
    if mb is None:
        return
    try:
        import resource
    except ImportError:
        return
    most = int((mb + LIBRARIES_MB) * 1e6)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or most <= hard:
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
