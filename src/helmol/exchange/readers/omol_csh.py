"""OMol_CSH_58k: HDF5, ωB97M-V/def2-TZVPD, ORCA 6, 58 elements.

Source: Kaniselvan et al., arXiv 2510.00224. A molecule is any group that holds ``fock``, the packed
upper triangle, row after row. The published matrices were brought from ORCA's order of m to the
house order with a list of shells sorted by l, but ORCA appends the diffuse shells of this basis at
the end of an atom: the order is undone with that list and done again with the true one
(``appended-mixed`` in :mod:`helmol.exchange.readers.arrangement`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from helmol.arrays import Array, IntArray
from helmol.damage import DAMAGE, one_line
from helmol.errors import InputError
from helmol.exchange.readers.arrangement import Arrangement
from helmol.exchange.readers.entry import Entry, Reader, Source, symmetric
from helmol.store.columns import unpack_triangle
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


MOST_DEFLATED = 1100
"""The bytes of a file can stand for so many times as many at most (deflate: 1032)."""


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
        words = set(re.split(r"[^a-z0-9]+", path.stem.lower()))
        if words & {"test", "common", "all"} and "train" not in words:
            self.schemes = ("test", "train")

    @property
    def source(self) -> Source:
        return SOURCE

    def rows(self) -> Iterator[tuple[int | str, tuple[Any, ...]]]:
        yield from self._walk(self._file, "", frozenset())

    def name(self, key: int | str) -> str:
        return str(key).strip("/") or "molecule"

    def entry(self, key: int | str, *cells: Any) -> Entry:
        where = str(key)
        elements = _dataset(self._file[where], "elements", self.path, where)
        return Entry(self.name(key), key, _numbers(elements, f"{self.path}, group {where}"))

    def _walk(
        self, group: Any, name: str, above: frozenset[int]
    ) -> Iterator[tuple[int | str, tuple[Any, ...]]]:
        """Yield the groups in and below a group that hold a molecule, without opening what comes later."""
        if "fock" in group:
            yield name or "/", ()
            return
        here = int(h5py.h5o.get_info(group.id).addr)
        if here in above:
            raise InputError(f"{self.path}: a group holds itself: the file is damaged")
        for key in group:
            where = f"{name}/{key}"
            try:
                # Soft links would show a molecule twice, or lead in a circle.
                hard = isinstance(group.get(key, getlink=True), h5py.HardLink)
                child = group.get(key) if hard else None
            except (OSError, *DAMAGE):
                # Opening it again says what is wrong, and names it.
                yield where, ()
                continue
            if isinstance(child, h5py.Group):
                yield from self._walk(child, where, above | {here})

    def read(self, entry: Entry, arrangement: Arrangement) -> Sample | None:
        what, n = f"{self.path}, group {entry.key}", len(entry.numbers)
        group = self._file[entry.key]
        nao = int(arrangement.basis.offsets(entry.numbers)[-1])
        packed = _floats(_dataset(group, "fock", self.path, str(entry.key)), f"{what}: fock")
        if packed.shape != (nao * (nao + 1) // 2,):
            raise InputError(
                f"{what}: fock has shape {packed.shape}, the triangle of {nao} orbitals has "
                f"{nao * (nao + 1) // 2}: truncated, or another basis"
            )
        positions = _floats(_dataset(group, "coords", self.path, str(entry.key)), f"{what}: coords")
        if positions.shape != (n, 3):
            raise InputError(f"{what}: coords has shape {positions.shape}, expected {(n, 3)}")
        missing = [name for name in ("charge", "spin") if name not in group.attrs]
        if missing:
            raise InputError(f"{what} lacks the attribute {missing[0]!r}")
        charge, multiplicity = (_whole(group.attrs[name], f"{what}: {name}") for name in ("charge", "spin"))
        if multiplicity != 1:
            raise InputError(
                f"{what}: spin (the multiplicity 2S+1) is {multiplicity}, expected 1: this data set is of "
                "closed shells, and one Fock matrix describes nothing else"
            )
        fock = symmetric(unpack_triangle(packed, nao), f"{what}: fock")
        return Sample(
            id=entry.id,
            molecule=Molecule.from_angstrom(entry.numbers, positions, charge=charge),
            matrices=Matrices(arrangement.to_house(fock, entry.numbers)),
            provenance={"source": self.file_name, "group": entry.key},
        )

    def splits(self, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
        return {scheme: list(ids)}

    def close(self) -> None:
        self._file.close()


def _dataset(group: Any, name: str, path: Path, where: str) -> Any:
    """Return a whole data set of a group; what HDF5 says of damage becomes one line."""
    try:
        data = group[name]
        if data.size * data.dtype.itemsize > MOST_DEFLATED * path.stat().st_size:
            raise ValueError(f"shape {data.shape} claims more than the file can hold")
        return data[()]
    except (OSError, *DAMAGE) as error:
        raise InputError(f"{path}, group {where}: {name} cannot be read: {one_line(error)}") from error


def _floats(values: Any, what: str) -> Array:
    """Return an array of numbers as float64."""
    try:
        return np.asarray(values, dtype=np.float64)
    except DAMAGE as error:
        raise InputError(f"{what} holds no numbers: {error}") from error


def _numbers(values: Any, what: str) -> IntArray:
    """Return atomic numbers; fractions are an error, not rounded."""
    found = _floats(values, f"{what}: elements")
    if found.ndim != 1 or not np.array_equal(found, np.rint(found)):
        raise InputError(f"{what}: elements has shape {found.shape}, expected atomic numbers of shape (n,)")
    return found.astype(np.int64)


def _whole(value: Any, what: str) -> int:
    """Return a whole number from an attribute."""
    found = _floats(value, what)
    if found.size != 1 or not np.array_equal(found, np.rint(found)):
        raise InputError(f"{what} is {value}, expected a whole number")
    return int(found.item())
