"""OMol_CSH_58k: HDF5, ωB97M-V/def2-TZVPD, ORCA 6, 58 elements.

Source: Kaniselvan et al., arXiv 2510.00224. A molecule is any group that holds ``fock``, the packed
upper triangle, row after row. The published matrices were brought from ORCA's order of m to the
house order with a list of shells sorted by l, but ORCA appends the diffuse shells of this basis at
the end of an atom: the order is undone with that list and done again with the true one
(``appended-mixed`` in :mod:`helmol.store.readers.arrangement`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from helmol.errors import InputError
from helmol.store.columns import unpack_triangle
from helmol.store.readers.arrangement import Arrangement
from helmol.store.readers.entry import Entry, Reader, Source, symmetric
from helmol.system import Matrices, Molecule, Sample

SOURCE = Source(
    name="omol-csh",
    xc="wb97m-v",
    basis="def2-tzvpd",
    base="def2-tzvp",
    conv_tol=1e-8,
    code="orca 6 (OMol_CSH_58k)",
    order="appended-mixed",
    overlap_tolerance=None,
    fock_tolerance=1e-2,
    density_fit=True,
)


class OmolCshReader(Reader):
    """Walk the nested groups of one file; a group is read when its turn comes."""

    schemes = ("train", "test")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._file = h5py.File(path, "r", locking=False)
        except OSError as error:
            raise InputError(f"{path} cannot be read as HDF5: {' '.join(str(error).split())}") from error
        # The two test files carry their sets' names.
        if any(word in path.stem.lower() for word in ("test", "common", "all")):
            self.schemes = ("test", "train")

    @property
    def source(self) -> Source:
        return SOURCE

    def entries(self) -> Iterator[Entry]:
        yield from self._walk(self._file, "")

    def _walk(self, group: Any, name: str) -> Iterator[Entry]:
        """Yield the molecules in and below a group, without opening what comes later."""
        if "fock" in group:
            numbers = np.asarray(_dataset(group, "elements", self.path, name)).astype(np.int64)
            yield Entry(name.strip("/"), name, numbers)
            return
        for key in group:
            child = group.get(key)
            if isinstance(child, h5py.Group):
                yield from self._walk(child, f"{name}/{key}")

    def read(self, entry: Entry, arrangement: Arrangement) -> Sample | None:
        what, n = f"{self.path}, group {entry.key}", len(entry.numbers)
        group = self._file[entry.key]
        nao = int(arrangement.basis.offsets(entry.numbers)[-1])
        packed = np.asarray(_dataset(group, "fock", self.path, str(entry.key)), dtype=np.float64)
        if packed.shape != (nao * (nao + 1) // 2,):
            raise InputError(
                f"{what}: fock has shape {packed.shape}, the triangle of {nao} orbitals has "
                f"{nao * (nao + 1) // 2}: truncated, or another basis"
            )
        positions = np.asarray(_dataset(group, "coords", self.path, str(entry.key)), dtype=np.float64)
        if positions.shape != (n, 3):
            raise InputError(f"{what}: coords has shape {positions.shape}, expected {(n, 3)}")
        missing = [name for name in ("charge", "spin") if name not in group.attrs]
        if missing:
            raise InputError(f"{what} lacks the attribute {missing[0]!r}")
        fock = symmetric(unpack_triangle(packed, nao), f"{what}: fock")
        return Sample(
            id=entry.id,
            # `spin` of the file is the multiplicity 2S+1.
            molecule=Molecule.from_angstrom(
                entry.numbers,
                positions,
                charge=int(group.attrs["charge"]),
                spin=int(group.attrs["spin"]) - 1,
            ),
            matrices=Matrices(arrangement.to_house(fock, entry.numbers)),
            provenance={"source": self.path.name, "group": entry.key},
        )

    def splits(self, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
        return {scheme: list(ids)}

    def close(self) -> None:
        self._file.close()


def _dataset(group: Any, name: str, path: Path, where: str) -> Any:
    """Return a whole data set of a group; what HDF5 says of damage becomes one line."""
    try:
        return group[name][()]
    except (OSError, KeyError, RuntimeError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{path}, group {where}: {name} cannot be read: {text}") from error
