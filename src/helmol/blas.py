"""Give PySCF's own OpenBLAS kernels that fit the processor.

PySCF's wheel brings an OpenBLAS of 2018 (0.3.3). On processors that are younger it falls back to kernels
of 2007, which use a quarter of the width of today's registers; those called Haswell run on every processor
with AVX2. NumPy and SciPy bring libraries of their own, which choose well and are left alone.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
"""What OpenBLAS reads once, when it is loaded."""

WITH_AVX2 = "Haswell"
"""Kernels that every x86-64 processor with AVX2 and FMA can run."""

WITHOUT_AVX2 = frozenset(
    "katmai coppermine northwood prescott banias core2 penryn dunnington nehalem sandybridge atom nano "
    "athlon opteron opteron_sse3 barcelona bobcat bulldozer piledriver steamroller".split()
)
"""OpenBLAS' names of kernels for x86 processors without AVX2, in lower case."""

CORENAMES = (
    "openblas_get_corename",
    "openblas_get_corename64_",
    "scipy_openblas_get_corename",
    "scipy_openblas_get_corename64_",
)
"""The function that tells the kernels in use, as the builds in circulation call it."""

CPUINFO, MAPS = Path("/proc/cpuinfo"), Path("/proc/self/maps")


@dataclass(frozen=True)
class Kernels:
    """Hold the kernels of PySCF's OpenBLAS.

    Attributes:
        alone: those that it chose by itself, ``None`` if that is not known.
        now: those in use, ``None`` if that is not known.
    """

    alone: str | None
    now: str | None


@functools.cache
def load_pyscf_blas() -> Kernels:
    """Load the OpenBLAS that PySCF will use, with kernels that fit; nothing happens where they do already.

    It is loaded once to see what it chooses. Kernels without AVX2 on a processor with AVX2 are refused: the
    library is unloaded and loaded again with ``OPENBLAS_CORETYPE=Haswell``, which is then taken back, so that
    no other library and no other process sees it. A user's ``OPENBLAS_CORETYPE`` is never touched, and
    libraries of a PySCF that is loaded already cannot be exchanged.
    """
    library = _library()
    if library is None or "pyscf" in sys.modules:
        return Kernels(None, None)
    # NumPy's and SciPy's OpenBLAS choose for themselves, before the variable is set.
    import scipy.linalg  # noqa: F401

    try:
        handle = ctypes.CDLL(str(library))
    except OSError:
        return Kernels(None, None)
    alone = _corename(handle)
    wanted = better(alone, environment=os.environ, flags=processor_flags())
    if wanted is None:
        return Kernels(alone, alone)
    import _ctypes

    _ctypes.dlclose(handle._handle)
    os.environ[VARIABLE] = wanted
    try:
        return Kernels(alone, _corename(ctypes.CDLL(str(library))))
    finally:
        del os.environ[VARIABLE]


def better(corename: str | None, *, environment: Mapping[str, str], flags: frozenset[str]) -> str | None:
    """Return the kernels that OpenBLAS should use instead of those it chose, ``None`` to leave them.

    Args:
        corename: what it chose; ``None`` for another library.
        environment: of this process; a user's choice stands.
        flags: of the processor.
    """
    if corename is None or corename.lower() not in WITHOUT_AVX2 or VARIABLE in environment:
        return None
    return WITH_AVX2 if {"avx2", "fma"} <= flags else None


def processor_flags() -> frozenset[str]:
    """Return what an x86-64 processor can do, in Linux's words; nothing elsewhere."""
    if platform.machine() != "x86_64" or not CPUINFO.is_file():
        return frozenset()
    lines = (
        line.partition(":") for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    )
    return next((frozenset(value.split()) for key, _, value in lines if key.strip() == "flags"), frozenset())


def kernels_in_use() -> dict[str, str]:
    """Return the kernels of every OpenBLAS that this process has loaded, by the name of its package."""
    if not MAPS.is_file():
        return {}
    paths = {
        line.split(maxsplit=5)[5]
        for line in MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
        if "openblas" in line
    }
    found = {}
    for path in sorted(Path(text) for text in paths):
        if (name := _corename(ctypes.CDLL(str(path)))) is not None:
            package = path.parent.parent.name if path.parent.name == "lib" else path.parent.name
            found[package.removesuffix(".libs")] = name
    return found


def _library() -> Path | None:
    """Return the first of PySCF's libraries that needs BLAS, ``None`` without PySCF."""
    spec = importlib.util.find_spec("pyscf")
    folders = spec.submodule_search_locations or [] if spec is not None else []
    paths = (Path(folder) / "lib" / "libnp_helper.so" for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _corename(library: ctypes.CDLL) -> str | None:
    """Return the kernels that a library, or an OpenBLAS that it needs, uses; ``None`` if it is none."""
    for symbol in CORENAMES:
        if hasattr(library, symbol):
            function = getattr(library, symbol)
            function.restype = ctypes.c_char_p
            name: bytes | None = function()
            return name.decode() if name else None
    return None
