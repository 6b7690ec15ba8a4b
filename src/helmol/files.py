"""Write files so that a reader sees the old one or the whole new one, never a part.

What is being written stands beside its target as ``.NAME.HOST-PID-....part``: no pattern for results
(``*.npz``) finds it. What a killed process left goes at the next write into the same folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from helmol.letters import letters, os_name

LONGEST_NAME = 150
"""Bytes of a file's name that is made of something else (255 are possible, and suffixes follow)."""

OLD_SECONDS = 86_400.0
"""A temporary file of another machine, which cannot be asked, is nobody's after so long."""

_TEMPORARY = re.compile(r"^\..+\.(?P<host>[^.]*)-(?P<pid>\d{1,9})-[0-9a-f]{8}\.part$")
_EARLIER = re.compile(r"^\..+-[a-z0-9_]{8}(\.\w+)?$")
"""Names that temporary files had in helmol 0.1 (``.config-x1y2z3w4.yaml``)."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it there when the block ends well.

    On any error (a full disk, Ctrl-C) the temporary file is removed and ``path`` stays as it was. Its name
    does not end like that of ``path``: a writer that tells formats by suffixes has to be told.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, a file is to be written there", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(path.parent)
    token = f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{short_name(path.name, longest=100)}.{token}.part")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666))
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a lock, or of a file that helmol was writing when it was killed."""
    lock = name.startswith(".") and name.endswith(".lock")
    return lock or bool(_TEMPORARY.match(name) or _EARLIER.match(name))


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder besides temporary files and locks, sorted; nothing if there is none."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not is_temporary(path.name))


def sweep(folder: Path) -> None:
    """Remove temporary files whose process is gone."""
    with suppress(OSError), os.scandir(folder) as found:
        for entry in found:
            match = _TEMPORARY.match(entry.name)
            if match and _abandoned(match["host"], int(match["pid"]), entry):
                with suppress(OSError):
                    os.unlink(entry.path)


@cache
def _sweep_once(folder: Path) -> None:
    """Sweep a folder at the first write of this process: a look at every file is too slow for every write."""
    sweep(folder)


def _abandoned(host: str, pid: int, entry: os.DirEntry[str]) -> bool:
    """Return whether nobody writes a temporary file any more."""
    if host != _host():
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > OLD_SECONDS
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


@cache
def _host() -> str:
    """Return this machine's name, fit for a file's name."""
    return re.sub(r"[^\w]+", "_", socket.gethostname())[:40]


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a file that belongs to another one, whose name it continues."""
    return path.with_name(path.name + suffix)


def short_name(name: str, *, longest: int = LONGEST_NAME) -> str:
    """Return a name of at most so many bytes; one that is cut gets a hash of the whole in its place."""
    data = os.fsencode(name)
    if len(data) <= longest:
        return name
    mark = "-" + hashlib.sha256(data).hexdigest()[:8]
    return os_name(data[: longest - len(mark)].decode(errors="ignore") + mark)


def file_stem(text: str, *, default: str = "molecule") -> str:
    """Return a file name without suffix made of any text: letters, digits and ``_ . + -``, not too long.

    Its bytes are the same in every locale that lacks some of the letters.
    """
    return short_name(os_name(re.sub(r"[^\w.+-]+", "_", letters(text)).strip("._") or default))


def write_text(path: Path, text: str) -> None:
    """Write a text file (UTF-8) atomically; names of files in it keep their bytes, whatever the locale."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically; NumPy numbers and arrays are allowed, NaN becomes null."""
    write_text(path, json.dumps(plain(data), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Return ``value`` with NumPy types, tuples and paths turned into JSON's own types."""
    if isinstance(value, dict):
        return {letters(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (str, Path)):
        return letters(str(value))
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
