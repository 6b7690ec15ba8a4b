"""From (F, S) to orbitals, occupations and the density matrix."""

from __future__ import annotations

import logging

import numpy as np
import scipy.linalg
from scipy.linalg.lapack import dpotrf, dtrtri
from scipy.optimize import brentq
from scipy.special import expit

from helmol.arrays import Array, Float64
from helmol.errors import InputError

SMALLEST_OVERLAP_EIGENVALUE = 1e-6
"""Directions of the basis with a smaller eigenvalue of S are left out (canonical
orthogonalisation). The value is PySCF's, so that both find the same number of orbitals."""

TEMPERATURE = 0.005
"""Width of smeared occupations, Eh: levels that cross or are degenerate share electrons, so that a density is
a smooth function of the geometry and turns with it."""

NO_OVERLAP = -1e-4
"""Smaller eigenvalues than this are no rounding, not even of an overlap kept in float32."""

EMPTY = 1e-18
"""Electrons of an orbital that no density matrix feels; at a temperature all levels have some."""

log = logging.getLogger("helmol.properties")


def orbitals(
    fock: Array, overlap: Array
) -> tuple[Float64[Array, "*spins nmo"], Float64[Array, "*spins nao nmo"]]:
    """Solve ``F C = S C ε`` with ``Cᵀ S C = 1``.

    Where S has eigenvalues below ``SMALLEST_OVERLAP_EIGENVALUE`` those directions are projected
    out first and their number is logged: nmo is then smaller than nao.

    Args:
        fock: symmetric, Eh, ``[nao, nao]`` or ``[2, nao, nao]``.
        overlap: ``[nao, nao]``.

    Returns:
        ``mo_energy [..., nmo]`` in Eh, ascending, and ``mo_coeff [..., nao, nmo]``.

    Raises:
        InputError: the shapes do not fit, a number is not finite, or ``overlap`` is none.
    """
    fock, overlap = np.asarray(fock, dtype=np.float64), np.asarray(overlap, dtype=np.float64)
    if fock.ndim not in (2, 3) or fock.shape[-2:] != overlap.shape:
        raise InputError(
            f"Fock matrix of shape {fock.shape} does not fit an overlap of shape {overlap.shape}"
        )
    if not (np.isfinite(fock).all() and np.isfinite(overlap).all()):
        raise InputError("the Fock or overlap matrix holds a number that is not finite")
    if not _exceeds(overlap, SMALLEST_OVERLAP_EIGENVALUE):
        values, orthonormal = _canonical(overlap)
        if values[0] < NO_OVERLAP:
            raise InputError(
                "the overlap matrix is not positive definite "
                f"(smallest eigenvalue {float(values[0]):.2g}): it is wrong"
            )
        dropped = len(values) - orthonormal.shape[1]
        if dropped:
            log.warning(
                "left out %d of %d basis directions: eigenvalue of S below %g (smallest %.2g)",
                dropped, len(values), SMALLEST_OVERLAP_EIGENVALUE, values[0],
            )  # fmt: skip
        solved = [_projected(matrix, orthonormal) for matrix in fock.reshape(-1, *overlap.shape)]
    else:
        solved = [
            scipy.linalg.eigh(matrix, overlap, check_finite=False)
            for matrix in fock.reshape(-1, *overlap.shape)
        ]
    if fock.ndim == 2:
        return solved[0]
    return np.stack([energy for energy, _ in solved]), np.stack([coeff for _, coeff in solved])


def _canonical(
    overlap: Float64[Array, "nao nao"],
) -> tuple[Float64[Array, " nao"], Float64[Array, "nao nmo"]]:
    """Return the eigenvalues of S, and the orthonormal basis of those that are not too small."""
    values, vectors = scipy.linalg.eigh(overlap)
    kept = values > SMALLEST_OVERLAP_EIGENVALUE
    return values, vectors[:, kept] / np.sqrt(values[kept])


def _exceeds(overlap: Array, value: float) -> bool:
    """Return whether all eigenvalues of a symmetric matrix are above a value.

    Less the value, it has a Cholesky factor then, which takes a fifth of the time of the smallest eigenvalue.
    """
    _, lacking = dpotrf(overlap - value * np.eye(len(overlap)), lower=1, overwrite_a=1)
    return not lacking


def _projected(
    fock: Float64[Array, "nao nao"], orthonormal: Float64[Array, "nao nmo"]
) -> tuple[Float64[Array, " nmo"], Float64[Array, "nao nmo"]]:
    """Solve the eigenproblem in an orthonormal basis ``[nao, nmo]``."""
    energy, coeff = scipy.linalg.eigh(orthonormal.T @ fock @ orthonormal)
    return energy, orthonormal @ coeff


def occupations(
    mo_energy: Float64[Array, "*spins nmo"], n_electrons: int, *, spin: int = 0
) -> Float64[Array, "*spins nmo"]:
    """Fill the lowest orbitals (aufbau).

    Args:
        mo_energy: ``[nmo]`` (closed shell) or ``[2, nmo]`` (one set per spin), ascending.
        n_electrons: electrons outside effective core potentials.
        spin: 2S, the number of unpaired electrons.

    Returns:
        Occupations of the same shape: 2 or 0 for ``[nmo]``, 1 or 0 for ``[2, nmo]``.

    Raises:
        InputError: open shell with one set of orbitals, odd electrons, or too few orbitals.
    """
    if n_electrons < spin or (n_electrons - spin) % 2:
        raise InputError(f"{n_electrons} electrons cannot have {spin} unpaired (spin = 2S = {spin})")
    counts = ((n_electrons + spin) // 2, (n_electrons - spin) // 2)
    if mo_energy.shape[-1] < counts[0]:
        raise InputError(f"{mo_energy.shape[-1]} orbitals cannot hold {counts[0]} electrons of one spin")
    mo_occ = np.zeros(mo_energy.shape)
    if mo_energy.ndim == 2:
        for channel, count in enumerate(counts):
            mo_occ[channel, :count] = 1.0
        return mo_occ
    if spin:
        raise InputError(f"a closed-shell Fock matrix [nao, nao] cannot hold {spin} unpaired electrons")
    mo_occ[: counts[0]] = 2.0
    return mo_occ


def smeared_occupations(
    mo_energy: Float64[Array, " nmo"], n_electrons: float, *, full: float = 1.0
) -> Float64[Array, " nmo"]:
    """Return ``n_k = f / (1 + exp((ε_k − μ)/T))`` with ``Σ n_k = n_electrons``, T = ``TEMPERATURE``.

    Args:
        mo_energy: of one spin, or of both together, ``[nmo]``, Eh, ascending.
        n_electrons: how many to fill in.
        full: f, how many an orbital holds: 1 or 2.

    Raises:
        InputError: they do not fit.
    """
    if not 0 <= n_electrons <= full * len(mo_energy):
        raise InputError(f"{len(mo_energy)} orbitals cannot hold {n_electrons:g} electrons")
    if n_electrons in (0.0, full * len(mo_energy)):
        return np.full(len(mo_energy), full if n_electrons else 0.0)

    def excess(level: float) -> float:
        return full * float(expit((level - mo_energy) / TEMPERATURE).sum()) - n_electrons

    margin = 100 * TEMPERATURE
    level = brentq(excess, mo_energy[0] - margin, mo_energy[-1] + margin, xtol=1e-14)
    return np.asarray(full * expit((level - mo_energy) / TEMPERATURE))


def orthonormal(overlap: Float64[Array, "nao nao"]) -> Float64[Array, "nao nmo"]:
    """Return X with ``Xᵀ S X = 1``, without directions below ``SMALLEST_OVERLAP_EIGENVALUE``.

    Where there are none such X is triangular: a diagonalisation takes ten times as long.
    """
    if _exceeds(overlap, SMALLEST_OVERLAP_EIGENVALUE):
        factor = scipy.linalg.cholesky(overlap, check_finite=False)
        return np.asarray(dtrtri(factor, overwrite_c=1)[0])
    return _canonical(overlap)[1]


def density(
    mo_coeff: Float64[Array, "*spins nao nmo"], mo_occ: Float64[Array, "*spins nmo"]
) -> Float64[Array, "*spins nao nao"]:
    """Return the density matrix ``D = C n Cᵀ``, ``[..., nao, nao]``."""
    # Occupied ones come first: what is behind the last of them takes time and adds nothing.
    occupied = mo_occ.reshape(-1, mo_occ.shape[-1]) > EMPTY
    end = int(np.flatnonzero(occupied.any(axis=0)).max(initial=-1)) + 1
    filled = mo_coeff[..., :end]
    return np.asarray((filled * mo_occ[..., None, :end]) @ np.swapaxes(filled, -1, -2))


def frontier(
    mo_energy: Float64[Array, "*spins nmo"], mo_occ: Float64[Array, "*spins nmo"]
) -> tuple[float, float]:
    """Return the energies of HOMO and LUMO, Eh, over both spins; NaN where there is none."""
    occupied = mo_occ > 0
    homo = float(mo_energy[occupied].max()) if occupied.any() else float("nan")
    lumo = float(mo_energy[~occupied].min()) if not occupied.all() else float("nan")
    return homo, lumo


def gap(mo_energy: Float64[Array, "*spins nmo"], mo_occ: Float64[Array, "*spins nmo"]) -> float:
    """Return ``ε_LUMO − ε_HOMO`` in Eh; NaN where one of them does not exist."""
    homo, lumo = frontier(mo_energy, mo_occ)
    return lumo - homo


def density_of_states(
    mo_energy: Float64[Array, "*spins nmo"], energies: Float64[Array, " n"], *, width: float
) -> Float64[Array, "*spins n"]:
    """Return the density of states, every level a Gaussian: ``g(E) = f Σ_k exp(−(E − ε_k)²/2σ²) / (σ √2π)``.

    f is 2 for one set of orbitals, which hold two electrons each, and 1 for each of two spins: up to the gap
    it integrates to the number of electrons.

    Args:
        mo_energy: ``[nmo]`` or ``[2, nmo]``, Eh.
        energies: where to evaluate it, ``[n]``, Eh.
        width: σ, Eh; the width at half height is 2.355 σ.

    Returns:
        ``[n]`` or ``[2, n]``, states per Eh.

    Raises:
        InputError: a width that is not positive.
    """
    if not width > 0:
        raise InputError(f"a density of states needs a width above 0, not {width}")
    distance = (energies[:, None] - mo_energy[..., None, :]) / width
    peaks = np.exp(-0.5 * distance**2).sum(axis=-1) / (width * np.sqrt(2 * np.pi))
    return np.asarray(peaks if mo_energy.ndim == 2 else 2 * peaks)
