"""Compile and load the C kernels.

A library is compiled once per machine type (about five seconds) into the user's cache folder, or where
that cannot be written into a folder of the user's own among the temporary files. Its name holds the digest of
its content, so that a damaged one is not loaded but made anew. Set ``HELMOL_NATIVE=0`` to do without.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC")
SOURCES = {"kernels": ("kernels.c", "kernels.h"), "atoms": ("atoms.c",), "coulomb": ("coulomb.c",)}
"""Libraries and what they are made of, the file to compile first."""
INSTEAD = {"kernels": "torch operations do", "atoms": "NumPy and PySCF do", "coulomb": "PySCF does"}
"""Who does their work where they cannot be used."""

log = logging.getLogger("helmol.native")


HERE = Path(__file__).parent


@cache
def library(name: str = "kernels") -> ctypes.CDLL | None:
    """Return compiled kernels, building them at the first call; ``None`` if that cannot be done.

    Then something slower does the same work, and one warning says why.

    Args:
        name: of the library, one of ``SOURCES``.
    """
    if os.environ.get("HELMOL_NATIVE", "1") == "0":
        return None
    reasons = []
    for folder in _folders():
        try:
            return ctypes.CDLL(str(_compiled(name, folder)))
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(f"{folder}: {_line(error)}")
    log.warning(
        "the C kernels cannot be used (%s): %s their work, more slowly; HELMOL_NATIVE=0 "
        "asks for that without this warning",
        "; ".join(reasons),
        INSTEAD[name],
    )
    return None


def _folders() -> Iterator[Path]:
    """Yield where compiled kernels may lie: the user's cache, then a folder of the user's own."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):  # the standard says to ignore others, the empty one too
        yield Path(given) / "helmol"
    else:
        home = os.path.expanduser("~")
        if os.path.isabs(home):
            yield Path(home) / ".cache" / "helmol"
    yield Path(tempfile.gettempdir()) / f"helmol-{os.getuid()}"


def _compiled(name: str, folder: Path) -> Path:
    """Return a library in a folder, compiled now if there is none that is whole.

    Raises:
        OSError: the folder cannot be written or is not safe, or there is no compiler.
        subprocess.SubprocessError: the compiler fails.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_foreign(folder)
    source = _source_digest(name)
    for path in sorted(folder.glob(f"{name}-{source}-*.so")):
        if path.name == _name(name, source, path):
            return path
        log.info("%s is damaged and made anew", path)
        path.unlink()
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise OSError("there is no C compiler (cc, gcc)")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / f"{name}.so"
        command = [compiler, *FLAGS, str(HERE / SOURCES[name][0]), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        path = built.replace(folder / _name(name, source, built))
    log.debug("compiled %s", path)
    return path


def _refuse_foreign(folder: Path) -> None:
    """Raise OSError unless nobody else can have put a library into a folder: what is loaded is run."""
    status = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & others:
        raise OSError("the folder can be written by others")


def _source_digest(name: str) -> str:
    """Return the digest of what decides the library: sources, flags, processor."""
    digest = hashlib.sha256("".join(FLAGS).encode() + _processor().encode())
    for file in SOURCES[name]:
        digest.update((HERE / file).read_bytes())
    return digest.hexdigest()[:16]


def _name(name: str, source: str, path: Path) -> str:
    """Return what a library of this content is called."""
    return f"{name}-{source}-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.so"


def _line(error: Exception) -> str:
    """Return an error in one line, a compiler's with the first line of what it said."""
    said = getattr(error, "stderr", None)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    words = said.decode(errors="replace").strip().splitlines() if isinstance(said, bytes) else []
    return f"the compiler fails: {words[0] if words else type(error).__name__}"


def _processor() -> str:
    """Return what the machine code depends on: the processor's type and features."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return "".join(
            sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
        )
    except OSError:
        return platform.processor() + platform.machine()
