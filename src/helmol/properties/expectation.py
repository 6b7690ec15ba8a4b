"""Expectation values of a density matrix, and how far a (F, D) pair is from self-consistency."""

from __future__ import annotations

import numpy as np

from helmol.arrays import Array, Float64, Int64, IntArray
from helmol.basis import BasisSet


def nuclear_charges(numbers: Int64[IntArray, " n_atoms"], basis: BasisSet) -> Float64[Array, " n_atoms"]:
    """Return the charges that the electrons see, Z minus the ECP's core electrons, ``[n_atoms]``."""
    return np.array([n - basis.elements[int(n)].core_electrons for n in numbers], dtype=np.float64)


def total_density(density: Float64[Array, "*spins nao nao"]) -> Float64[Array, "nao nao"]:
    """Return the density matrix ``[nao, nao]`` of all electrons, of one matrix or of two spins."""
    return density.sum(axis=0) if density.ndim == 3 else density


def dipole(
    density: Float64[Array, "*spins nao nao"],
    integrals: Float64[Array, "3 nao nao"],
    *,
    positions: Float64[Array, "n_atoms 3"],
    charges: Float64[Array, " n_atoms"],
) -> Float64[Array, 3]:
    """Return the dipole moment ``μ = Σ_A Z_A R_A − Tr(D r)`` about the origin.

    For a charged molecule it depends on the origin, as everywhere.

    Args:
        density: ``[nao, nao]`` or ``[2, nao, nao]``.
        integrals: ``⟨μ|r|ν⟩`` about the origin, ``[3, nao, nao]``, bohr.
        positions: nuclei, ``[n_atoms, 3]``, bohr.
        charges: nuclear charges without ECP cores (:func:`nuclear_charges`), ``[n_atoms]``.

    Returns:
        ``[3]`` in e·bohr.
    """
    return np.asarray(charges @ positions + electronic_dipole(density, integrals))


def electronic_dipole(
    density: Float64[Array, "*spins nao nao"], integrals: Float64[Array, "3 nao nao"]
) -> Float64[Array, 3]:
    """Return the electrons' part of :func:`dipole`, ``−Tr(D r)``; that of a difference of densities, too."""
    return np.asarray(-np.einsum("xij,ji->x", integrals, total_density(density)))


def quadrupole(
    density: Float64[Array, "*spins nao nao"],
    integrals: Float64[Array, "3 3 nao nao"],
    *,
    positions: Float64[Array, "n_atoms 3"],
    charges: Float64[Array, " n_atoms"],
) -> Float64[Array, "3 3"]:
    """Return the traceless quadrupole moment about the origin.

    ``Θ_xy = ½ Σ_A Z_A (3 x_A y_A − δ_xy R_A²) − ½ Tr[D (3 xy − δ_xy r²)]``. It depends on the origin wherever
    a charge or a dipole is not zero: give positions and integrals about the point that is meant.

    Args:
        density: ``[nao, nao]`` or ``[2, nao, nao]``.
        integrals: ``⟨μ|xy|ν⟩`` about the origin, ``[3, 3, nao, nao]``, bohr².
        positions: nuclei, ``[n_atoms, 3]``, bohr.
        charges: nuclear charges without ECP cores (:func:`nuclear_charges`), ``[n_atoms]``.

    Returns:
        ``[3, 3]`` in e·bohr², symmetric, of trace zero.

    Source: Buckingham, Q. Rev. Chem. Soc. 13, 183 (1959).
    """
    nuclei = np.einsum("a,ax,ay->xy", charges, positions, positions)
    moment = nuclei - np.einsum("xyij,ji->xy", integrals, total_density(density))
    return np.asarray((3 * moment - np.trace(moment) * np.eye(3)) / 2)


def residual(
    fock: Float64[Array, "*spins nao nao"],
    density: Float64[Array, "*spins nao nao"],
    overlap: Float64[Array, "nao nao"],
) -> float:
    """Return the Frobenius norm ``‖F D S − S D F‖`` in Eh, over both spins.

    It vanishes where SCF converges, if ``fock`` was built from ``density``. For a density made of
    the orbitals of the same ``fock`` it vanishes always and says nothing.
    """
    product = fock @ density @ overlap
    return float(np.linalg.norm(product - np.swapaxes(product, -1, -2)))


def density_error(
    predicted: Float64[Array, "*spins nao nao"], true: Float64[Array, "*spins nao nao"]
) -> float:
    """Return the Frobenius norm ``‖P_pred − P‖`` of AO density matrices (spin channels stacked)."""
    return float(np.linalg.norm(predicted - true))


def electrons_moved(
    before: Float64[Array, "*spins nao nao"],
    after: Float64[Array, "*spins nao nao"],
    overlap: Float64[Array, "nao nao"],
) -> float:
    """Return how many electrons differ between two densities, ``½ Σ_σ Tr[((D_σ − D'_σ) S)²]``.

    For two determinants it is ``n − Σ_σ Tr(D_σ S D'_σ S)``: 0 if they are equal, n if they share no
    orbital. A closed shell's density is that of two equal spins, ``D = 2 D_σ``.

    Args:
        before: ``[nao, nao]``, closed shell (occupations 2), or ``[2, nao, nao]``.
        after: as ``before``.
        overlap: ``[nao, nao]``.
    """
    difference = (before - after) @ overlap
    return float((difference * np.swapaxes(difference, -1, -2)).sum() / (2 if before.ndim == 3 else 4))
