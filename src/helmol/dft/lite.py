"""The reference ``minao-lite``: the Fock matrix of superposed atoms without a density matrix."""

from __future__ import annotations

import numpy as np
from pyscf import gto

from helmol.arrays import Array
from helmol.dft.atoms import SphericalAtom, spherical_atom
from helmol.dft.gaussian_field import GaussianField
from helmol.dft.xc_field import fitted_xc, stand_in


def minao_lite(mole: gto.Mole, xc: str) -> Array:
    """Return ``T + V_ECP + Σ_A V_A + u_xc``, PySCF order, Eh.

    V_A is the potential of nucleus and electrons of the neutral, spherical atom A, u_xc the fitted
    exchange-correlation potential of the sum of the atoms' densities. Both are sums of Gaussians around
    the atoms, so a matrix element is a sum of overlaps of three Gaussians. Charge and spin of the molecule
    have no influence: ions get the matrix of the neutral molecule, both spins get the same.

    Args:
        mole: any molecule, with or without effective core potentials.
        xc: the functional; see :func:`helmol.dft.xc_field.stand_in` for what is taken of it.

    Returns:
        ``[nao, nao]``.

    Raises:
        InputError: an element of which there is no atomic density.
    """
    matrix = mole.intor_symmetric("int1e_kin") + superposed_field(mole, xc).matrix(mole)
    if mole.has_ecp():
        matrix += mole.intor_symmetric("ECPscalar")
    return np.asarray(matrix)


def superposed_atoms(mole: gto.Mole) -> list[SphericalAtom]:
    """Return the spherical atoms of a molecule."""
    return [spherical_atom(mole, k) for k in range(mole.natm)]


def superposed_field(mole: gto.Mole, xc: str) -> GaussianField:
    """Return ``Σ_A V_A + u_xc`` of a molecule."""
    centres, atoms = np.array(mole.atom_coords(unit="Bohr")), superposed_atoms(mole)
    xc_field = fitted_xc(centres, atoms, stand_in(xc))
    n = max(xc_field.s.shape[1], *(len(atom.potential) for atom in atoms))
    s, p = np.zeros((len(atoms), n)), np.zeros((len(atoms), n, 3))
    s[:, : xc_field.s.shape[1]], p[:, : xc_field.p.shape[1]] = xc_field.s, xc_field.p
    for k, atom in enumerate(atoms):
        s[k, : len(atom.potential)] += atom.potential
    return GaussianField(centres, s, p)
