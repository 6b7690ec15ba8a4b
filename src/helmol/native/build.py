"""Compile and load the C kernels.

The library is compiled once per machine type (about five seconds) into the user's cache folder. Set
``HELMOL_NATIVE=0`` to do without.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
SOURCES = ("kernels.c", "kernels.h")

log = logging.getLogger("helmol.native")


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled kernels, building them at the first call; ``None`` if that cannot be done."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if os.environ.get("HELMOL_NATIVE", "1") == "0" or compiler is None:
        return None
    here = Path(__file__).parent
    digest = hashlib.sha256("".join(FLAGS).encode() + _processor().encode())
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "helmol"
    path = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / path.name
                command = [compiler, *FLAGS, str(here / SOURCES[0]), "-o", str(built)]
                subprocess.run(command, check=True, capture_output=True, timeout=120)
                built.replace(path)
            log.debug("compiled %s", path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("no native kernels: %s", error)
        return None


def _processor() -> str:
    """Return what the machine code depends on: the processor's type and features."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "".join(
            sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
        )
    except OSError:
        return platform.processor() + platform.machine()
