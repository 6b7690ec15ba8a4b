"""The exchange-correlation potential of superposed atoms, as Gaussians around the atoms.

It depends on the density of neighbours, so it is fitted anew for every molecule, to its values on points
around the atoms. A fit to values is far less sensitive to how the points lie than a quadrature of products
of basis functions is: turning a molecule moves matrix elements by no more than with PySCF's own grid of level
3 and its tenfold points.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.linalg
from pyscf.dft import gen_grid, libxc

from helmol.arrays import Array
from helmol.dft.atoms import LOWEST_EXPONENT, SphericalAtom, exponents, gaussians, least_squares
from helmol.dft.gaussian_field import LONG, GaussianField, library_of_atoms, pointer

STAND_IN = "pbe"
"""Functional in the place of one whose potential is no function of density and gradient."""
N_S, N_P = 3, 2
"""Gaussians of each atom with free coefficients, and those times x, y, z."""
WIDTH = 2.3
"""Exponent of the widest of them times the square of the atom's radius."""
RADIAL, ANGULAR = 8, 194
"""Points along a radius, and on most spheres (Lebedev)."""
INNER = ((0.2, 26), (0.6, 50), (1.2, 110))
"""Points on spheres below some radii, bohr."""
LEAST_DENSITY = 1e-9
"""Density below which the potential is left out, per bohr³."""
RIDGE = 1e-9
"""Regularisation of the fit, relative to normalised functions."""
NUMBERS_AT_ONCE = 8_000_000
"""Values of functions on points that are kept at a time."""


def stand_in(xc: str) -> str:
    """Return the functional whose potential is taken for one in PySCF's notation.

    That is the functional itself if it depends on density and gradient alone. The exact exchange of a hybrid,
    kinetic-energy densities and non-local correlation have no potential that is a function in space: PBE
    stands for the whole functional then, and what it differs by is left to be learnt.
    """
    hybrid = libxc.is_hybrid_xc(xc) or libxc.is_nlc(xc) or libxc.max_deriv_order(xc) < 2
    local = libxc.xc_type(xc) in ("LDA", "GGA") and not hybrid and bool(libxc.parse_xc(xc)[1])
    return xc if local else STAND_IN


def fit_levels(atom: SphericalAtom) -> tuple[list[int], list[int]]:
    """Return the levels of an atom's Gaussians with free coefficients, and of those times x, y, z."""
    first = max(0, round(np.log2(WIDTH / atom.radius**2 / LOWEST_EXPONENT)))
    return [first + 2 * k for k in range(N_S)], [first + 1 + 2 * k for k in range(N_P)]


def fitted_xc(centres: Array, atoms: Sequence[SphericalAtom], xc: str) -> GaussianField:
    """Return the fitted potential of the density of neutral atoms.

    Minimises ``Σ_g q_g (v(r_g) − u(r_g))²`` over points g around every atom A, with
    ``q = w ρ_A a_A / Σ_B a_B``, ``a_B = √ρ_B / r_B⁴`` and w the weights of a quadrature. Steep Gaussians of
    u are those of the atom alone.

    Args:
        centres: ``[n_atoms, 3]``, bohr.
        atoms: what is there.
        xc: a functional of density and gradient, in PySCF's notation.
    """
    steep = [steep_part(atom, xc) for atom in atoms]
    points = Points(centres, atoms, steep)
    n = len(atoms) * points.n_functions
    normal, right = np.zeros((n, n)), np.zeros(n)
    for batch in points.batches():
        potential = xc_potential(xc, *batch.density)
        for owned in batch.owners(potential):
            rows = owned.functions * np.sqrt(owned.weights)
            normal[np.ix_(owned.columns, owned.columns)] += rows @ rows.T
            right[owned.columns] += owned.functions @ (owned.weights * owned.rest)
    return points.field(_solved(normal, right))


def _solved(normal: Array, right: Array) -> Array:
    """Return the coefficients of a fit."""
    scale = np.sqrt(np.diag(normal))
    # Nothing is fitted by a function that is zero on all points.
    scale[scale == 0] = 1.0
    normal = normal / np.outer(scale, scale)
    normal[np.diag_indices(len(scale))] += RIDGE
    return np.asarray(scipy.linalg.solve(normal, right / scale, assume_a="pos") / scale)


def xc_potential(xc: str, rho: Array, gradient: Array, hessian: Array) -> Array:
    """Return ``v = ∂f/∂ρ − ∇·(∂f/∂∇ρ)`` of a closed shell, Eh.

    With σ = |∇ρ|²: ``v = f_ρ − 2 (f_ρσ σ + 2 f_σσ ∇ρᵀ(∇∇ρ)∇ρ + f_σ ∇²ρ)``.

    Args:
        xc: a functional of density and gradient.
        rho: ``[n]``, per bohr³.
        gradient: ``[3, n]``.
        hessian: ``[6, n]``, xx xy xz yy yz zz.
    """
    rho = np.maximum(rho, 0.1 * LEAST_DENSITY)
    if libxc.xc_type(xc) == "LDA":
        potential = np.array(libxc.eval_xc(xc, rho, deriv=1)[1][0])
    else:
        _, first, second, _ = libxc.eval_xc(xc, np.vstack([rho, gradient]), deriv=2)
        square = np.sum(gradient**2, axis=0)
        bent = np.sum(gradient * times(hessian, gradient), axis=0)
        laplacian = hessian[0] + hessian[3] + hessian[5]
        potential = first[0] - 2 * (second[1] * square + 2 * second[2] * bent + first[1] * laplacian)
    potential[rho < LEAST_DENSITY] = 0
    return potential


def times(symmetric: Array, vector: Array) -> Array:
    """Return the product of symmetric matrices ``[6, n]`` and vectors ``[3, n]``."""
    xx, xy, xz, yy, yz, zz = symmetric
    x, y, z = vector
    return np.stack([xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z])


@lru_cache(maxsize=512)
def steep_part(atom: SphericalAtom, xc: str) -> Array:
    """Return the coefficients of an atom's own potential beyond the levels that are fitted, Eh.

    Those of a fit to the potential of the atom alone, over all of its levels from the first fitted one on.
    """
    levels, _ = fit_levels(atom)
    r, n = np.geomspace(1e-4, atom.radius, 600), max(len(atom.density), levels[-1] + 2)
    alpha, terms = exponents(len(atom.density)), gaussians(r, len(atom.density)) * np.array(atom.density)
    rho, slope, bend = terms.sum(axis=1), -2 * terms @ alpha, 4 * terms @ alpha**2
    zero = np.zeros_like(r)
    gradient = np.stack([zero, zero, slope * r])
    hessian = np.stack([slope, zero, zero, slope, zero, slope + bend * r**2])
    potential = xc_potential(xc, rho, gradient, hessian)
    functions = gaussians(r, n)[:, levels[0] :]
    found = np.zeros(n)
    found[levels[0] :] = least_squares(functions, potential, r**3 * np.maximum(rho, 0) ** 0.7)
    found[: levels[-1] + 1] = 0
    return found


@lru_cache(maxsize=256)
def points_of(atom: SphericalAtom) -> tuple[Array, Array]:
    """Return the points of an atom at the origin, ``[n, 3]``, bohr, and ``w ρ_A`` on them.

    Gauss–Legendre in √r up to the atom's radius, Lebedev on spheres.
    """
    x, w = np.polynomial.legendre.leggauss(RADIAL)
    x, w = (x + 1) / 2, w / 2
    r = atom.radius * x**2
    shares = 4 * np.pi * r**2 * w * 2 * atom.radius * x * np.maximum(atom.density_at(r), 0)
    places, weights = [], []
    for radius, share in zip(r, shares, strict=True):
        n = next((n for below, n in INNER if radius < below), ANGULAR)
        sphere = np.asarray(gen_grid.MakeAngularGrid(n))
        places.append(radius * sphere[:, :3])
        weights.append(share * sphere[:, 3])
    return np.concatenate(places), np.concatenate(weights)


@dataclass(frozen=True)
class Owned:
    """Hold the points of one atom, and what is fitted on them.

    Attributes:
        columns: places of the functions that are not negligible among all, ``[n_columns]``.
        weights: ``q``, ``[n]``.
        rest: the potential without its steep part, Eh, ``[n]``.
        functions: ``[n_columns, n]``.
    """

    columns: npt.NDArray[np.intp]
    weights: Array
    rest: Array
    functions: Array


class Batch:
    """Hold the points of some atoms.

    Attributes:
        density: the density ``[n]``, its gradient ``[3, n]``, its second derivatives ``[6, n]``.
    """

    def __init__(self, parts: list[tuple[npt.NDArray[np.intp], Array, Array, Array]]) -> None:
        self._parts = parts
        values = np.concatenate([values for _, _, values, _ in parts], axis=1)
        self.density = values[0], values[1:4], values[4:10]

    def owners(self, potential: Array) -> Iterator[Owned]:
        """Yield what is needed for the fit, atom by atom."""
        start = 0
        for columns, weights, values, functions in self._parts:
            end = start + len(weights)
            rest = potential[start:end] - values[10]
            yield Owned(columns, weights * values[11], rest, functions[columns])
            start = end


class Points:
    """Evaluate superposed atoms on points around them.

    Args:
        centres: ``[n_atoms, 3]``, bohr.
        atoms: what is there.
        steep: coefficients of each atom's potential that is not fitted.
    """

    def __init__(self, centres: Array, atoms: Sequence[SphericalAtom], steep: Sequence[Array]) -> None:
        self.centres, self.atoms = np.ascontiguousarray(centres), atoms
        self.n_functions = N_S + 3 * N_P
        n_levels = max(len(one) for one in (*steep, *(atom.density for atom in atoms)))
        self.density, self.steep = np.zeros((len(atoms), n_levels)), np.zeros((len(atoms), n_levels))
        self.levels = np.array([[*s, *p] for s, p in map(fit_levels, atoms)], dtype=LONG)
        self.first = np.array(
            [min(atom.first, levels[0]) for atom, levels in zip(atoms, self.levels, strict=True)], dtype=LONG
        )
        self.last = np.array(
            [max(len(atom.density), len(one)) for atom, one in zip(atoms, steep, strict=True)], dtype=LONG
        )
        for k, (atom, one) in enumerate(zip(atoms, steep, strict=True)):
            self.density[k, : len(atom.density)], self.steep[k, : len(one)] = atom.density, one

    def field(self, coefficients: Array) -> GaussianField:
        """Return a fitted potential as Gaussians around the atoms."""
        fitted = coefficients.reshape(len(self.atoms), self.n_functions)
        s, p = self.steep.copy(), np.zeros((*self.steep.shape, 3))
        every = np.arange(len(self.atoms))[:, None]
        s[every, self.levels[:, :N_S]] += fitted[:, :N_S]
        p[every, self.levels[:, N_S:]] += fitted[:, N_S:].reshape(len(every), N_P, 3)
        return GaussianField(self.centres, s, p)

    def batches(self) -> Iterator[Batch]:
        """Yield the points of all atoms, of some at a time."""
        parts, size = [], 0
        for own, atom in enumerate(self.atoms):
            places, weights = points_of(atom)
            values, columns, functions = self.evaluate(places + self.centres[own], own)
            parts.append((columns, weights, values, functions))
            size += functions.size
            if size > NUMBERS_AT_ONCE:
                yield Batch(parts)
                parts, size = [], 0
        if parts:
            yield Batch(parts)

    def evaluate(self, points: Array, own: int) -> tuple[Array, npt.NDArray[np.intp], Array]:
        """Return values on points around one atom.

        Returns:
            ``[12, n]``: density, its gradient, its second derivatives, the potential that is not fitted, the
            atom's part of the whole; which functions of the fit are not negligible; all of them,
            ``[n_atoms n_functions, n]``.
        """
        kernels = library_of_atoms()
        if kernels is None:
            return self.numpy_evaluate(points, own)
        points = np.ascontiguousarray(points)
        n, n_atoms = len(points), len(self.atoms)
        values, functions = np.empty((12, n)), np.zeros((n_atoms * self.n_functions, n))
        used = np.zeros((n_atoms, N_S + N_P), dtype=LONG)
        kernels.superpose(
            ctypes.c_long(n), pointer(points), ctypes.c_long(n_atoms), pointer(self.centres),
            pointer(self.first), pointer(self.last), ctypes.c_long(self.density.shape[1]),
            pointer(self.density), pointer(self.steep), ctypes.c_double(LOWEST_EXPONENT),
            ctypes.c_long(N_S), ctypes.c_long(N_P), pointer(self.levels), ctypes.c_long(own),
            pointer(values), pointer(functions), pointer(used),
        )  # fmt: skip
        columns = np.flatnonzero(np.repeat(used, [1] * N_S + [3] * N_P, axis=1))
        return values, columns, functions

    def numpy_evaluate(self, points: Array, own: int) -> tuple[Array, npt.NDArray[np.intp], Array]:
        """Return :meth:`evaluate` without the kernel, for where there is no compiler."""
        values, functions, whole = np.zeros((12, len(points))), [], np.zeros(len(points))
        alpha = exponents(self.density.shape[1])
        for k, centre in enumerate(self.centres):
            r = (points - centre).T
            square = np.sum(r**2, axis=0)
            terms = np.exp(-np.outer(alpha, square))
            rho, slope = self.density[k] @ terms, -2 * (self.density[k] * alpha) @ terms
            bend = 4 * (self.density[k] * alpha**2) @ terms
            values[0] += rho
            values[1:4] += slope * r
            for row, (i, j) in enumerate(zip(*np.triu_indices(3), strict=True)):
                values[4 + row] += bend * r[i] * r[j] + (slope if i == j else 0)
            values[10] += self.steep[k] @ terms
            part = np.sqrt(np.maximum(rho, 0)) / (square**2 + 1e-30)
            whole += part
            if k == own:
                values[11] = part
            functions += [terms[level] for level in self.levels[k, :N_S]]
            functions += [r[i] * terms[level] for level in self.levels[k, N_S:] for i in range(3)]
        values[11] /= whole + 1e-300
        return values, np.arange(len(functions)), np.array(functions)
