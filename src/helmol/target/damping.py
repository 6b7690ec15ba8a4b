"""Take from a predicted difference what nearly dependent basis functions would blow up.

Let c be a combination of basis functions with overlap eigenvalue s, ``S c = s c``. The matrix of a bounded
potential has ``cᵀ ΔF c`` of the order of s, but the error of a network does not know of it, and in an
orthonormal basis both are divided by s: with s = 1e-3 a matrix that looks right gains orbitals that do not
exist. So components of ``F − H₀`` along c are damped by

``s² / (s² + s₀²)``, that is ``D ΔF D`` with ``D = S² (S² + s₀²)⁻¹``.

D is a function of S alone: turns, permutations and distant molecules are treated as they must be. The floor
s₀ is chosen on validation molecules, see :mod:`helmol.train.floor`; a more exact model wants a lower one.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg.blas import dsyrk
from scipy.linalg.lapack import dpotrf, dpotri

from helmol.arrays import Array


def damped(delta: Array, overlap: Array, floor: float) -> Array:
    """Return ``D ΔF D``, symmetric to the last bit.

    Args:
        delta: ``F − H₀``, ``[nao, nao]`` or ``[n_spins, nao, nao]``, Eh.
        overlap: ``[nao, nao]``.
        floor: s₀; 0 returns ``delta``.
    """
    if not floor:
        return delta
    # D = 1 − s₀² (S² + s₀²)⁻¹; the matrix in brackets has a Cholesky factor.
    squares = dsyrk(1.0, overlap.T, lower=1)
    squares[np.diag_indices_from(squares)] += floor**2
    factor, lacking = dpotrf(squares, lower=1, overwrite_a=1)
    inverse, _ = dpotri(factor, lower=1, overwrite_c=1)
    lower = np.tril(inverse) if not lacking else np.full_like(inverse, np.nan)  # S is not finite
    keep = np.eye(len(lower)) - floor**2 * (lower + np.tril(lower, -1).T)
    result = keep @ delta @ keep
    return np.asarray(0.5 * (result + np.swapaxes(result, -1, -2)))
