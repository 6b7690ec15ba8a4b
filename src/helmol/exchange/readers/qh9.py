"""QH9 (stable and dynamic): SQLite, B3LYP/def2-SVP, PySCF's order, no overlaps.

Source: Yu et al., QH9, NeurIPS 2023 Datasets and Benchmarks. Positions are in Å in the stable file
and in bohr in the dynamic one. The stable and the 300k file were made when PySCF's ``b3lyp`` still
meant what it now calls ``b3lyp5``; the 100k file has the later ``b3lyp``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from helmol.errors import InputError
from helmol.exchange.readers import official
from helmol.exchange.readers.arrangement import Arrangement
from helmol.exchange.readers.entry import Entry, Reader, Source, symmetric
from helmol.exchange.readers.sqlite import Database, array
from helmol.system import Matrices, Molecule, Sample

SOURCE = Source(
    name="qh9-stable",
    xc="b3lyp5",
    other_xc=("b3lyp",),
    basis="def2-svp",
    conv_tol=1e-13,
    code="pyscf (QH9)",
    order="pyscf",
    overlap_tolerance=None,
    fock_tolerance=5e-5,
)


class _Qh9Reader(Reader):
    """What the two files have in common."""

    _columns: tuple[str, ...]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._database = Database(path, {"data": self._columns})

    def close(self) -> None:
        self._database.close()

    @abstractmethod
    def _molecule(self, numbers: Any, positions: Any) -> Molecule:
        """Build the molecule from what is in the file."""

    def _sample(
        self, entry: Entry, cells: Sequence[Any], arrangement: Arrangement, provenance: dict[str, object]
    ) -> Sample:
        """Build the sample from the cells of pos and Ham."""
        what, n = f"{self.path}, row {entry.id!r}", len(entry.numbers)
        nao = int(arrangement.basis.offsets(entry.numbers)[-1])
        positions = array(cells[0], "<f8", (n, 3), f"{what}: pos")
        fock = symmetric(array(cells[1], "<f8", (nao, nao), f"{what}: Ham"), f"{what}: Ham")
        return Sample(
            id=entry.id,
            molecule=self._molecule(entry.numbers, positions),
            matrices=Matrices(arrangement.to_house(fock, entry.numbers)),
            provenance={"source": self.file_name, **provenance},
        )

    def _numbers(self, cell: Any, n: Any, id: str) -> Any:
        if not isinstance(n, int):
            raise InputError(f"{self.path}, row {id!r}: N is {n!r}, expected a number of atoms")
        return array(cell, "<i4", (n,), f"{self.path}, row {id!r}: Z").astype(np.int64)


class Qh9StableReader(_Qh9Reader):
    """Read ``QH9Stable.db``: ``data(id, N, Z, pos, Ham)``, positions in Å."""

    schemes = ("id", "ood")
    _columns = ("id", "N", "Z", "pos", "Ham")

    @property
    def source(self) -> Source:
        return SOURCE

    def rows(self) -> Iterator[tuple[int | str, tuple[Any, ...]]]:
        for key, *cells in self._database.rows("SELECT id, N, Z FROM data ORDER BY rowid"):
            yield int(key), tuple(cells)

    def name(self, key: int | str) -> str:
        return f"qh9-{key}"

    def entry(self, key: int | str, *cells: Any) -> Entry:
        n, numbers = cells
        return Entry(self.name(key), key, self._numbers(numbers, n, self.name(key)))

    def read(self, entry: Entry, arrangement: Arrangement) -> Sample | None:
        cells = self._database.one("SELECT pos, Ham FROM data WHERE id = ?", (entry.key,))
        return self._sample(entry, cells or (None, None), arrangement, {"row": entry.key})

    def _molecule(self, numbers: Any, positions: Any) -> Molecule:
        return Molecule.from_angstrom(numbers, positions)

    def splits(self, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
        rows = list(self._database.rows("SELECT id, N FROM data ORDER BY rowid"))
        if scheme == "id":
            positions = official.qh9_stable_id(len(rows))
        else:
            positions = official.qh9_stable_ood([n for _, n in rows])
        return official.by_id(positions, [f"qh9-{key}" for key, _ in rows])


class Qh9DynamicReader(_Qh9Reader):
    """Read ``QH9Dynamic_*.db``: ``data(id, geo_id, N, Z, pos, ..., Ham, converged)``, bohr.

    The energies in the file are those of the dynamics that made the geometries, at another level,
    and go into the provenance. Frames whose SCF did not converge are left out.
    """

    schemes = ("geo", "mol")
    _columns = ("id", "geo_id", "N", "Z", "pos", "ekin", "epot", "etot", "time", "Ham", "converged")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        row = self._database.one("SELECT COUNT(*) FROM data")
        self._n = int(row[0]) if row else 0

    @property
    def source(self) -> Source:
        old = "100k" in self.path.name or (self._n == 99900 and "300k" not in self.path.name)
        xc, other = ("b3lyp", "b3lyp5") if old else ("b3lyp5", "b3lyp")
        return replace(SOURCE, name="qh9-dynamic", xc=xc, other_xc=(other,))

    def _id(self, id: Any, geometry: Any) -> str:
        molecule = int.from_bytes(id, "little", signed=True) if isinstance(id, bytes) else id
        if isinstance(geometry, bytes):
            geometry = int.from_bytes(geometry, "little", signed=True)
        if molecule is None or geometry is None:
            raise InputError(f"it has no id or geo_id (id {molecule}, geo_id {geometry})")
        return f"qh9d-{molecule}-{geometry}"

    def rows(self) -> Iterator[tuple[int | str, tuple[Any, ...]]]:
        # Not `converged`: it stands behind the matrix, SQLite would read through it to find it.
        query = "SELECT rowid, id, geo_id, N, Z FROM data ORDER BY rowid"
        for key, *cells in self._database.rows(query):
            yield int(key), tuple(cells)

    def entry(self, key: int | str, *cells: Any) -> Entry:
        id, geometry, n, numbers = cells
        name = self._id(id, geometry)
        return Entry(name, key, self._numbers(numbers, n, name))

    def read(self, entry: Entry, arrangement: Arrangement) -> Sample | None:
        query = "SELECT converged, pos, Ham, ekin, epot, etot, time FROM data WHERE rowid = ?"
        converged, pos, fock, *md = self._database.one(query, (entry.key,)) or (None,) * 7
        if converged is not None and not (any(converged) if isinstance(converged, bytes) else converged):
            return None
        named = zip(("ekin", "epot", "etot", "time"), md, strict=True)
        dynamics = {name: value for name, value in named if isinstance(value, (int, float))}
        provenance: dict[str, object] = {"row": entry.key, "dynamics": dynamics}
        return self._sample(entry, (pos, fock), arrangement, provenance)

    def _molecule(self, numbers: Any, positions: Any) -> Molecule:
        return Molecule(numbers, positions)

    def splits(self, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
        rule = official.qh9_dynamic_geo if scheme == "geo" else official.qh9_dynamic_mol
        rows = self._database.rows("SELECT id, geo_id FROM data ORDER BY rowid")
        # A row without id is in no store, but the others' places count it.
        names = [f"row {k}" if None in row else self._id(*row) for k, row in enumerate(rows)]
        if len(names) != self._n:
            raise InputError(f"{self.path} changed while it was read")
        return official.by_id(rule(self._n), names)
