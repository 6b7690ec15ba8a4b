"""What a reader of a foreign format offers, and the choice of rows that are read."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from helmol.arrays import Array, IntArray
from helmol.damage import DAMAGE, one_line, understood
from helmol.elements import SYMBOLS
from helmol.errors import HelmolError, InputError
from helmol.exchange.readers.arrangement import Arrangement
from helmol.letters import text_of
from helmol.skipped import LONGEST_REASON, Skips
from helmol.system import Sample

ASYMMETRY_TOLERANCE = 1e-4
"""Largest ``|M − Mᵀ|`` of a foreign matrix, Eh; below it the two halves are averaged."""

log = logging.getLogger("helmol.store")


@dataclass(frozen=True)
class Source:
    """Hold what a format says about its labels.

    Attributes:
        name: of the format.
        xc: functional in PySCF's notation.
        other_xc: functionals that are easily mistaken for it.
        basis: name of the basis.
        base: where the program that made the labels appends shells to a smaller basis, its name.
        conv_tol: SCF convergence, Eh.
        code: program that made the labels.
        order: key of ``ARRANGEMENTS``.
        overlap_tolerance: largest ``|S − S_ref|`` to expect; ``None`` where no overlap is stored.
        fock_tolerance: largest ``|F[D] − F|`` to expect of another program's grid and fitting, Eh.
        density_fit: whether densities may be fitted where F is rebuilt as a check.
    """

    name: str
    xc: str
    basis: str
    conv_tol: float
    code: str
    order: str
    overlap_tolerance: float | None
    fock_tolerance: float
    other_xc: tuple[str, ...] = ()
    base: str | None = None
    density_fit: bool = False


@dataclass(frozen=True)
class Entry:
    """Name one molecule of a foreign file before its matrices are read.

    Attributes:
        id: of the sample to be, unique in the file.
        key: where the row stands.
        numbers: atomic numbers, ``[n_atoms]``.
    """

    id: str
    key: int | str
    numbers: IntArray


class RowError(InputError):
    """A row of a foreign file that cannot be read.

    Attributes:
        item: what its sample would be called.
        key: where it stands.
    """

    def __init__(self, message: str, *, item: str, key: int | str) -> None:
        super().__init__(message)
        self.item, self.key = item, key


class Reader(ABC):
    """Read one foreign file; a context manager."""

    schemes: tuple[str, ...] = ()
    """Names of the official splits, the usual one first."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            problem = "is no file" if path.exists() else "does not exist"
            raise InputError(f"{path} {problem}: give the file of the data set")
        self.path = path
        self.file_name, self.stem = text_of(path.name), text_of(path.stem)

    @property
    @abstractmethod
    def source(self) -> Source:
        """What is known about the labels."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[int | str, tuple[Any, ...]]]:
        """Yield where each row stands and what it says of its molecule, without the matrices."""

    @abstractmethod
    def entry(self, key: int | str, *cells: Any) -> Entry:
        """Return the molecule of a row.

        Raises:
            InputError: a damaged row.
        """

    def name(self, key: int | str) -> str:
        """Return what to call a row that cannot be read."""
        return f"row {key}"

    def entries(self) -> Iterator[Entry | RowError]:
        """Yield the molecules in the order they stand, without their matrices; or why a row is none."""
        for key, cells in self.rows():
            try:
                found: Entry | RowError = self.entry(key, *cells)
            except (InputError, OSError, *DAMAGE) as error:
                found = RowError(one_line(error, longest=LONGEST_REASON), item=self.name(key), key=key)
            yield found

    @abstractmethod
    def read(self, entry: Entry, arrangement: Arrangement) -> Sample | None:
        """Return one sample in house order and atomic units, ``None`` if its SCF did not converge.

        Raises:
            InputError: a damaged row, named.
        """

    @abstractmethod
    def splits(self, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
        """Return an official split of the whole file by ids.

        Args:
            scheme: one of ``schemes``.
            ids: what was read, for formats where the file itself is the split.

        Raises:
            InputError: the file is not the whole published one, so that the rule does not apply.
        """

    def energy_shifts(self) -> Mapping[str, float]:
        """Return what may have to be added to the energies, Eh, by name."""
        return {"as stored": 0.0}

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def select(
    reader: Reader,
    *,
    elements: Collection[int] | None = None,
    max_atoms: int | None = None,
    limit: int | None = None,
    skips: Skips,
) -> list[Entry]:
    """Return the molecules to read: the first ``limit`` that consist of ``elements`` only.

    Args:
        reader: of the file.
        elements: atomic numbers.
        max_atoms: of a molecule.
        limit: of molecules.
        skips: takes rows that name no molecule: another one's id, atoms that are none, damage.
    """
    chosen: list[Entry] = []
    seen: set[str] = set()
    for entry in _entries(reader):
        if limit is not None and len(chosen) >= limit:
            break
        try:
            if isinstance(entry, RowError):
                raise entry
            if entry.id in seen:
                raise RowError(
                    "another row has the same id: the file is damaged, or two were joined",
                    item=entry.id,
                    key=entry.key,
                )
            seen.add(entry.id)
            _check_atoms(entry)
        except RowError as error:
            skips.add(error, item=error.item, file=reader.path, row=error.key)
            continue
        if max_atoms is not None and len(entry.numbers) > max_atoms:
            continue
        if elements is None or set(entry.numbers.tolist()) <= set(elements):
            chosen.append(entry)
    return chosen


def _entries(reader: Reader) -> Iterator[Entry | RowError]:
    """Yield the molecules; damage of the file as a whole is one line."""
    with understood(str(reader.path)):
        yield from reader.entries()


def _check_atoms(entry: Entry) -> None:
    """Raise RowError if a molecule has no atoms or one that is no element."""
    wrong = [int(n) for n in entry.numbers if not 0 < n < len(SYMBOLS)]
    if wrong or not len(entry.numbers):
        problem = f"atomic number {wrong[0]} is not an element" if wrong else "it has no atoms"
        raise RowError(f"{problem}; the row is damaged", item=entry.id, key=entry.key)


def read_sample(reader: Reader, entry: Entry, arrangement: Arrangement) -> Sample | None:
    """Read one sample, see :meth:`Reader.read`; forces that are all zero are taken for missing.

    Raises:
        InputError: a damaged row; always names the file and the molecule.
    """
    try:
        sample = reader.read(entry, arrangement)
    except (HelmolError, OSError, *DAMAGE) as error:
        text = one_line(error, longest=500)
        where = "" if text.startswith(str(reader.path)) else f"{reader.path}, {entry.id!r}: "
        raise InputError(f"{where}{text}") from error
    if sample is None:
        return None
    for name, label in (("energy", sample.energy), ("forces", sample.forces)):
        if label is not None and not np.isfinite(label).all():
            raise InputError(f"{reader.path}, {entry.id!r}: {name} holds values that are not finite")
    if sample.forces is not None and sample.molecule.n_atoms > 1 and not sample.forces.any():
        log.warning("%s: the forces of %r are all zero and taken for missing", reader.path, entry.id)
        return replace(sample, forces=None)
    return sample


def symmetric(matrix: Array, what: str) -> Array:
    """Return ``(M + Mᵀ)/2``, the same bits where M is symmetric.

    Raises:
        InputError: M is not square, not finite, nothing but zeros, or not symmetric to
            ``ASYMMETRY_TOLERANCE``.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"{what} has shape {matrix.shape}, expected a square matrix")
    if not np.isfinite(matrix).all():
        raise InputError(f"{what} holds values that are not finite: the row is damaged")
    if not matrix.any():
        raise InputError(f"{what} holds nothing but zeros: it is missing, or the row is damaged")
    difference = float(np.abs(matrix - matrix.T).max())
    if difference > ASYMMETRY_TOLERANCE:
        raise InputError(
            f"{what} differs from its transpose by {difference:.1e} (at most {ASYMMETRY_TOLERANCE:.0e} is "
            "rounding): the row is damaged, or its shape is wrong"
        )
    return np.asarray((matrix + matrix.T) / 2)
