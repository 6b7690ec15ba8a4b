"""How the fitted exchange-correlation potential of superposed atoms changes when they move.

The coefficients solve ``(N + RIDGE diag N) c = b`` (:mod:`helmol.dft.xc_field`). Of something that depends on
them, ``dE = gᵀ dc = λᵀ (db − (dN + RIDGE diag dN) c)`` with ``(N + RIDGE diag N) λ = g``: for any number of
positions one more solution. N and b are sums over points, and a point moves with the atom that it belongs
to, so all of it depends on vectors from atoms to points of others.
"""

from __future__ import annotations

import numpy as np
from pyscf.dft import libxc

from helmol.arrays import Array
from helmol.dft.atoms import exponents
from helmol.dft.xc_field import (
    LEAST_DENSITY,
    N_FUNCTIONS,
    N_P,
    N_S,
    RIDGE,
    Columns,
    Points,
    points_of,
    times,
    xc_potential,
)


def fit_gradient(points: Points, xc: str, coefficients: Array, adjoint: Array) -> Array:
    """Return ``d/dR λᵀ (b − (N + RIDGE diag N) c)`` with λ and c held, ``[n_atoms, 3]``.

    That is the derivative of ``Σ_g q_g [a (v − u) − RIDGE Σ_i λ_i c_i f_i²]`` over the points, with the
    fitted potential ``u = Σ_i c_i f_i`` and ``a = Σ_i λ_i f_i``.

    Args:
        points: of the atoms.
        xc: a functional of density and gradient.
        coefficients: c, ``[n_atoms · N_FUNCTIONS]``.
        adjoint: λ, likewise.
    """
    gradient = np.zeros_like(points.centres)
    for own in range(len(points.atoms)):
        near, found = _of_one_atom(points, own, xc, coefficients, adjoint)
        np.add.at(gradient, near, -found)
        gradient[own] += found.sum(axis=0)
    return gradient


def _of_one_atom(
    points: Points, own: int, xc: str, coefficients: Array, adjoint: Array
) -> tuple[Columns, Array]:
    """Return which atoms the sum over the points of one depends on, and its derivatives, ``[n_near, 3]``.

    They are those for all points moving away from an atom. Arrays are ``[n_near, (3,) n_points]``.
    """
    places, shares = points_of(points.atoms[own])
    near = np.flatnonzero(points.near[own])
    x = np.swapaxes(places + points.centres[own] - points.centres[near, None], 1, 2)
    square = np.sum(x**2, axis=1)
    alpha = exponents(points.density.shape[1])
    terms = np.exp(-alpha[:, None] * square[:, None])

    def powers(values: Array, n: int) -> Array:
        """Return the n-th derivative of ``Σ_k c_k exp(−α_k s)`` with respect to ``s = r²``."""
        return np.asarray((values[near] * (-alpha) ** n)[:, None] @ terms)[:, 0]

    rho, first, second, third = (powers(points.density, n) for n in range(4))
    slope = 2 * first[:, None] * x
    diagonal = np.array([0, 3, 5])
    rows, columns = np.triu_indices(3)
    bend = 4 * second[:, None] * x[:, rows] * x[:, columns]
    bend[:, diagonal] += 2 * first[:, None]
    whole = rho.sum(axis=0), slope.sum(axis=0), bend.sum(axis=0)
    potential = xc_potential(xc, *whole)
    of_rho, of_slope, of_bend = potential_derivatives(xc, *whole)

    # What the potential there changes by. Off the diagonal every element of of_bend stands for two.
    full_bend = np.stack([times(bend[k], of_slope) for k in range(len(near))])
    twist = np.stack([times(of_bend, x[k]) for k in range(len(near))])
    trace = of_bend[diagonal].sum(axis=0)
    along = np.sum(x * twist, axis=1)
    change = of_rho * slope + full_bend
    change += 4 * second[:, None] * (trace * x + 2 * twist) + 8 * (third * along)[:, None] * x
    steep = powers(points.steep, 0).sum(axis=0)
    change -= 2 * powers(points.steep, 1)[:, None] * x

    a, a_change = _functions(points, own, near, x, terms, adjoint)
    u, u_change = _functions(points, own, near, x, terms, coefficients)
    f2, f2_change = _squares(points, own, near, x, terms, adjoint * coefficients)

    # Shares of the points: q = share p_own / Σ p, with p = √ρ / r⁴.
    density = np.maximum(rho, 0)
    part = np.sqrt(density) / (square**2 + 1e-30)
    total = part.sum(axis=0) + 1e-300
    inside = density > 0
    ratio = np.divide(first, rho, out=np.zeros_like(rho), where=inside)
    part_change = part * (ratio - 4 * square / (square**2 + 1e-30))
    q = shares * part[np.flatnonzero(near == own)[0]] / total
    rest = potential - steep - u
    value = a * rest - RIDGE * f2
    found = -np.einsum("g,bg,bxg->bx", q * value / total, part_change, x)
    found += np.einsum("g,bxg->bx", q * rest, a_change)
    found += np.einsum("g,bxg->bx", q * a, change - u_change)
    found -= RIDGE * np.einsum("g,bxg->bx", q, f2_change)
    # The points of an atom never leave it.
    found[near == own] = 0
    return near, found


def _of_functions(
    points: Points, own: int, near: Columns, terms: Array, coefficients: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Return what functions near a point of an atom consist of, without those that are left out there.

    Returns:
        Coefficients and exponents of s functions, ``[n_near, N_S]``; those of p functions,
        ``[n_near, N_P, 3]`` and ``[n_near, N_P]``; the Gaussians of both, ``[n_near, N_S + N_P, n_points]``.
    """
    levels, wanted = points.levels[near], points.wanted[own, near]
    mine = coefficients.reshape(-1, N_FUNCTIONS)[near]
    alpha = exponents(terms.shape[1])[levels]
    s, p = mine[:, :N_S] * wanted[:, :N_S], mine[:, N_S:].reshape(-1, N_P, 3) * wanted[:, N_S:, None]
    gaussians = np.take_along_axis(terms, levels[:, :, None], axis=1)
    return s, alpha[:, :N_S], p, alpha[:, N_S:], gaussians


def _functions(
    points: Points, own: int, near: Columns, x: Array, terms: Array, coefficients: Array
) -> tuple[Array, Array]:
    """Return ``Σ_i c_i f_i`` of all atoms, ``[n_points]``, and the gradient of each atom's part."""
    s, s_alpha, p, p_alpha, e = _of_functions(points, own, near, terms, coefficients)
    e_s, e_p = e[:, :N_S], e[:, N_S:]
    dots = np.einsum("bkx,bxg->bkg", p, x) * e_p
    value = np.einsum("bk,bkg->g", s, e_s) + dots.sum(axis=(0, 1))
    radial = np.einsum("bk,bkg->bg", -2 * s_alpha * s, e_s) + np.einsum("bk,bkg->bg", -2 * p_alpha, dots)
    return value, radial[:, None] * x + np.einsum("bkx,bkg->bxg", p, e_p)


def _squares(
    points: Points, own: int, near: Columns, x: Array, terms: Array, coefficients: Array
) -> tuple[Array, Array]:
    """Return ``Σ_i c_i f_i²`` of all atoms, ``[n_points]``, and the gradient of each atom's part."""
    s, s_alpha, p, p_alpha, e = _of_functions(points, own, near, terms, coefficients)
    e_s, e_p = e[:, :N_S] ** 2, e[:, N_S:] ** 2
    dots = np.einsum("bkx,bxg->bkg", p, x**2) * e_p
    value = np.einsum("bk,bkg->g", s, e_s) + dots.sum(axis=(0, 1))
    radial = np.einsum("bk,bkg->bg", -4 * s_alpha * s, e_s) + np.einsum("bk,bkg->bg", -4 * p_alpha, dots)
    return value, radial[:, None] * x + 2 * x * np.einsum("bkx,bkg->bxg", p, e_p)


def potential_derivatives(xc: str, rho: Array, gradient: Array, hessian: Array) -> tuple[Array, Array, Array]:
    """Return the derivatives of :func:`helmol.dft.xc_field.xc_potential` with respect to its arguments.

    With ``σ = |∇ρ|²``, ``B = ∇ρᵀ(∇∇ρ)∇ρ``, ``L = ∇²ρ`` it is ``v = f_ρ − 2 (f_ρσ σ + 2 f_σσ B + f_σ L)``.

    Returns:
        ∂v/∂ρ, ``[n]``; ∂v/∂∇ρ, ``[3, n]``; the symmetric matrix ∂v/∂∇∇ρ, ``[6, n]``, xx xy xz yy yz zz.
    """
    rho = np.maximum(rho, 0.1 * LEAST_DENSITY)
    felt = rho >= LEAST_DENSITY
    if libxc.xc_type(xc) == "LDA":
        return libxc.eval_xc(xc, rho, deriv=2)[2][0] * felt, np.zeros_like(gradient), np.zeros_like(hessian)
    _, (_, f_s, *_), (f_rr, f_rs, f_ss, *_), (_, f_rrs, f_rss, f_sss, *_) = libxc.eval_xc(
        xc, np.vstack([rho, gradient]), deriv=3
    )
    turned = times(hessian, gradient)
    sigma, bent = np.sum(gradient**2, axis=0), np.sum(gradient * turned, axis=0)
    laplacian = hessian[0] + hessian[3] + hessian[5]
    of_rho = f_rr - 2 * (f_rrs * sigma + 2 * f_rss * bent + f_rs * laplacian)
    of_sigma = f_rs - 2 * (f_rss * sigma + f_rs + 2 * f_sss * bent + f_ss * laplacian)
    of_bent = -4 * f_ss
    of_gradient = 2 * of_sigma * gradient + 2 * of_bent * turned
    rows, columns = np.triu_indices(3)
    of_hessian = of_bent * gradient[rows] * gradient[columns]
    of_hessian[[0, 3, 5]] += -2 * f_s
    return of_rho * felt, of_gradient * felt, of_hessian * felt
