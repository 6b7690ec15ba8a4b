"""Starts of an SCF as occupied orbitals: of another basis, of another geometry, for any mean field."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from pyscf import gto, scf, symm
from pyscf.scf import addons

from helmol import properties
from helmol.arrays import Array
from helmol.errors import DomainError

Occupied = tuple[Array, Array]
"""Occupied orbitals of both spins, ``[nao, n_alpha]`` and ``[nao, n_beta]``."""

SMALLEST_NORM = 0.5
"""An occupied orbital of which another basis can hold less than this share of the norm is lost there: the
density would not be near. Of def2-SVP orbitals of H C N O in STO-3G 0.95 and more are kept."""


def split_spins(mo_coeff: Array, mo_occ: Array) -> Occupied | None:
    """Return the occupied orbitals of both spins, ``None`` where occupations are fractional.

    Args:
        mo_coeff: ``[nao, nmo]``, or ``[2, nao, nmo]``.
        mo_occ: ``[nmo]``, 0, 1 (a high-spin open shell) or 2, or ``[2, nmo]``, 0 or 1.
    """
    coeff, occupations = np.asarray(mo_coeff), np.asarray(mo_occ)
    if not np.isin(occupations, (0, 1) if occupations.ndim == 2 else (0, 1, 2)).all():
        return None
    if occupations.ndim == 2:
        return coeff[0][:, occupations[0] > 0], coeff[1][:, occupations[1] > 0]
    return coeff[:, occupations > 0], coeff[:, occupations > 1]


def in_basis(occupied: Occupied, source: gto.Mole, target: gto.Mole) -> Occupied:
    """Project occupied orbitals onto another basis, ``S₂₂⁻¹ S₂₁ C``, and orthonormalise them.

    Args:
        occupied: orthonormal in the basis of ``source``.
        source: the molecule in the one basis.
        target: the same in the other.

    Raises:
        DomainError: the other potentials leave another number of electrons, or the other basis cannot hold
            the orbitals.
    """
    charges = source.atom_charges(), target.atom_charges()
    if len(charges[0]) != len(charges[1]):
        raise DomainError("the basis has functions at places where no atom is")
    if (other := np.flatnonzero(charges[0] != charges[1])).size:
        k = int(other[0])
        raise DomainError(
            f"atom {k + 1} ({target.atom_pure_symbol(k)}) has {int(charges[1][k])} electrons outside its "
            f"effective core potential, in the model's basis {int(charges[0][k])}"
        )
    overlap = target.intor_symmetric("int1e_ovlp")
    spins = [addons.project_mo_nr2nr(source, np.asarray(each), target) for each in occupied]
    return _both(spins[0], spins[1], overlap)


def carried(occupied: Occupied, overlap: Array) -> Occupied:
    """Return the orbitals of another geometry, same coefficients, orthonormal at this one (Löwdin)."""
    return _both(*occupied, overlap)


def extrapolated(last: Occupied, before: Occupied, overlap_before: Array, overlap: Array) -> Occupied:
    """Extrapolate the orbitals of two geometries to the next one of the same path.

    ``C = 2 C₁ − P₀ C₁`` with the projector ``P₀ = C₀ C₀ᵀ S₀``, orthonormalised: contra-covariant density
    matrices extrapolated linearly (J. Kolafa, J. Comput. Chem. 25, 335 (2004); T. D. Kühne et al., Phys. Rev.
    Lett. 98, 066401 (2007), without the corrector).
    """
    new = [2 * c1 - c0 @ (c0.T @ overlap_before @ c1) for c1, c0 in zip(last, before, strict=True)]
    return _both(new[0], new[1], overlap)


def _both(alpha: Array, beta: Array, overlap: Array) -> Occupied:
    return orthonormal(alpha, overlap), orthonormal(beta, overlap)


def orthonormal(orbitals: Array, overlap: Array) -> Array:
    """Return the orthonormal orbitals next to given ones, ``C (Cᵀ S C)^(−½)``.

    Raises:
        DomainError: they are too far from that.
    """
    if not orbitals.shape[1]:
        return orbitals
    values, vectors = scipy.linalg.eigh(orbitals.T @ overlap @ orbitals)
    if not np.isfinite(values).all() or values[0] < SMALLEST_NORM**2:
        raise DomainError(
            "the basis of the SCF cannot hold the occupied orbitals of the start "
            f"(norm² {values[0]:.2g} of one of them)"
        )
    root: Array = orbitals @ (vectors / np.sqrt(values)) @ vectors.T
    return root


def density_of(mf: Any, occupied: Occupied) -> Array:
    """Return the density matrix of occupied orbitals in the form that a mean field has.

    Returns:
        ``[nao, nao]`` of a restricted closed shell, else ``[2, nao, nao]``.

    Raises:
        DomainError: the mean field has other numbers of electrons of each spin, or no such density.
    """
    spins = np.stack([orbitals @ orbitals.T for orbitals in occupied])
    if isinstance(mf, (scf.uhf.UHF, scf.rohf.ROHF)):
        wanted, found = tuple(int(n) for n in mf.nelec), tuple(each.shape[1] for each in occupied)
        if wanted != found:
            raise DomainError(
                "the SCF has {} electrons up and {} down, the start {} and {}".format(*wanted, *found)
            )
        return spins
    if not isinstance(mf, scf.hf.RHF):
        raise DomainError(f"{type(mf).__name__} is not supported: only molecular RKS, UKS, ROKS and their HF")
    total: Array = spins.sum(0)
    return total


def asymmetry(density: Array, mole: gto.Mole, overlap: Array) -> float:
    """Return how many electrons a density has to move to have the symmetry of its molecule.

    ``½ Σ_σ Σ |X_rᵀ S D_σ S X_s|²`` over r ≠ s with orthonormal functions X_r of each irreducible
    representation of the molecule's point group, as far as PySCF knows it (D2h and its subgroups, linear
    molecules): 0 for densities that are symmetric, and where there is no symmetry.

    Args:
        density: ``[nao, nao]``, closed shell, or ``[2, nao, nao]``.
        mole: the molecule.
        overlap: ``[nao, nao]``.
    """
    group, origin, axes = symm.detect_symm(mole._atom)
    group, axes = symm.subgroup(group, axes)
    if group == "C1":
        return 0.0
    orbitals, kinds = [], []
    for functions in symm.symm_adapted_basis(mole, group, origin, axes)[0]:
        if functions.shape[1]:
            orbitals.append(functions @ properties.orthonormal(functions.T @ overlap @ functions))
            kinds.append(orbitals[-1].shape[1])
    basis, kind = np.hstack(orbitals), np.repeat(np.arange(len(kinds)), kinds)
    plain = density if density.ndim == 3 else np.stack([density, density]) / 2
    mixed = (basis.T @ overlap @ plain @ overlap @ basis) * (kind[:, None] != kind)
    return float((mixed**2).sum() / 2)


def spin_focks(fock: Any) -> Array:
    """Return the Fock matrices that the spins of a density feel: those within Roothaan's effective one."""
    if hasattr(fock, "focka"):
        return np.stack([np.asarray(fock.focka), np.asarray(fock.fockb)])
    return np.asarray(fock)
