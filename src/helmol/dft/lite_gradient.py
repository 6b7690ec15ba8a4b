"""Derivatives of the reference ``minao-lite`` with respect to positions, for forces."""

from __future__ import annotations

import numpy as np
from pyscf import gto

from helmol.arrays import Array
from helmol.dft.gaussian_field import owners_of, three_centre, unit_functions
from helmol.dft.lite import atomic_numbers, spread_charges, superposed_atoms, with_atoms
from helmol.dft.xc_field import N_S, Normal, Points, equations, stand_in
from helmol.dft.xc_gradient import fit_gradient


def minao_lite_gradient(mole: gto.Mole, xc: str, weights: Array) -> Array:
    """Return ``d/dR_A Σ_µν X_µν H₀_µν`` of the matrix :func:`helmol.dft.lite.minao_lite`, X being held.

    All of it is analytic: basis functions, nuclei and electrons of the atoms, effective core potentials and
    the charge of an ion move with their atoms; the fitted exchange-correlation potential responds to the
    densities, and to its points, which move with the atoms too, but do not turn with the molecule. So the sum
    over the atoms vanishes to rounding, the torque to what turning changes H₀ by. Only what the thresholds
    leave out has no derivative: functions below 1e-4 on the points of far atoms.

    It takes 8 (9 atoms) to 13 times (32 atoms) as long as the matrix.

    Args:
        mole: any molecule.
        xc: the functional, as for the matrix.
        weights: X, ``[nao, nao]``, PySCF order; only its symmetric part counts.

    Returns:
        ``[n_atoms, 3]``, Eh/bohr times the unit of X.

    Raises:
        InputError: an element of which there is no atomic density.
    """
    found = _Gradient(mole, weights)
    found.add(mole.intor("int1e_ipkin", comp=3))
    if mole.has_ecp():
        alone = mole.copy(deep=False)
        alone._env = mole._env.copy()
        for atom in sorted(set(mole._ecpbas[:, gto.ATOM_OF].tolist())):
            with alone.with_rinv_at_nucleus(atom):
                found.add(alone.intor("ECPscalar_iprinv", comp=3), centre=atom)
    for share, spread, atoms in spread_charges(mole) if mole.charge else ():
        for atom in atoms.tolist():
            with spread.with_rinv_at_nucleus(atom):
                found.add(-mole.charge * share * spread.intor("int1e_iprinv", comp=3), centre=atom)
    _add_field(found, mole, stand_in(xc))
    return found.total


class _Gradient:
    """Sum up derivatives of ``Σ X_µν ⟨µ|V|ν⟩``.

    Args:
        mole: of the functions.
        weights: X.
    """

    def __init__(self, mole: gto.Mole, weights: Array) -> None:
        self.weights = (np.asarray(weights) + np.transpose(weights)) / 2
        self.total = np.zeros((int(mole.natm), 3))
        self._owners = owners_of(mole)

    def add(self, integrals: Array, *, centre: int | None = None) -> None:
        """Add the part of an operator.

        Args:
            integrals: ``⟨∇µ|V|ν⟩``, ``[3, nao, nao]``.
            centre: atom that the operator moves with, if it does with any.
        """
        change = 2 * np.einsum("xij,ij->ix", integrals, self.weights)
        # A function that moves with its atom changes by −∇µ.
        np.add.at(self.total, self._owners, -change)
        if centre is not None:
            # If functions and operator move together nothing changes.
            self.total[centre] += change.sum(axis=0)


def _add_field(gradient: _Gradient, mole: gto.Mole, xc: str) -> None:
    """Add the potentials of the atoms and the fitted one, and how the latter changes."""
    centres, atoms = superposed_atoms(mole)
    there = [k for k, z in enumerate(atomic_numbers(mole)) if z]
    points = Points.of(centres, atoms, xc)
    matrix, right = equations(points, xc)
    normal = Normal(matrix)
    coefficients = normal.solved(right)
    field = with_atoms(points.field(coefficients), atoms)
    of_functions, of_centres = field.gradient(mole, gradient.weights)
    gradient.total += of_functions
    gradient.total[there] += of_centres
    slopes = []
    for k in range(len(atoms)):
        levels = points.levels[k]
        functions, units = unit_functions(centres[k], levels[:N_S], levels[N_S:])
        overlaps = three_centre("int3c1e", mole, functions)[0]
        slopes.append(np.einsum("ijk,ij->k", overlaps, gradient.weights) / units)
    adjoint = normal.solved(np.concatenate(slopes))
    gradient.total[there] += fit_gradient(points, xc, coefficients, adjoint)
