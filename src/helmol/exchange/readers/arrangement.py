"""Where the orbitals of a foreign matrix stand, as one gather with signs per molecule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from helmol.arrays import Array, IntArray
from helmol.basis import BasisSet, house_order
from helmol.errors import InputError

Integers = IntArray

ARRANGEMENTS: dict[str, str] = {
    "house": "m = -l ... l in every shell",
    "pyscf": "PySCF's order (p as x, y, z)",
    "orca": "ORCA's order (m = 0, +1, -1, ...; signs of f and g)",
    "psi4": "Psi4's order (m = 0, +1, -1, ...)",
    "aims": "FHI-aims' order",
    "appended-house": "m = -l ... l, diffuse shells last on every atom",
    "appended-orca": "ORCA's order with the diffuse shells last on every atom",
    "appended-mixed": "ORCA's order, re-ordered with a list of shells sorted by l "
    "although the diffuse ones stand last",
}
"""Every order that a file can be in, in words."""


@dataclass(frozen=True)
class Arrangement:
    """Bring matrices of molecules from a foreign order to the house order and back.

    Attributes:
        basis: shells of the elements, PySCF's order.
        order: key of ``ARRANGEMENTS``.
        appended: for the orders with appended shells, by atomic number: the places in PySCF's
            order of the shells as the foreign program has them.
    """

    basis: BasisSet
    order: str
    appended: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def gather(self, numbers: Integers) -> tuple[Integers, Array]:
        """Return index and sign with ``house[k] = sign[k] · foreign[index[k]]``.

        Raises:
            InputError: an element outside the basis, or no order known for it.
        """
        shells = self.basis.shells(numbers)
        if self.order in ("house", "pyscf", "orca", "psi4", "aims"):
            return house_order(shells, self.order)  # type: ignore[arg-type]
        if self.order not in ARRANGEMENTS:
            raise InputError(f"unknown order {self.order!r}: known are {', '.join(ARRANGEMENTS)}")
        places = self._places(numbers)
        foreign = [shells[place] for place in places]
        index, sign = _shells_gather(shells, places)
        if self.order == "appended-house":
            return index, sign
        inner, inner_sign = house_order(foreign, "orca")
        index, sign = inner[index], inner_sign[index]
        if self.order == "appended-orca":
            return index, sign
        # What is in the file is gather(by_l) of ORCA's matrix: undo that first.
        wrong, wrong_sign = house_order([l for n in numbers for l in sorted(self._of(n))], "orca")
        undo = np.argsort(wrong)
        return undo[index], sign * wrong_sign[undo[index]]

    def to_house(self, matrix: Array, numbers: Integers) -> Array:
        """Bring ``[nao, nao]`` to house order; exact in every bit.

        Raises:
            InputError: the matrix does not fit the molecule.
        """
        index, sign = self._checked(matrix, numbers)
        return np.ascontiguousarray(matrix[index[:, None], index] * (sign[:, None] * sign))

    def from_house(self, matrix: Array, numbers: Integers) -> Array:
        """Undo :meth:`to_house`; exact in every bit."""
        index, sign = self._checked(matrix, numbers)
        inverse = np.argsort(index)
        return np.ascontiguousarray((matrix * (sign[:, None] * sign))[inverse[:, None], inverse])

    def _checked(self, matrix: Array, numbers: Integers) -> tuple[Integers, Array]:
        index, sign = self.gather(numbers)
        if matrix.shape != (len(index), len(index)):
            raise InputError(
                f"a matrix of shape {matrix.shape} does not fit the {len(index)} orbitals of "
                f"{self.basis.name} for these atoms"
            )
        return index, sign

    def _of(self, number: int) -> tuple[int, ...]:
        return self.basis.signature(int(number))

    def _places(self, numbers: Integers) -> list[int]:
        """Return for each shell in the foreign sequence its place in PySCF's."""
        places: list[int] = []
        start = 0
        for number in numbers.tolist():
            if number not in self.appended:
                raise InputError(f"no order of the shells of element {number} is known")
            places += [start + place for place in self.appended[number]]
            start += len(self._of(number))
        return places


def _shells_gather(shells: list[int], places: list[int]) -> tuple[Integers, Array]:
    """Return the gather that sorts whole shells: foreign shell k goes to ``places[k]``."""
    foreign = np.concatenate([[0], np.cumsum([2 * shells[place] + 1 for place in places])])
    start_of = {place: int(foreign[k]) for k, place in enumerate(places)}
    index = np.concatenate([start_of[k] + np.arange(2 * l + 1) for k, l in enumerate(shells)])
    return index.astype(np.int64), np.ones(len(index))
