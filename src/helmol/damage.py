"""Read what may be damaged, edited by hand or made to harm: one clear line, and bounds before allocation."""

from __future__ import annotations

import json
import lzma
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from helmol.errors import HelmolError, InputError

DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # with RecursionError and NotImplementedError
    SyntaxError,
    TypeError,
    ValueError,  # with UnicodeError and json.JSONDecodeError
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)
"""What parsers raise at bytes that are not what they expect."""

LARGEST_TEXT = 1 << 29
"""Bytes of a JSON file at most; the ids of ten million molecules are fewer."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@contextmanager
def understood(what: str, error: type[HelmolError] = InputError) -> Iterator[None]:
    """Turn whatever a parser raises at damaged or hand-edited content into one line.

    Args:
        what: is read, with its path.
        error: to raise; an error of helmol's own passes unchanged.
    """
    try:
        yield
    except HelmolError:
        raise
    except OSError as found:
        raise error(f"{what} cannot be read: {found.strerror or one_line(found)}") from found
    except DAMAGE as found:
        raise error(
            f"{what} cannot be read, it is damaged or was edited by hand: {one_line(found)}"
        ) from found


def one_line(found: BaseException, *, longest: int = 200) -> str:
    """Return what an exception says in one short line."""
    if isinstance(found, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(found, RecursionError):
        return "it is nested too deeply"
    text = " ".join(str(found).split())
    if isinstance(found, KeyError) and found.args:
        text = f"{found.args[0]!r} is missing"
    text = text or type(found).__name__
    return text if len(text) <= longest else text[: longest - 1] + "…"


def read_text(path: Path, *, largest: int = LARGEST_TEXT, error: type[HelmolError] = InputError) -> str:
    """Return a text file (UTF-8, a byte-order mark is dropped).

    Raises:
        error: it cannot be read, is no text, or has more than ``largest`` bytes.
    """
    with understood(str(path), error), path.open("rb") as file:
        data = file.read(largest + 1)
        if len(data) > largest:
            raise error(f"{path} has more than {largest:,} bytes: too much for a file of this kind")
        return data.decode("utf-8-sig")


def read_json(path: Path, *, error: type[HelmolError] = InputError) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        error: it cannot be read, is no JSON, or holds something else than names and values.
    """
    text = read_text(path, error=error)
    with understood(str(path), error):
        data = json.loads(text, parse_constant=_no_number)
    if not isinstance(data, dict):
        raise error(f"{path} holds a {type(data).__name__}, expected names and values: damaged?")
    return data


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def read_npz(
    source: Path | IO[bytes],
    *,
    where: str = "",
    names: Collection[str] | None = None,
    error: type[HelmolError] = InputError,
) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a ``.npz`` file; every byte of them is checked (zip keeps a CRC-32).

    Args:
        source: path, or an open file.
        where: what to call it in a message, by default the path.
        names: arrays wanted, those of them that are there; ``None`` for all.
        error: to raise.

    Raises:
        error: no such file, damage, or an array that claims another size than it has.
    """
    where = where or str(source)
    found = {}
    with understood(where, error), zipfile.ZipFile(source) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        chosen = [name for name in members if names is None or name in names]
        total = sum(members[name].file_size for name in chosen)
        if total > physical_memory():
            raise error(
                f"{where} claims {total:,} bytes of arrays, more than this machine has memory: damaged?"
            )
        for name in chosen:
            with archive.open(members[name]) as member:
                _check_size(member, members[name].file_size)
            with archive.open(members[name]) as member:
                found[name] = np.lib.format.read_array(member, allow_pickle=False)
    return found


def _check_size(member: IO[bytes], size: int) -> None:
    """Raise ValueError where an array's shape is not that of its bytes."""
    version = np.lib.format.read_magic(member)
    if version not in _HEADERS:
        raise ValueError(f"arrays of version {version} are not read")
    shape, _, dtype = _HEADERS[version](member)
    wanted = dtype.itemsize
    for length in shape:
        wanted *= int(length)
    if wanted != size - member.tell():
        raise ValueError(f"an array of shape {shape} has {size - member.tell()} bytes, not {wanted}")


def physical_memory() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
