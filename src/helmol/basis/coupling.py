"""Real spherical harmonics, their rotations, and orthonormal coupling coefficients."""

from __future__ import annotations

from functools import cache
from math import factorial, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import sph_harm_y

from helmol.arrays import Array, Float64


def real_spherical_harmonics(l: int, vectors: npt.ArrayLike) -> Float64[Array, "*points m"]:
    """Evaluate the standard real spherical harmonics of degree ``l``.

    ``Y_lm = √2 (−1)^m Re/Im Y_l^|m|`` (cosine for m > 0, sine for m < 0), polar axis z, so that
    l=1 is proportional to (y, z, x).

    Args:
        l: degree.
        vectors: ``[..., 3]``, any length but zero.

    Returns:
        ``[..., 2l+1]``, m = −l … l, orthonormal on the sphere.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    x, y, z = np.moveaxis(vectors, -1, 0)
    theta, phi = np.arctan2(np.hypot(x, y), z), np.arctan2(y, x)
    columns = []
    for m in range(-l, l + 1):
        value = sph_harm_y(l, abs(m), theta, phi)
        if m == 0:
            columns.append(value.real)
        else:
            columns.append((-1) ** m * sqrt(2) * (value.real if m > 0 else value.imag))
    return np.stack(columns, axis=-1)


@cache
def _sampling(l: int) -> tuple[Array, Array]:
    """Return well-spread directions and the pseudo-inverse of their harmonics of degree ``l``."""
    points = np.random.default_rng(0).normal(size=(8 * (2 * l + 1), 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points, np.asarray(np.linalg.pinv(real_spherical_harmonics(l, points)), dtype=np.float64)


def wigner_d(l: int, rotation: npt.ArrayLike) -> Float64[Array, "m m"]:
    """Return the matrix D with ``Y(R r) = D Y(r)`` for real harmonics in house order.

    Found by least squares over sample directions, exact to about 1e-14 for l ≤ 12; a proper or
    improper orthogonal ``rotation`` is allowed. Meant for checks and constants, not inner loops.

    Args:
        l: degree.
        rotation: orthogonal matrix ``[3, 3]`` acting on (x, y, z) columns.

    Returns:
        ``[2l+1, 2l+1]``.
    """
    points, inverse = _sampling(l)
    rotated = points @ np.asarray(rotation, dtype=np.float64).T
    return (inverse @ real_spherical_harmonics(l, rotated)).T


def _clebsch_gordan(l1: int, l2: int, l: int, m1: int, m2: int) -> float:
    """Return ⟨l1 m1 l2 m2 | l m1+m2⟩ by Racah's formula (exact integers, one rounding).

    Source: Varshalovich et al., Quantum Theory of Angular Momentum (1988), eq. 8.2.1(3).
    """
    m = m1 + m2
    if abs(m) > l or not abs(l1 - l2) <= l <= l1 + l2:
        return 0.0
    f = factorial
    prefactor = sqrt(
        (2 * l + 1) * f(l1 + l2 - l) * f(l1 - l2 + l) * f(-l1 + l2 + l) / f(l1 + l2 + l + 1)
    ) * sqrt(f(l + m) * f(l - m) * f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2))
    total = 0.0
    for k in range(l1 + l2 - l + 1):
        arguments = (k, l1 + l2 - l - k, l1 - m1 - k, l2 + m2 - k, l - l2 + m1 + k, l - l1 - m2 + k)
        if min(arguments) >= 0:
            denominator = 1
            for argument in arguments:
                denominator *= f(argument)
            total += (-1) ** k / denominator
    return prefactor * total


def _complex_to_real(l: int) -> npt.NDArray[np.complex128]:
    """Return U with ``Y_real = U Y_complex`` (Condon–Shortley phase in the complex ones)."""
    unitary = np.zeros((2 * l + 1, 2 * l + 1), dtype=complex)
    unitary[l, l] = 1
    for m in range(1, l + 1):
        unitary[l + m, l - m] = 1 / sqrt(2)
        unitary[l + m, l + m] = (-1) ** m / sqrt(2)
        unitary[l - m, l - m] = 1j / sqrt(2)
        unitary[l - m, l + m] = -1j * (-1) ** m / sqrt(2)
    return unitary


@cache
def coupling(l1: int, l2: int, l: int) -> Float64[Array, "m1 m2 m"]:
    """Return the orthonormal real coupling coefficients of ``l1 ⊗ l2 → l``.

    ``C[m1, m2, m]`` with ``Σ_{m1 m2} C[m1,m2,m] C[m1,m2,m'] = δ_{mm'}`` and
    ``Σ_{l m} C C = 1`` over all l, so a block ``B = Σ_lm C y_lm`` has ``‖B‖ = ‖y‖``.
    It equals √(2l+1) times the Wigner 3j symbol in the real basis, and
    ``C^{l2 l1}[m2,m1,m] = (−1)^{l1+l2−l} C^{l1 l2}[m1,m2,m]``.

    Returns:
        ``[2l1+1, 2l2+1, 2l+1]``, read-only.
    """
    complex_table = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(-l2, l2 + 1):
            if abs(m1 + m2) <= l:
                complex_table[l1 + m1, l2 + m2, l + m1 + m2] = _clebsch_gordan(l1, l2, l, m1, m2)
    table = np.einsum(
        "ia,jb,kc,abc->ijk",
        _complex_to_real(l1),
        _complex_to_real(l2),
        _complex_to_real(l).conj(),
        complex_table,
    )
    # In the real basis the table is real for even l1+l2+l and imaginary for odd.
    real = np.ascontiguousarray(table.real if (l1 + l2 + l) % 2 == 0 else table.imag)
    real[np.abs(real) < 1e-14] = 0.0
    real.setflags(write=False)
    return real
