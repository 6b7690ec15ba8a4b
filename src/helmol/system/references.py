"""Which cheap Fock matrices of a sample are what their name means today."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from helmol.basis import BasisSet

FROM_DENSITIES = ("minao", "minao-df", "minao-coarse", "minao-step")
"""References that start from a density of superposed atoms."""

MARK = {"reference_densities": "exact charge"}
"""What the provenance of a sample says if those references have all electrons of atoms with effective core
potentials. Older ones lack up to 1.7 electrons for every such atom."""


def outdated_references(
    names: Iterable[str], numbers: npt.NDArray[np.int64], basis: BasisSet, provenance: Mapping[str, object]
) -> tuple[str, ...]:
    """Return those of a sample's references that were made of a density that lacks electrons.

    Args:
        names: the references it has.
        numbers: its atoms.
        basis: their basis, which knows where a potential replaces the core.
        provenance: of the sample.
    """
    if MARK.items() <= provenance.items() or not has_core_potentials(numbers, basis):
        return ()
    return tuple(name for name in names if name in FROM_DENSITIES)


def has_core_potentials(numbers: npt.NDArray[np.int64], basis: BasisSet) -> bool:
    """Return whether an effective core potential replaces electrons of some atom."""
    return any(basis.elements[number].core_electrons for number in set(numbers.tolist()))
