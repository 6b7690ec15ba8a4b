"""Build and call the C kernels; without a compiler nothing here is used.

The library is compiled once per machine type (about five seconds) into the user's cache folder. Set
``HELMOL_NATIVE=0`` to do without. Every kernel has a torch twin in :mod:`helmol.graph.pairs`.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

LARGEST_L = 8
"""Largest degree the kernels are written out for."""
PAIRS_PER_THREAD = 32
"""With fewer pairs a thread costs more than it gives."""
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
SOURCES = ("native_kernels.c", "native_kernels.h")

log = logging.getLogger("helmol.graph")


def usable(tensor: Tensor, lmax: int) -> bool:
    """Return whether the kernels can work on tensors of this kind."""
    fits = tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
    return fits and lmax <= LARGEST_L and library() is not None


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


def function(name: str, dtype: torch.dtype) -> Callable[..., None]:
    """Return a kernel for one precision."""
    return getattr(library(), f"{name}_{'f32' if dtype == torch.float32 else 'f64'}")  # type: ignore[no-any-return]


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    """Return the address of a dense tensor."""
    if not tensor.is_contiguous():
        raise ValueError("native kernels work on dense tensors")
    return ctypes.c_void_p(tensor.data_ptr())


def over_pairs(n_pairs: int, work: Callable[[int, int, int], None]) -> None:
    """Call ``work(begin, end, part)`` for parts of the pairs, in as many threads as torch may use."""
    parts = n_parts(n_pairs)
    bounds = [n_pairs * k // parts for k in range(parts + 1)]
    if parts == 1:
        work(0, n_pairs, 0)
        return
    list(_threads(parts).map(work, bounds[:-1], bounds[1:], range(parts)))


def n_parts(n_pairs: int) -> int:
    """Return into how many parts :func:`over_pairs` divides."""
    return max(1, min(torch.get_num_threads(), n_pairs // PAIRS_PER_THREAD))


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    """Return a pool; C code runs without Python's lock."""
    return ThreadPoolExecutor(n)
