"""The empirical dispersion of ωB97X-D, which PySCF's functional of that name leaves out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from helmol.arrays import Array
from helmol.dft.level import CHAI_HEAD_GORDON, LevelConfig, dispersion_of
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.system import Molecule
from helmol.units import ANGSTROM_PER_BOHR, JOULE_PER_MOL_PER_HARTREE

DAMPING = 6.0
"""The a of the damping function. Source: Chai & Head-Gordon (2008)."""

# fmt: off
C6_AND_RADIUS = (
    (0.14, 1.001), (0.08, 1.012),  # H, He
    (1.61, 0.825), (1.61, 1.408), (3.13, 1.485), (1.75, 1.452),  # Li to Ne
    (1.23, 1.397), (0.70, 1.342), (0.75, 1.287), (0.63, 1.243),
    (5.71, 1.144), (5.71, 1.364), (10.79, 1.639), (9.23, 1.716),  # Na to Ar
    (7.84, 1.705), (5.57, 1.683), (5.07, 1.639), (4.61, 1.595),
    (10.80, 1.485), (10.80, 1.474), *[(10.80, 1.562)] * 10, (16.99, 1.650), (17.10, 1.727),  # K to Kr
    (16.37, 1.760), (12.64, 1.771), (12.47, 1.749), (12.01, 1.727),
    (24.67, 1.628), (24.67, 1.606), *[(24.67, 1.639)] * 10, (37.32, 1.672), (38.71, 1.804),  # Rb to Xe
    (38.44, 1.881), (31.74, 1.892), (31.50, 1.892), (29.99, 1.881),
)
# fmt: on
"""``C6`` (J nm⁶/mol) and van der Waals radius (Å) of H to Xe. Source: Grimme, J. Comput. Chem. 27, 1787
(2006), table 1."""

_C6 = np.array([c6 for c6, _ in C6_AND_RADIUS]) / JOULE_PER_MOL_PER_HARTREE * (10 / ANGSTROM_PER_BOHR) ** 6
_RADII = np.array([radius for _, radius in C6_AND_RADIUS]) / ANGSTROM_PER_BOHR


def dispersion(molecule: Molecule, level: LevelConfig) -> tuple[float, Array]:
    """Return the empirical energy that PySCF's mean field of a level lacks, and its gradient.

    ``E = −Σ_(i<j) √(C6_i C6_j) / R_ij⁶ · f``, ``f = 1 / (1 + a ((R0_i + R0_j) / R_ij)¹²)`` for ωB97X-D, zero
    for every other functional and where the level leaves it out.

    Returns:
        Eh; ``[n_atoms, 3]``, Eh/bohr.

    Raises:
        InputError: an element beyond Xe.

    Source: Chai & Head-Gordon, Phys. Chem. Chem. Phys. 10, 6615 (2008).
    """
    gradient = np.zeros((molecule.n_atoms, 3))
    if dispersion_of(level) != CHAI_HEAD_GORDON:
        return 0.0, gradient
    check_dispersion(molecule.numbers.tolist(), level)
    i, j = np.triu_indices(molecule.n_atoms, 1)
    between = molecule.positions[i] - molecule.positions[j]
    distance = np.linalg.norm(between, axis=1)
    c6, radii = _C6[molecule.numbers - 1], _RADII[molecule.numbers - 1]
    damping = 1 / (1 + DAMPING * ((radii[i] + radii[j]) / distance) ** 12)
    energy = -np.sqrt(c6[i] * c6[j]) / distance**6 * damping
    # dE/dR = E (6 − 12 f) / R.
    pull = (energy * (6 - 12 * damping) / distance**2)[:, None] * between
    np.add.at(gradient, i, pull)
    np.subtract.at(gradient, j, pull)
    return float(energy.sum()), gradient


def check_dispersion(numbers: Iterable[int], level: LevelConfig) -> None:
    """Raise InputError if the level's empirical dispersion has no parameters for an element."""
    heaviest = max(numbers)
    if heaviest > len(C6_AND_RADIUS) and dispersion_of(level) == CHAI_HEAD_GORDON:
        raise InputError(
            f"the dispersion of {level.xc} has parameters for H to Xe, not for {SYMBOLS[heaviest]}: "
            "set level.dispersion to null to leave it out"
        )
