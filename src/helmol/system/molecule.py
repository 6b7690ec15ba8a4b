"""A molecule: the only input the network ever has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from helmol.arrays import Array, IntArray
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.units import ANGSTROM_PER_BOHR

MINIMUM_DISTANCE_ANGSTROM = 0.3
"""Two nuclei closer than this are taken for a mistake in the input (H–H bonds are 0.74 Å)."""


@dataclass(frozen=True)
class Molecule:
    """Hold the nuclei, charge and spin of one molecule.

    Attributes:
        numbers: atomic numbers, int64 ``[n_atoms]``.
        positions: nuclear positions in bohr, float64 ``[n_atoms, 3]``.
        charge: total charge in units of e.
        spin: ``2S``, the number of unpaired electrons (PySCF's convention; the multiplicity is
            ``spin + 1``).

    Raises:
        InputError: no atoms, unknown element, wrong shape, a coordinate that is not finite, two
            atoms closer than 0.3 Å, a dummy atom, a number that is not whole, or electrons that do not go
            with ``spin``.
    """

    numbers: IntArray
    positions: Array
    charge: int = 0
    spin: int = 0

    def __post_init__(self) -> None:
        numbers = _whole_numbers(self.numbers)
        positions = np.array(self.positions, dtype=np.float64)
        if numbers.ndim != 1 or len(numbers) == 0:
            raise InputError("a molecule needs at least one atom")
        if positions.shape != (len(numbers), 3):
            raise InputError(
                f"positions have shape {positions.shape}, expected ({len(numbers)}, 3) "
                f"for {len(numbers)} atoms"
            )
        if (numbers == 0).any():
            atom = int(np.flatnonzero(numbers == 0)[0])
            raise InputError(
                f"atom {atom + 1} is a dummy or ghost atom (atomic number 0 is not an element): leave it out"
            )
        if numbers.min() < 1 or numbers.max() >= len(SYMBOLS):
            raise InputError(
                f"atomic number {int(numbers.min() if numbers.min() < 1 else numbers.max())} "
                f"is not an element (1 to {len(SYMBOLS) - 1})"
            )
        if not np.isfinite(positions).all():
            atom = int(np.flatnonzero(~np.isfinite(positions).all(axis=1))[0])
            raise InputError(
                f"atom {atom + 1} ({SYMBOLS[numbers[atom]]}) has a coordinate that is not a finite number"
            )
        _refuse_close_atoms(numbers, positions)
        for name, value in (("charge", self.charge), ("spin", self.spin)):
            if value != int(value):
                raise InputError(f"{name} = {value}: expected a whole number")
        electrons = int(numbers.sum()) - self.charge
        if self.spin < 0 or electrons < self.spin or (electrons - self.spin) % 2:
            raise InputError(
                f"{electrons} electrons (charge {self.charge}) cannot have {self.spin} unpaired "
                f"(spin = 2S = {self.spin}): give the right charge or spin"
            )
        numbers.setflags(write=False)
        positions.setflags(write=False)
        object.__setattr__(self, "numbers", numbers)
        object.__setattr__(self, "positions", positions)
        object.__setattr__(self, "charge", int(self.charge))
        object.__setattr__(self, "spin", int(self.spin))

    @classmethod
    def from_angstrom(
        cls,
        numbers: npt.ArrayLike,
        positions_ang: npt.ArrayLike,
        *,
        charge: int = 0,
        spin: int = 0,
    ) -> Molecule:
        """Build a molecule from positions in Å; ``spin`` is 2S."""
        positions = np.asarray(positions_ang, dtype=np.float64) / ANGSTROM_PER_BOHR
        return cls(np.asarray(numbers), positions, charge, spin)

    @classmethod
    def many(
        cls,
        numbers: IntArray,
        positions: Array,
        *,
        charges: Sequence[int],
        spins: Sequence[int],
    ) -> list[Molecule]:
        """Build molecules that were checked before they were stored; nothing is checked again.

        Args:
            numbers: atomic numbers of all of them, ``[n_atoms]``.
            positions: bohr, ``[n, n_atoms, 3]``; shared, and made read-only.
            charges: of each.
            spins: 2S of each.
        """
        numbers.setflags(write=False)
        positions.setflags(write=False)
        found = []
        for place, charge, spin in zip(positions, charges, spins, strict=True):
            molecule = object.__new__(cls)
            molecule.__dict__.update(numbers=numbers, positions=place, charge=charge, spin=spin)
            found.append(molecule)
        return found

    def __repr__(self) -> str:
        return f"Molecule({self.formula}, charge={self.charge}, spin={self.spin})"

    @property
    def n_atoms(self) -> int:
        """Number of nuclei."""
        return len(self.numbers)

    @property
    def n_edges(self) -> int:
        """Number of directed atom pairs, ``n_atoms (n_atoms − 1)``."""
        return self.n_atoms * (self.n_atoms - 1)

    @property
    def positions_ang(self) -> Array:
        """Positions in Å, ``[n_atoms, 3]``."""
        return self.positions * ANGSTROM_PER_BOHR

    @cached_property
    def formula(self) -> str:
        """Hill formula (C, H, then alphabetical), e.g. ``C2H6O``."""
        symbols = [SYMBOLS[number] for number in self.numbers]
        counts = {symbol: symbols.count(symbol) for symbol in sorted(set(symbols))}
        first = [s for s in ("C", "H") if s in counts and "C" in counts]
        order = first + [s for s in counts if s not in first]
        return "".join(s + (str(counts[s]) if counts[s] > 1 else "") for s in order)


def _whole_numbers(numbers_like: npt.ArrayLike) -> IntArray:
    """Return atomic numbers as integers; a fraction is an error, not cut off."""
    values = np.array(numbers_like)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    numbers = values.astype(np.float64)
    if not (np.isfinite(numbers).all() and (numbers == np.round(numbers)).all()):
        raise InputError(
            f"atomic numbers {values.tolist()[:5]}: expected whole numbers, no fractional nuclei"
        )
    return numbers.astype(np.int64)


def _refuse_close_atoms(numbers: IntArray, positions: Array) -> None:
    """Raise if any two nuclei are closer than ``MINIMUM_DISTANCE_ANGSTROM``."""
    if len(numbers) < 2:
        return
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    distances[np.diag_indices(len(numbers))] = np.inf
    i, j = np.unravel_index(int(distances.argmin()), distances.shape)
    if (shortest := distances[i, j] * ANGSTROM_PER_BOHR) < MINIMUM_DISTANCE_ANGSTROM:
        raise InputError(
            f"atoms {i + 1} ({SYMBOLS[numbers[i]]}) and {j + 1} ({SYMBOLS[numbers[j]]}) are "
            f"{shortest:.3f} Å apart, less than {MINIMUM_DISTANCE_ANGSTROM} Å: "
            "check the units (Å wanted) and the file"
        )
