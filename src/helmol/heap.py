"""Let the C library keep memory that is freed, for programs that work on one thing after another.

Large arrays are mapped anew by default, and every page of them is filled with zeros by the kernel: a seventh
of the time of a prediction of 33 atoms.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of these settings. Source: ``malloc.h`` of the GNU C library."""
LARGEST, LARGEST_OF_OLD = 1 << 30, 1 << 25
"""Arrays up to this size are kept, bytes; before version 2.35 the library takes no more than the second."""


def keep_freed_memory() -> bool:
    """Keep memory for the next array instead of giving it back; for the whole process, until its end.

    What a process has in memory stays what it had at most. That is for a program to decide, not for a
    library: the command line does.

    Returns:
        Whether the C library can: the GNU one.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    taken = bool(mallopt(MMAP_THRESHOLD, LARGEST)) or bool(mallopt(MMAP_THRESHOLD, LARGEST_OF_OLD))
    return taken and bool(mallopt(TRIM_THRESHOLD, (1 << 31) - 1))
