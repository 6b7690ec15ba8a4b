"""The reference ``minao-hartree``: superposed atoms whose charge has settled in its own Coulomb field."""

from __future__ import annotations

import numpy as np
import scipy.linalg
from pyscf import gto, lib

from helmol import properties
from helmol.arrays import Array
from helmol.dft.densities import superposed_density
from helmol.dft.fitted_coulomb import FittedCoulomb
from helmol.dft.lite import minao_lite
from helmol.errors import ConvergenceError

TOLERANCE = 1e-6
"""Root of the Coulomb energy of what charge still moves at which the cycles end, √Eh: the change of matrix
elements is of its order in Eh."""
MOST_CYCLES = 200
REMEMBERED = 8
"""Cycles that DIIS extrapolates from."""


def minao_hartree(mole: gto.Mole, xc: str, *, max_memory: float = 4000.0) -> Array:
    """Return ``H = H_atoms + J[D − D_atoms]`` with D the density of its own orbitals, PySCF order, Eh.

    H_atoms is :func:`helmol.dft.lite.minao_lite` of neutral atoms, D_atoms their density, J the Coulomb
    potential by density fitting with few functions. What charge changes of the exchange-correlation potential
    is left out, so there is no grid beside that of H_atoms, and three-index integrals are computed once: a
    fraction of one Fock build. Levels share electrons around the Fermi energy
    (:func:`helmol.properties.smeared_occupations`); both spins have the same matrix.

    Args:
        mole: any molecule, with or without effective core potentials.
        xc: the functional, as for :func:`helmol.dft.lite.minao_lite`.
        max_memory: MB.

    Returns:
        ``[nao, nao]``.

    Raises:
        InputError: an element of which there is no atomic density.
        ConvergenceError: the charge does not settle.
    """
    neutral = mole.copy(deep=False)
    neutral.charge = 0
    atoms = minao_lite(neutral, xc)
    coulomb = FittedCoulomb(mole, max_memory=max_memory)
    orthonormal = properties.orthonormal(mole.intor_symmetric("int1e_ovlp"))
    start = coulomb.fit(superposed_density(mole))
    extrapolation = lib.diis.DIIS()
    extrapolation.space = REMEMBERED
    moved = np.zeros_like(start)
    for _ in range(MOST_CYCLES):
        matrix = atoms + coulomb.potential(moved)
        change = coulomb.fit(_density(matrix, orthonormal, mole.nelec)) - start - moved
        if coulomb.energy(change) < TOLERANCE**2:
            return matrix
        moved = extrapolation.update(moved + change, change)
    raise ConvergenceError(f"the charge of minao-hartree does not settle in {MOST_CYCLES} cycles")


def _density(matrix: Array, orthonormal: Array, nelec: tuple[int, int]) -> Array:
    """Return the density of the orbitals of a matrix, of both spins together."""
    energy, coeff = scipy.linalg.eigh(
        orthonormal.T @ matrix @ orthonormal, overwrite_a=True, check_finite=False, driver="evd"
    )
    filled = [properties.smeared_occupations(energy, n) for n in nelec]
    return properties.density(orthonormal @ coeff, filled[0] + filled[1])
