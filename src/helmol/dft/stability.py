"""Whether a converged SCF is a minimum of the energy, or a saddle point."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf import dft

from helmol.arrays import Array
from helmol.dft.ladder import gap

UNSTABLE = -5e-4
"""Curvature below which a mode leads downhill, Eh; what is nearer to zero is a rotation of degenerate
orbitals on a coarse grid."""

SAFE_GAP = 0.1
"""Gap of a closed shell above which nothing is checked, Eh, without exact exchange."""

SAFE_GAP_EXCHANGE = 0.4
"""What is added to it per share of exact exchange, Eh: it lowers the curvature by about as much."""

STARTS = 3
"""Pairs of an occupied and an empty orbital, nearest in energy, that the search begins with."""

ITERATIONS = 30
"""Steps of Davidson's method."""

TURN = 0.4
"""Norm of the rotation that follows a mode downhill, radians."""


def is_due(mf: Any) -> bool:
    """Return whether a converged mean field's stability is worth a look.

    Open shells always are, closed ones with a small gap, the smaller the less exact exchange.
    """
    if isinstance(mf, dft.uks.UKS):
        return True
    omega, alpha, hybrid = mf._numint.rsh_and_hybrid_coeff(mf.xc, spin=mf.mol.spin)
    exchange = max(abs(float(hybrid)), abs(float(alpha)) if omega else 0.0)
    return gap(mf) < SAFE_GAP + SAFE_GAP_EXCHANGE * exchange


def lowest_mode(mf: Any, fock: Array) -> tuple[float, Array]:
    """Return the lowest curvature of the energy under real rotations of orbitals, and its mode.

    The matrix is ``H_ia,jb = δ_ij F_ab − δ_ab F_ij + K_ia,jb`` where K is the change of the Fock matrix with
    the density, for a closed shell that of singlets. Davidson's method ends as soon as the sign is known: a
    value below :data:`UNSTABLE` (the true one is lower), or one whose residual does not reach down to it.

    Args:
        mf: mean field with orbitals and occupations, whose functional and grid give K.
        fock: its Fock matrix, ``[nao, nao]`` or ``[2, nao, nao]``, Eh.

    Returns:
        Eh; the mode with the norm 1, in the order of PySCF's rotations.

    Source: Seeger and Pople, J. Chem. Phys. 66, 3045 (1977); Davidson, J. Comput. Phys. 17, 87 (1975).
    """
    _, apply, diagonal = mf.newton().gen_g_hop(mf.mo_coeff, mf.mo_occ, fock)
    # PySCF's closed shell counts both spins.
    scale = 1.0 if isinstance(mf, dft.uks.UKS) else 0.5
    diagonal = scale * np.asarray(diagonal)
    if not diagonal.size:
        return float("inf"), np.empty(0)
    space = _starts(diagonal)
    images = np.array([scale * apply(vector) for vector in space])
    for _ in range(ITERATIONS):
        values, vectors = np.linalg.eigh(space @ images.T)
        value, mode = float(values[0]), vectors[:, 0] @ space
        residual = vectors[:, 0] @ images - value * mode
        if value < UNSTABLE or value - np.linalg.norm(residual) > UNSTABLE:
            break
        near = diagonal - value
        new = residual / np.where(np.abs(near) < 1e-2, 1e-2, near)
        for _again in range(2):
            new -= space.T @ (space @ new)
        norm = float(np.linalg.norm(new))
        if norm < 1e-10:
            break
        new /= norm
        space, images = np.vstack([space, new]), np.vstack([images, scale * apply(new)])
    return value, mode


def turned(mf: Any, mode: Array) -> Array:
    """Return a mean field's orbitals, rotated along a mode."""
    second = mf.newton()
    rotation = second.update_rotate_matrix(TURN * mode, mf.mo_occ)
    return np.asarray(second.rotate_mo(mf.mo_coeff, rotation))


def _starts(diagonal: Array) -> Array:
    """Return orthonormal vectors to begin with, ``[n, size]``: nearest pairs, and one without symmetry."""
    lowest = np.argsort(diagonal, kind="stable")[:STARTS]
    vectors = np.zeros((len(lowest) + 1, diagonal.size))
    vectors[np.arange(len(lowest)), lowest] = 1.0
    signs = np.random.default_rng(0).choice([-1.0, 1.0], diagonal.size)
    vectors[-1] = signs / np.maximum(np.abs(diagonal), 0.1)
    independent = vectors[: min(len(vectors), diagonal.size)]
    return np.asarray(np.linalg.qr(independent.T)[0].T)
