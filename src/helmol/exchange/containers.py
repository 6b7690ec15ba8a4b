"""Three containers of samples that other programs read; each keeps what makes its samples exact.

* ``npz``: a folder, one file per molecule with the keys of ``helmol predict``, PySCF's AO order.
* ``extxyz``: a folder, ``structures.extxyz`` (Å, eV) and one PySCF checkpoint file per molecule.
* ``qh9``: one SQLite file with QH9's table (Å, Eh, PySCF's order) and a table of our own beside it.
"""

from __future__ import annotations

import io
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from helmol import dft, structures
from helmol.basis import BasisSet
from helmol.damage import read_json, read_npz, read_text, understood
from helmol.dft import LevelConfig
from helmol.errors import InputError
from helmol.exchange.arrays import derived_arrays, exact_arrays
from helmol.exchange.readers.sqlite import Database
from helmol.files import file_stem, replacing, short_name, write_json, write_text
from helmol.letters import letters, os_name
from helmol.system import Sample

HEADER = "store.json"
"""File that says what the other files of a folder have in common; written last."""

NOTE = "unfinished"
"""File that says, until the header is written, of which store the others are."""

_FRAMES = ".structures.part"
ROWS_PER_COMMIT = 128


@dataclass(frozen=True)
class Stored:
    """Say where a sample stands.

    Attributes:
        file: that holds it.
        row: in the file, ``None`` if it is alone there.
        read: returns its exact arrays, or raises InputError.
    """

    file: Path
    row: int | None
    read: Callable[[], dict[str, Any]]


class Container(ABC):
    """Write samples one after the other, or read them back.

    Args:
        path: folder or file.
    """

    takes_unrestricted = True
    """Whether there is a place for two Fock matrices per molecule."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def begin(self, source: str, ids: Sequence[str]) -> None:
        """Get ready to write, or to go on with what was written of the same source.

        Args:
            source: says what is written.
            ids: of all samples to come; some may not come.

        Raises:
            InputError: something else was begun here.
        """

    @abstractmethod
    def write(self, sample: Sample, basis: BasisSet, level: LevelConfig) -> None:
        """Add one sample, unless it is there; on an error nothing of it."""

    @abstractmethod
    def finish(self, header: dict[str, Any]) -> None:
        """Write what the samples have in common."""

    @abstractmethod
    def abandon(self) -> None:
        """Remove what is of no use because the samples cannot be written."""

    @abstractmethod
    def header(self) -> dict[str, Any]:
        """Return what :meth:`finish` wrote."""

    @abstractmethod
    def samples(self) -> Iterator[Stored]:
        """Yield every sample, unread."""


class Folder(Container):
    """What the two folders have in common: names of files, and a header of JSON."""

    suffix: str

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._names: dict[str, str] = {}
        self._written: list[str] = []
        self._goes_on = False

    def begin(self, source: str, ids: Sequence[str]) -> None:
        """Note the source; files of the same one that are there are whole and stay."""
        self._names = _file_names(ids, self.suffix)
        note = self.path / NOTE
        if note.exists():
            if read_text(note) != source:
                raise InputError(
                    f"{self.path} holds part of another conversion: delete it, or choose another --out"
                )
            self._goes_on = True
        else:
            write_text(note, source)

    def _missing(self, path: Path) -> bool:
        """Return whether a file must be written."""
        return not (self._goes_on and path.exists())

    def finish(self, header: dict[str, Any]) -> None:
        """Write the header with the files in the order of the samples."""
        write_json(self.path / HEADER, {**header, "files": self._written})
        (self.path / NOTE).unlink()

    def abandon(self) -> None:
        """Leave the files, which are whole: with the store mended the same call goes on."""

    def header(self) -> dict[str, Any]:
        """Read the header."""
        return read_json(self.path / HEADER)

    def samples(self) -> Iterator[Stored]:
        """Yield file after file."""
        for name in self._files():
            yield Stored(self.path / name, None, partial(self._read, self.path / name))

    def _files(self) -> list[str]:
        """Return the files that the header names; all of them lie in this folder."""
        with understood(str(self.path / HEADER)):
            names = [os_name(str(name)) for name in self.header()["files"]]
        if outside := [name for name in names if Path(name).name != name]:
            raise InputError(f"{self.path / HEADER} names {outside[0]!r}, which is no file of this folder")
        return names

    @abstractmethod
    def _read(self, path: Path) -> dict[str, Any]:
        """Return the exact arrays in a file."""


class NpzFolder(Folder):
    """One ``.npz`` per molecule."""

    suffix = ".npz"

    def write(self, sample: Sample, basis: BasisSet, level: LevelConfig) -> None:
        """Write the keys of ``helmol predict`` and the labels."""
        path = self.path / self._names[sample.id]
        if self._missing(path):
            arrays = {**derived_arrays(sample, basis, level), **exact_arrays(sample, basis)}
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        self._written.append(path.name)

    def _read(self, path: Path) -> dict[str, Any]:
        return read_npz(path)


class ExtxyzFolder(Folder):
    """One structure file for all, one checkpoint file per molecule."""

    suffix = ".chk"

    def write(self, sample: Sample, basis: BasisSet, level: LevelConfig) -> None:
        """Write a checkpoint file and append a frame."""
        path = self.path / self._names[sample.id]
        if self._missing(path):
            derived = derived_arrays(sample, basis, level)
            derived["e_tot"] = np.array(np.nan if sample.energy is None else sample.energy)
            with replacing(path) as temporary:
                temporary.unlink()  # PySCF adds to a file that is there
                dft.write_chkfile(
                    temporary, sample.molecule, level, orbitals=derived, arrays=exact_arrays(sample, basis)
                )
        # Frames are cheap: all are written anew, also those of molecules that were there.
        with (self.path / _FRAMES).open("a" if self._written else "w", encoding="utf-8") as file:
            file.write(
                structures.extxyz_text(
                    sample.id, sample.molecule, energy=sample.energy, forces=sample.forces,
                    header={"chkfile": letters(path.name)},
                )
            )  # fmt: skip
        self._written.append(path.name)

    def finish(self, header: dict[str, Any]) -> None:
        """Give the structure file its name and write the header."""
        if not self._written:
            (self.path / _FRAMES).write_bytes(b"")
        (self.path / _FRAMES).replace(self.path / "structures.extxyz")
        super().finish(header)

    def _read(self, path: Path) -> dict[str, Any]:
        return dft.read_chkfile(path)


class Qh9File(Container):
    """QH9's schema; what it has no place for stands in the table ``helmol``."""

    takes_unrestricted = False

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._part = path.with_name(f".{short_name(path.name)}.part")
        self._row: dict[str, int] = {}
        self._there: set[int] = set()
        self._n = 0

    def begin(self, source: str, ids: Sequence[str]) -> None:
        """Open the unfinished file; one of another source, or without its tables, is made anew."""
        self._row = {id: row for row, id in enumerate(ids)}
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(self._part)
        try:
            row = self._connection.execute("SELECT value FROM helmol_source").fetchone()
            if row is not None and row[0] == source:
                self._there = {int(key) for (key,) in self._connection.execute("SELECT id FROM helmol")}
                return
        except sqlite3.DatabaseError:
            pass
        self._connection.close()
        self._part.unlink()
        self._part.with_name(f"{self._part.name}-journal").unlink(missing_ok=True)
        self._connection = sqlite3.connect(self._part)
        self._connection.execute(
            "CREATE TABLE data (id INTEGER PRIMARY KEY, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)"
        )
        self._connection.execute("CREATE TABLE helmol (id INTEGER PRIMARY KEY, arrays BLOB)")
        self._connection.execute("CREATE TABLE helmol_header (value TEXT)")
        self._connection.execute("CREATE TABLE helmol_source (value TEXT)")
        self._connection.execute("INSERT INTO helmol_source VALUES (?)", (source,))
        self._connection.commit()

    def write(self, sample: Sample, basis: BasisSet, level: LevelConfig) -> None:
        """Add one row to both tables."""
        if (key := self._row[sample.id]) in self._there:
            return
        arrays = exact_arrays(sample, basis)
        fock, molecule = arrays.pop("fock"), sample.molecule
        other = io.BytesIO()
        np.savez(other, allow_pickle=False, **arrays)
        row = (
            key, molecule.n_atoms, molecule.numbers.astype("<i4").tobytes(),
            molecule.positions_ang.astype("<f8").tobytes(), fock.astype("<f8").tobytes(),
        )  # fmt: skip
        self._connection.execute("INSERT INTO data VALUES (?,?,?,?,?)", row)
        self._connection.execute("INSERT INTO helmol VALUES (?,?)", (key, other.getvalue()))
        self._n += 1
        if self._n % ROWS_PER_COMMIT == 0:
            self._connection.commit()

    def finish(self, header: dict[str, Any]) -> None:
        """Write the header and give the file its name."""
        self._connection.execute("INSERT INTO helmol_header VALUES (?)", (json.dumps(header),))
        self._connection.execute("DROP TABLE helmol_source")
        self._connection.commit()
        self._connection.close()
        self._part.replace(self.path)

    def abandon(self) -> None:
        """Remove the unfinished file."""
        self._connection.close()
        self._part.unlink()

    def header(self) -> dict[str, Any]:
        """Read the header."""
        database = Database(self.path, {"data": ("id", "Ham"), "helmol_header": ("value",)})
        row = database.one("SELECT value FROM helmol_header")
        database.close()
        if row is None:
            raise InputError(f"{self.path} has no header: not written by 'helmol convert'?")
        with understood(f"the header of {self.path}"):
            return dict(json.loads(row[0]))

    def samples(self) -> Iterator[Stored]:
        """Yield row after row."""
        database = Database(self.path, {"data": ("id", "Ham"), "helmol": ("id", "arrays")})
        try:
            for (key,) in database.rows("SELECT id FROM data ORDER BY id"):
                yield Stored(self.path, int(key), partial(self._read, database, int(key)))
        finally:
            database.close()

    def _read(self, database: Database, key: int) -> dict[str, Any]:
        """Return what both tables hold of a sample."""
        where = f"{self.path}, row {key}"
        fock = database.one("SELECT Ham FROM data WHERE id = ?", (key,))
        other = database.one("SELECT arrays FROM helmol WHERE id = ?", (key,))
        if fock is None or other is None or not isinstance(fock[0], bytes) or not isinstance(other[0], bytes):
            raise InputError(f"{where}: its Fock matrix or the rest of it is missing")
        with understood(where):
            arrays = read_npz(io.BytesIO(other[0]), where=where)
            values = np.frombuffer(fock[0], "<f8")
            nao = int(len(values) ** 0.5)
            arrays["fock"] = values.reshape(nao, -1)
        return arrays


def _file_names(ids: Sequence[str], suffix: str) -> dict[str, str]:
    """Return a file's name for every id, no two the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for id in ids:
        stem = name = file_stem(id)
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        names[id] = f"{name}{suffix}"
    return names


CONTAINERS: dict[str, type[Container]] = {"npz": NpzFolder, "qh9": Qh9File, "extxyz": ExtxyzFolder}
"""Containers by name."""
