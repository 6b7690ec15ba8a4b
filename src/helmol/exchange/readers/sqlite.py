"""SQLite files, opened for reading only, and the arrays in their cells."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from helmol.arrays import IntArray
from helmol.damage import DAMAGE, one_line
from helmol.errors import InputError


class Database:
    """Read rows of a SQLite file one at a time; every failure becomes one line.

    Args:
        path: the file.
        tables: columns that must be there, by table.

    Raises:
        InputError: no SQLite file, or another schema.
    """

    def __init__(self, path: Path, tables: dict[str, Sequence[str]]) -> None:
        self._path = path
        uri = f"file:{quote(os.fsencode(os.path.realpath(path)))}?mode=ro"
        try:
            self._connection = sqlite3.connect(uri, uri=True)
        except sqlite3.Error as error:
            raise InputError(f"{path} cannot be opened as SQLite: {error}") from error
        try:
            for table, wanted in tables.items():
                found = self.columns(table)
                if missing := [name for name in wanted if name not in found]:
                    have = ", ".join(found) if found else "no such table"
                    raise InputError(
                        f"{path}: table {table!r} lacks {', '.join(missing)} (it has {have}): another format?"
                    )
        except BaseException:
            self.close()
            raise

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns; none if there is no such table."""
        return [str(row[1]) for row in self.rows(f"PRAGMA table_info({table})")]

    def rows(self, query: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query."""
        try:
            yield from self._connection.execute(query, values)
        except (sqlite3.Error, *DAMAGE) as error:
            raise InputError(f"{self._path} cannot be read as SQLite: {one_line(error)}") from error

    def one(self, query: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """Return the first row of a query, or ``None``."""
        return next(self.rows(query, values), None)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def array(cell: Any, dtype: str, shape: tuple[int, ...], what: str) -> npt.NDArray[Any]:
    """Return the array in a cell of raw little-endian bytes.

    Raises:
        InputError: missing, or of another length.
    """
    wanted = np.dtype(dtype).itemsize * math.prod(int(length) for length in shape)
    if not isinstance(cell, bytes):
        raise InputError(f"{what} is missing")
    if len(cell) != wanted:
        raise InputError(
            f"{what} has {len(cell)} bytes, {wanted} are needed for shape {shape} of {np.dtype(dtype).name}: "
            "truncated, or of another type"
        )
    return np.frombuffer(cell, np.dtype(dtype)).reshape(shape)


def atomic_numbers(cell: Any, what: str) -> IntArray:
    """Return the atomic numbers in a cell of int32 whose length nothing else tells.

    Raises:
        InputError: missing, or no whole number of atoms.
    """
    n = len(cell) // 4 if isinstance(cell, bytes) else 0
    return array(cell, "<i4", (n,), what).astype(np.int64)
