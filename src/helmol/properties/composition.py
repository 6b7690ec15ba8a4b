"""What of a total energy the composition alone explains: one energy per element, by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helmol.arrays import Array, Float64, Int64, IntArray

N_ELEMENTS = 119
"""Atomic numbers 0 to 118."""
RANK_TOLERANCE = 1e-8
"""Singular values of the compositions below this share of the largest count as zero."""


@dataclass(frozen=True)
class ElementEnergies:
    """Hold the fit ``E = Σ_i E(Z_i) + rest`` of some molecules.

    Attributes:
        elements: atomic numbers that occur, ascending.
        per_element: ``[119]`` by atomic number, Eh; zero for elements that were not there.
        span: orthonormal rows ``[rank, 119]`` of the compositions that were there: energies of other
            compositions are not determined.
        rest: of each molecule, ``[n]``, Eh.
    """

    elements: Int64[IntArray, " n_elements"]
    per_element: Float64[Array, 119]
    span: Float64[Array, "rank 119"]
    rest: Float64[Array, " n"]

    @property
    def rank(self) -> int:
        """Number of combinations of element energies that the molecules determine."""
        return len(self.span)


def composition(numbers: Int64[IntArray, " n_atoms"]) -> Float64[Array, 119]:
    """Return how many atoms of each element there are, ``[119]``."""
    return np.bincount(numbers, minlength=N_ELEMENTS).astype(np.float64)


def element_energies(numbers: Sequence[IntArray], energies: Float64[Array, " n"]) -> ElementEnergies:
    """Fit the energies of the elements; where they are not determined, the shortest solution.

    Args:
        numbers: atomic numbers of each molecule; at least one.
        energies: Eh, ``[n]``.
    """
    counts = np.stack([composition(one) for one in numbers])
    elements = np.flatnonzero(counts.any(axis=0))
    left, size, right = np.linalg.svd(counts[:, elements], full_matrices=False)
    kept = size > RANK_TOLERANCE * size[0]
    solution = right[kept].T @ ((left[:, kept].T @ energies) / size[kept])
    per_element, span = np.zeros(N_ELEMENTS), np.zeros((int(kept.sum()), N_ELEMENTS))
    per_element[elements], span[:, elements] = solution, right[kept]
    return ElementEnergies(elements, per_element, span, energies - counts[:, elements] @ solution)
