"""∇²DFT (nablaDFT version 2): SQLite, ωB97X-D/def2-SVP, float32.

Source: Khrabrov et al., ∇²DFT, NeurIPS 2024 Datasets and Benchmarks. ``C`` of the file is the core
Hamiltonian, not orbitals, and is not kept. NULL means missing. Files of version 1 have forces and
``C`` of zeros and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.errors import InputError
from helmol.exchange.readers.arrangement import Arrangement
from helmol.exchange.readers.entry import Entry, Reader, Source, symmetric
from helmol.exchange.readers.sqlite import Database, array, atomic_numbers
from helmol.store.split import random_split
from helmol.system import Matrices, Molecule, Sample

SOURCE = Source(
    name="nabladft",
    xc="HYB_GGA_XC_WB97X_D",
    basis="def2-svp",
    conv_tol=1e-6,
    code="psi4 (nablaDFT v2)",
    order="house",
    overlap_tolerance=1e-4,
    fock_tolerance=1e-2,
)

TESTS = ("structures", "scaffolds", "conformers")


class NablaDftReader(Reader):
    """Read ``data``, ``dataset_ids`` and, where it is there, ``basisset``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._database = Database(
            path, {"data": ("id", "Z", "R", "E", "F", "H", "S", "C"), "dataset_ids": ("id", "MOSES_ID")}
        )
        # The usual split follows from the file's name: a test file is one test set.
        first = next((name for name in TESTS if name.rstrip("s") in path.name.lower()), "train")
        self.schemes = (first, *(name for name in ("train", *TESTS) if name != first))
        self._checked = False

    @property
    def source(self) -> Source:
        return SOURCE

    def rows(self) -> Iterator[tuple[int | str, tuple[Any, ...]]]:
        for key, numbers in self._database.rows("SELECT id, Z FROM data ORDER BY id"):
            yield int(key), (numbers,)

    def name(self, key: int | str) -> str:
        return f"nabla-{key}"

    def entry(self, key: int | str, *cells: Any) -> Entry:
        return Entry(self.name(key), key, atomic_numbers(cells[0], f"{self.path}, row {key}: Z"))

    def read(self, entry: Entry, arrangement: Arrangement) -> Sample | None:
        what, n = f"{self.path}, row {entry.key}", len(entry.numbers)
        if not self._checked:
            self._refuse_version_1(entry)
            self._refuse_other_shells(arrangement)
            self._checked = True
        query = "SELECT R, E, F, H, S FROM data WHERE id = ?"
        positions, energy, forces, fock, overlap = self._database.one(query, (entry.key,)) or (None,) * 5
        nao = int(arrangement.basis.offsets(entry.numbers)[-1])

        def matrix(cell: Any, name: str) -> Any:
            values = array(cell, "<f4", (nao, nao), f"{what}: {name}").astype(np.float64)
            return arrangement.to_house(symmetric(values, f"{what}: {name}"), entry.numbers)

        geometry = array(positions, "<f4", (n, 3), f"{what}: R")
        return Sample(
            id=entry.id,
            molecule=Molecule(entry.numbers, geometry.astype(np.float64)),
            matrices=Matrices(matrix(fock, "H"), None if overlap is None else matrix(overlap, "S")),
            energy=None if energy is None else float(energy),
            forces=None if forces is None else array(forces, "<f4", (n, 3), f"{what}: F").astype(np.float64),
            provenance={"source": self.file_name, "row": entry.key, **self._names(entry)},
        )

    def _names(self, entry: Entry) -> dict[str, object]:
        row = self._database.one("SELECT * FROM dataset_ids WHERE id = ?", (entry.key,)) or ()
        named = zip(("moses_id", "conformer_id"), row[1:3], strict=False)
        return {name: value for name, value in named if value is not None}

    def _refuse_version_1(self, entry: Entry) -> None:
        """Raise if forces and core Hamiltonian are there and are nothing but zeros."""
        query = "SELECT F, C FROM data WHERE id = ?"
        cells = [c for c in self._database.one(query, (entry.key,)) or () if isinstance(c, bytes)]
        if len(cells) == 2 and not any(np.frombuffer(cell, "<f4").any() for cell in cells):
            raise InputError(
                f"{self.path} is of nablaDFT version 1: F and C of row {entry.key} are all zero, the forces "
                "are missing and the functional differs; take the files of version 2"
            )

    def _refuse_other_shells(self, arrangement: Arrangement) -> None:
        """Raise if the file's list of shells is not that of the basis."""
        if "orbitals" not in self._database.columns("basisset"):
            return
        for number, cell in self._database.rows("SELECT Z, orbitals FROM basisset"):
            if number in arrangement.basis.elements and isinstance(cell, bytes) and len(cell) % 4 == 0:
                shells = tuple(np.frombuffer(cell, "<i4").tolist())
                wanted = arrangement.basis.signature(number)
                if shells != wanted:
                    raise InputError(
                        f"{self.path} says that element {number} has the shells {shells}, "
                        f"{arrangement.basis.name} has {wanted}: another basis, or another order of shells"
                    )

    def splits(self, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
        if scheme in TESTS:
            return {"test": list(ids)}
        return random_split(ids, fractions={"train": 0.9, "val": 0.1})

    def close(self) -> None:
        self._database.close()
