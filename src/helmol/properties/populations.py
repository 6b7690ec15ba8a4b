"""Electrons and unpaired electrons by atom, and bond orders between atoms.

Every function takes density matrices of any AO order, ``[nao, nao]`` or ``[2, nao, nao]``, and where each
atom's orbitals begin. Those of Löwdin's basis take the density there, :func:`lowdin_density`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg

from helmol.arrays import Array, Float64, Int64, IntArray
from helmol.errors import InputError
from helmol.properties.expectation import total_density
from helmol.properties.orbitals import SMALLEST_OVERLAP_EIGENVALUE


def by_atom(
    values: Float64[Array, "*stack nao"], offsets: Int64[IntArray, " n_atoms_and_end"]
) -> Float64[Array, "*stack n_atoms"]:
    """Return the sum of the values of each atom's orbitals, ``[..., n_atoms]``; zero for one without any."""
    return values @ _belongs(offsets)


def _belongs(offsets: IntArray) -> Array:
    """Return which orbital is of which atom, ones and zeros ``[nao, n_atoms]``."""
    atoms = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return np.asarray(atoms[:, None] == np.arange(len(offsets) - 1), dtype=np.float64)


def mulliken_charges(
    density: Float64[Array, "*spins nao nao"],
    overlap: Float64[Array, "nao nao"],
    *,
    offsets: Int64[IntArray, " n_atoms_and_end"],
    charges: Float64[Array, " n_atoms"],
) -> Float64[Array, " n_atoms"]:
    """Return the Mulliken charges ``q_A = Z_A − Σ_{μ∈A} (D S)_μμ``.

    Args:
        density: ``[nao, nao]`` or ``[2, nao, nao]``.
        overlap: ``[nao, nao]``.
        offsets: first AO of each atom and, last, nao, ``[n_atoms + 1]``.
        charges: nuclear charges without ECP cores, ``[n_atoms]``.

    Returns:
        ``[n_atoms]`` in units of e.

    Source: Mulliken, J. Chem. Phys. 23, 1833 (1955).
    """
    return charges - by_atom(np.einsum("ij,ji->i", total_density(density), overlap), offsets)


def mulliken_spins(
    density: Float64[Array, "*spins nao nao"],
    overlap: Float64[Array, "nao nao"],
    *,
    offsets: Int64[IntArray, " n_atoms_and_end"],
) -> Float64[Array, " n_atoms"]:
    """Return the Mulliken spin populations ``Σ_{μ∈A} ((D_α − D_β) S)_μμ``; their sum is 2S.

    Returns:
        Unpaired electrons, ``[n_atoms]``.

    Raises:
        InputError: one density matrix for both spins.
    """
    return by_atom(np.einsum("ij,ji->i", spin_density(density), overlap), offsets)


def spin_density(density: Float64[Array, "*spins nao nao"]) -> Float64[Array, "nao nao"]:
    """Return ``D_α − D_β``, ``[nao, nao]``.

    Raises:
        InputError: one density matrix for both spins.
    """
    if density.ndim != 3:
        raise InputError("a restricted density has no spin density: every electron in it is paired")
    return np.asarray(density[0] - density[1])


def lowdin_density(
    density: Float64[Array, "*spins nao nao"], overlap: Float64[Array, "nao nao"]
) -> Float64[Array, "*spins nao nao"]:
    """Return the density matrix in Löwdin's orthogonal orbitals, ``S^½ D S^½``, of the shape of ``density``.

    Source: Löwdin, J. Chem. Phys. 18, 365 (1950).
    """
    values, vectors = scipy.linalg.eigh(overlap)
    # Directions without an eigenvalue of their own hold no electrons.
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    return np.asarray(root @ density @ root)


def lowdin_charges(
    orthogonal: Float64[Array, "*spins nao nao"],
    *,
    offsets: Int64[IntArray, " n_atoms_and_end"],
    charges: Float64[Array, " n_atoms"],
) -> Float64[Array, " n_atoms"]:
    """Return the Löwdin charges ``q_A = Z_A − Σ_{μ∈A} (S^½ D S^½)_μμ``.

    Args:
        orthogonal: :func:`lowdin_density`.
        offsets: first AO of each atom and, last, nao, ``[n_atoms + 1]``.
        charges: nuclear charges without ECP cores, ``[n_atoms]``.

    Returns:
        ``[n_atoms]`` in units of e.

    Source: Löwdin, J. Chem. Phys. 18, 365 (1950).
    """
    return charges - by_atom(np.diag(total_density(orthogonal)), offsets)


def lowdin_spins(
    orthogonal: Float64[Array, "*spins nao nao"], *, offsets: Int64[IntArray, " n_atoms_and_end"]
) -> Float64[Array, " n_atoms"]:
    """Return the Löwdin spin populations, unpaired electrons of each atom, ``[n_atoms]``.

    Raises:
        InputError: one density matrix for both spins.
    """
    return by_atom(np.diag(spin_density(orthogonal)), offsets)


def iao_charges(
    occupied: Sequence[Float64[Array, "nao _"]],
    overlap: Float64[Array, "nao nao"],
    *,
    minimal: Float64[Array, "nmin nmin"],
    cross: Float64[Array, "nao nmin"],
    offsets: Int64[IntArray, " n_atoms_and_end"],
    charges: Float64[Array, " n_atoms"],
) -> Float64[Array, " n_atoms"]:
    """Return the charges in intrinsic atomic orbitals, symmetrically orthogonalised.

    ``q_A = Z_A − Σ_σ Σ_{ρ∈A} Σ_i ⟨ρ_σ|i_σ⟩²`` with the orbitals ρ of :func:`intrinsic_orbitals`, of each spin
    its own. Unlike Mulliken's and Löwdin's they hardly depend on the basis.

    Args:
        occupied: occupied orbitals ``[nao, n]``, one set of a closed shell, else of alpha and beta.
        overlap: ``[nao, nao]``.
        minimal: overlap of the minimal basis of free atoms, ``[nmin, nmin]``.
        cross: overlap of the basis with the minimal one, ``[nao, nmin]``.
        offsets: first function of each atom in the minimal basis and, last, nmin, ``[n_atoms + 1]``.
        charges: nuclear charges without ECP cores, ``[n_atoms]``.

    Returns:
        ``[n_atoms]`` in units of e.

    Source: Knizia, J. Chem. Theory Comput. 9, 4834 (2013).
    """
    total = np.zeros(len(minimal))
    for orbitals in occupied:
        rho = intrinsic_orbitals(orbitals, overlap, minimal=minimal, cross=cross)
        total += 2 / len(occupied) * np.sum((rho.T @ overlap @ orbitals) ** 2, axis=1)
    return charges - by_atom(total, offsets)


def intrinsic_orbitals(
    occupied: Float64[Array, "nao _"],
    overlap: Float64[Array, "nao nao"],
    *,
    minimal: Float64[Array, "nmin nmin"],
    cross: Float64[Array, "nao nmin"],
) -> Float64[Array, "nao nmin"]:
    """Return intrinsic atomic orbitals, orthonormal, as columns ``[nao, nmin]``.

    ``A = [1 + 2 O Õ − O − Õ] P₁₂`` with ``O = C Cᵀ S``, ``Õ = C̃ C̃ᵀ S``, C̃ the occupied orbitals projected
    onto the minimal basis and back, orthonormalised, ``P₁₂ = S⁻¹ S₁₂``; then ``A (Aᵀ S A)^(−½)``.

    Source: Knizia, J. Chem. Theory Comput. 9, 4834 (2013), eq. 2 and appendix C.
    """
    solve = _solver(overlap)
    spread = solve(cross)
    if occupied.shape[1]:
        small = _solver(minimal)(cross.T @ occupied)
        depolarised = _orthonormal(solve(cross @ small), overlap)
        inner = depolarised @ (depolarised.T @ overlap @ spread)
        own, twice = (occupied @ (occupied.T @ overlap @ one) for one in (spread, inner))
        spread = spread + 2 * twice - own - inner
    return _orthonormal(spread, overlap)


def _solver(overlap: Float64[Array, "n n"]) -> Callable[[Array], Array]:
    """Return what multiplies by ``S⁻¹``, without the directions that a nearly dependent basis lacks."""
    try:
        return functools.partial(scipy.linalg.cho_solve, scipy.linalg.cho_factor(overlap))
    except np.linalg.LinAlgError:
        values, vectors = scipy.linalg.eigh(overlap)
        kept = values > SMALLEST_OVERLAP_EIGENVALUE
        inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
        return functools.partial(np.matmul, inverse)


def _orthonormal(
    orbitals: Float64[Array, "nao n"], overlap: Float64[Array, "nao nao"]
) -> Float64[Array, "nao n"]:
    """Return columns symmetrically orthonormalised, ``C (Cᵀ S C)^(−½)``."""
    values, vectors = scipy.linalg.eigh(orbitals.T @ overlap @ orbitals)
    return np.asarray(orbitals @ ((vectors / np.sqrt(values)) @ vectors.T))


def mayer_bond_orders(
    density: Float64[Array, "*spins nao nao"],
    overlap: Float64[Array, "nao nao"],
    *,
    offsets: Int64[IntArray, " n_atoms_and_end"],
) -> Float64[Array, "n_atoms n_atoms"]:
    """Return the Mayer bond orders ``B_AB = 2 Σ_σ Σ_{μ∈A} Σ_{ν∈B} (D_σ S)_μν (D_σ S)_νμ``.

    For a closed shell that is ``Σ (D S)_μν (D S)_νμ`` with the density of all electrons.

    Args:
        density: ``[nao, nao]`` or ``[2, nao, nao]``.
        overlap: ``[nao, nao]``.
        offsets: first AO of each atom and, last, nao, ``[n_atoms + 1]``.

    Returns:
        Symmetric ``[n_atoms, n_atoms]``; zero on the diagonal.

    Source: Mayer, Chem. Phys. Lett. 97, 270 (1983); open shells: Int. J. Quantum Chem. 29, 73 (1986).
    """
    product = density @ overlap
    return _between_atoms(product * np.swapaxes(product, -1, -2), offsets)


def wiberg_bond_orders(
    orthogonal: Float64[Array, "*spins nao nao"], *, offsets: Int64[IntArray, " n_atoms_and_end"]
) -> Float64[Array, "n_atoms n_atoms"]:
    """Return the Wiberg bond orders ``W_AB = 2 Σ_σ Σ_{μ∈A} Σ_{ν∈B} (S^½ D_σ S^½)_μν²``.

    For a closed shell that is ``Σ (S^½ D S^½)_μν²`` with the density of all electrons.

    Args:
        orthogonal: :func:`lowdin_density`.
        offsets: first AO of each atom and, last, nao, ``[n_atoms + 1]``.

    Returns:
        Symmetric ``[n_atoms, n_atoms]``; zero on the diagonal.

    Source: Wiberg, Tetrahedron 24, 1083 (1968), in Löwdin's orbitals.
    """
    return _between_atoms(orthogonal**2, offsets)


def _between_atoms(
    squares: Float64[Array, "*spins nao nao"], offsets: Int64[IntArray, " n_atoms_and_end"]
) -> Float64[Array, "n_atoms n_atoms"]:
    """Return sums over the blocks of pairs of atoms: once of one matrix, twice of each of two spins."""
    belongs = _belongs(offsets)
    orders = belongs.T @ (2 * squares.sum(axis=0) if squares.ndim == 3 else squares) @ belongs
    np.fill_diagonal(orders, 0)
    return np.asarray((orders + orders.T) / 2)
