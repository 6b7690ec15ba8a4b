"""What a label must satisfy before it may be called one."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from helmol.arrays import Array
from helmol.errors import ConvergenceError

SYMMETRY_TOLERANCE = 1e-8
"""Largest ``|F − Fᵀ|`` of a Fock matrix as it comes from PySCF, Eh."""

ELECTRONS_TOLERANCE = 1e-6
"""Largest ``|Tr DS − n|`` per electron."""


def check_labels(
    *,
    converged: bool,
    fock: Array,
    overlap: Array,
    density: Array,
    mo_energy: Array,
    n_electrons: int,
    tolerance: float,
) -> None:
    """Raise unless a Fock matrix is the converged one of its density.

    Checked: the SCF's own flag; finite numbers; ``F = Fᵀ``; ``Tr DS = n``; the eigenvalues of
    ``(F, S)`` are the SCF's orbital energies; ``FDS = SDF``. Any consistent AO order will do.

    Args:
        converged: the SCF's flag.
        fock: ``[nao, nao]`` or ``[2, nao, nao]``, Eh.
        overlap: ``[nao, nao]``.
        density: as ``fock``.
        mo_energy: orbital energies of the SCF, ``[nmo]`` or ``[2, nmo]``, Eh.
        n_electrons: electrons outside the effective core potentials.
        tolerance: of the SCF's orbital gradient, Eh.

    Raises:
        ConvergenceError: which check failed, with the value seen and the value wanted.
    """
    if not converged:
        raise ConvergenceError("the SCF did not converge")
    for name, matrix in (("Fock", fock), ("density", density), ("overlap", overlap)):
        if not np.isfinite(matrix).all():
            raise ConvergenceError(f"the {name} matrix has elements that are not finite")
    asymmetry = float(np.abs(fock - np.swapaxes(fock, -1, -2)).max())
    if asymmetry > SYMMETRY_TOLERANCE:
        raise ConvergenceError(f"|F - Fᵀ| is {asymmetry:.1e} Eh, wanted at most {SYMMETRY_TOLERANCE:.0e}")
    electrons = float(np.sum(density * overlap))
    if abs(electrons - n_electrons) > ELECTRONS_TOLERANCE * n_electrons:
        raise ConvergenceError(f"Tr DS = {electrons:.6f}, wanted {n_electrons} electrons")
    if mo_energy.shape[-1] != overlap.shape[-1]:
        raise ConvergenceError(
            f"the basis is linearly dependent at this geometry: {mo_energy.shape[-1]} orbitals "
            f"from {overlap.shape[-1]} functions"
        )
    _check_eigenvalues(fock, overlap, mo_energy, tolerance)
    _check_stationary(fock, overlap, density, tolerance)


def _check_eigenvalues(fock: Array, overlap: Array, mo_energy: Array, tolerance: float) -> None:
    """Raise unless (F, S) has the orbital energies of the SCF."""
    pairs = zip(fock.reshape(-1, *overlap.shape), np.atleast_2d(mo_energy), strict=True)
    error = max(
        float(np.abs(eigh(matrix, overlap, eigvals_only=True) - np.sort(energies)).max())
        for matrix, energies in pairs
    )
    # The SCF's orbital energies are of the Fock matrix one step before: they lag by a few gradients.
    if error > 10 * tolerance:
        raise ConvergenceError(
            f"orbital energies of (F, S) differ by {error:.1e} Eh from the SCF's, "
            f"wanted at most {10 * tolerance:.0e}"
        )


def _check_stationary(fock: Array, overlap: Array, density: Array, tolerance: float) -> None:
    """Raise unless ``S^(-1/2) (FDS − SDF) S^(-1/2)`` is as small as the SCF's gradient."""
    values, vectors = np.linalg.eigh(overlap)
    root = vectors / np.sqrt(values)
    product = fock @ density @ overlap
    commutator = root.T @ (product - np.swapaxes(product, -1, -2)) @ root
    norm = float(np.linalg.norm(commutator))
    # In orthonormal orbitals the commutator holds the occupied-virtual block twice, the SCF's
    # gradient once and doubled; after its last update the SCF allows three times its threshold.
    if norm > 10 * tolerance:
        raise ConvergenceError(
            f"FDS - SDF has the norm {norm:.1e} Eh, wanted at most {10 * tolerance:.0e}: "
            "the density is not that of this Fock matrix"
        )
