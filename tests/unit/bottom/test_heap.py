"""Memory that is freed is kept: the kernel is asked for its pages once."""

import platform
import subprocess
import sys

import pytest

from helmol import heap
from helmol.heap import keep_freed_memory

SCRIPT = """
import resource, sys
import numpy as np
from helmol.heap import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(8_000_000)
before = faults()
for _ in range(20):
    np.ones(8_000_000)
print(faults() - before)
"""


NAME, VERSION = platform.libc_ver()


@pytest.mark.skipif(
    NAME != "glibc" or tuple(map(int, VERSION.split(".")[:2])) < (2, 35), reason="needs glibc 2.35"
)
def test_pages_are_not_asked_for_again():
    pages = {}
    for how in ("keep", "leave"):
        # In a process of its own: it holds until the end.
        answer = subprocess.run(
            [sys.executable, "-c", SCRIPT, how], capture_output=True, text=True, check=True
        )
        pages[how] = int(answer.stdout)
    # Twenty arrays of 64 MB, in pages of 4 kB or, where the kernel likes, of 2 MB.
    assert 10 * pages["keep"] < pages["leave"]
    assert pages["leave"] > 20 * 32 / 2


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
