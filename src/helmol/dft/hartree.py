"""The reference ``minao-hartree``: superposed atoms whose charge has settled in its own Coulomb field."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from pyscf import gto, lib

from helmol import properties
from helmol.arrays import Array
from helmol.dft.densities import superposed_density
from helmol.dft.fitted_coulomb import FittedCoulomb, auxiliary_functions
from helmol.dft.lite import neutral_atoms
from helmol.errors import ConvergenceError
from helmol.properties.orbitals import EMPTY

TOLERANCE = 3e-5
"""Root of the Coulomb energy of a step at which the cycles end, √Eh. It is still taken, and what is left
after it is a tenth of it or less: of the order in Eh of the change of matrix elements."""
TIGHT_TOLERANCE = 1e-6
"""Likewise where steps do not aim at the solution."""
NEWTON_CYCLES = 30
"""Cycles after which steps by the response are given up."""
LEAST_CYCLES, SHRINK = 3, 0.4
"""A response is made anew where after so many more cycles steps have not shrunk by such a factor a cycle."""
MOST_CYCLES = 200
REMEMBERED = 8
"""Cycles that DIIS extrapolates from."""
BELOW, ABOVE = 2.0, 1.2
"""Levels that the response of the first cycle is made of, Eh below and above the highest filled one."""
LEAST_OCCUPATION = 1e-4
"""Electrons of a level that counts as filled for it."""
SAME_LEVEL = 1e-4
"""Levels that are nearer to each other are taken as equal, Eh."""


def minao_hartree(mole: gto.Mole, xc: str, *, max_memory: float = 4000.0) -> Array:
    """Return ``H = H_atoms + J[D − D_atoms]`` with D the density of its own orbitals, PySCF order, Eh.

    H_atoms is :func:`helmol.dft.lite.neutral_atoms`, D_atoms their density, J the Coulomb
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
    atoms = neutral_atoms(mole, xc)
    coulomb = FittedCoulomb(mole, auxiliary_functions(mole), max_memory=max_memory)
    orthonormal = properties.orthonormal(mole.intor_symmetric("int1e_ovlp"))
    start = coulomb.fit(superposed_density(mole))
    for newton in (True, False):
        settled = _settle(atoms, coulomb, orthonormal, start, mole.nelec, newton=newton)
        if settled is not None:
            return settled
    raise ConvergenceError(f"the charge of minao-hartree does not settle in {MOST_CYCLES} cycles")


def _settle(
    atoms: Array,
    coulomb: FittedCoulomb,
    orthonormal: Array,
    start: Array,
    nelec: tuple[int, int],
    *,
    newton: bool,
) -> Array | None:
    """Return the matrix with its charge settled, or ``None`` if it does not settle.

    Args:
        atoms: H_atoms.
        coulomb: expands densities.
        orthonormal: X with ``Xᵀ S X = 1``.
        start: coefficients of D_atoms.
        nelec: electrons of both spins.
        newton: steps go to where the response of an earlier cycle's orbitals says that charge settles.
    """
    moved, factor, extrapolation = np.zeros_like(start), None, _diis()
    sizes: list[float] = []
    tolerance, most = (
        (TOLERANCE, min(NEWTON_CYCLES, MOST_CYCLES)) if newton else (TIGHT_TOLERANCE, MOST_CYCLES)
    )
    for _ in range(most):
        energy, vectors = _levels(atoms + coulomb.potential(moved), orthonormal)
        occupations = np.array([properties.smeared_occupations(energy, n) for n in nelec])
        filled = int(np.flatnonzero((occupations > EMPTY).any(axis=0)).max(initial=0)) + 1
        density = properties.density(orthonormal @ vectors[:, :filled], occupations.sum(axis=0)[:filled])
        step = change = coulomb.fit(density) - start - moved
        if newton:
            if factor is None or _is_slow(sizes):
                extrapolation, sizes = _diis(), []
                kernel = coulomb.metric - response(coulomb, energy, orthonormal @ vectors, occupations)
                factor = scipy.linalg.lu_factor(kernel, check_finite=False)
            step = scipy.linalg.lu_solve(factor, coulomb.metric @ change, check_finite=False)
        moved = extrapolation.update(moved + step, step)
        sizes.append(max(coulomb.energy(step), 0.0) ** 0.5)
        if sizes[-1] < tolerance:
            return np.asarray(atoms + coulomb.potential(moved))
    return None


def _diis() -> Any:
    """Return what extrapolates charge from the last cycles."""
    extrapolation = lib.diis.DIIS()
    extrapolation.space = REMEMBERED
    return extrapolation


def _is_slow(sizes: list[float]) -> bool:
    """Return whether steps by a response have not become small as fast as they should."""
    return len(sizes) > LEAST_CYCLES and sizes[-1] > SHRINK ** (len(sizes) - 1) * sizes[0]


def _levels(matrix: Array, orthonormal: Array) -> tuple[Array, Array]:
    """Return the energies of the orbitals of a matrix, and their coefficients over the columns of X."""
    energy, vectors = scipy.linalg.eigh(
        orthonormal.T @ matrix @ orthonormal, overwrite_a=True, check_finite=False, driver="evd"
    )
    return np.asarray(energy), np.asarray(vectors)


def response(coulomb: FittedCoulomb, energy: Array, coeff: Array, occupations: Array) -> Array:
    """Return how much charge independent electrons move in a field, ``Π_PQ = Σ_σij w_σij (P|ij) (Q|ij)``.

    ``w_ij = (n_i − n_j) / (ε_i − ε_j)`` and ``dn/dε`` of equal levels; the Fermi energy follows so that no
    charge comes or goes. Only valence levels and low empty ones are taken, where no level is partly
    filled in single precision: it guides the cycles and does not change where they end.

    Args:
        coulomb: has the integrals.
        energy: of all levels, ``[nmo]``, Eh, ascending.
        coeff: ``[nao, nmo]``.
        occupations: of both spins, ``[2, nmo]``.

    Returns:
        ``[n, n]``, Eh, without positive eigenvalues.

    Source: Adler, Phys. Rev. 126, 413 (1962); Wiser, Phys. Rev. 129, 62 (1963).
    """
    both = occupations.sum(axis=0)
    highest = energy[both >= both.max() / 2].max()
    first, last = np.searchsorted(energy, [highest - BELOW, highest + ABOVE])
    end = max(int(np.flatnonzero(both > LEAST_OCCUPATION).max(initial=-1)) + 1, first)
    last = max(last, end)
    softness = occupations * (1 - occupations) / properties.TEMPERATURE
    distance = energy[first:end, None] - energy[first:last]
    near = np.abs(distance) < SAME_LEVEL
    of_pairs = (both[first:last] - both[first:end, None]) / np.where(near, 1.0, distance)
    total = softness.sum(axis=0)
    weights = np.where(near, (total[first:end, None] + total[first:last]) / 2, of_pairs)
    weights[:, end - first :] *= 2
    open_levels = np.flatnonzero(total > LEAST_OCCUPATION)
    # Where levels share electrons the response is thousands of times as large, and all its digits matter.
    weights = np.maximum(weights, 0).astype(float if open_levels.size else np.float32)
    found = -coulomb.polarisation(coeff[:, first:end], coeff[:, first:last], weights).astype(float)
    if open_levels.size:
        own = coulomb.diagonal(coeff[:, open_levels])
        for of_spin in softness[:, open_levels]:
            if of_spin.sum() > LEAST_OCCUPATION:
                found += np.outer(own @ of_spin, own @ of_spin) / of_spin.sum()
    return found
