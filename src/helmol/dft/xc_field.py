"""The exchange-correlation potential of superposed atoms, as Gaussians around the atoms.

It depends on the density of neighbours, so it is fitted anew for every molecule, to its values on points
around the atoms. A fit to values is far less sensitive to how the points lie than a quadrature of products
of basis functions is: turning a molecule moves matrix elements by no more than with PySCF's own grid of level
3 and its tenfold points.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.linalg
from pyscf.dft import gen_grid, libxc
from scipy.linalg.blas import dsyrk

from helmol.arrays import Array
from helmol.dft.atoms import LOWEST_EXPONENT, SphericalAtom, exponents, gaussians, least_squares
from helmol.dft.gaussian_field import LONG, GaussianField, library_of_atoms, pointer

Columns = npt.NDArray[np.intp]

STAND_IN = "pbe"
"""Functional in the place of one whose potential is no function of density and gradient."""
N_S, N_P = 3, 2
"""Gaussians of each atom with free coefficients, and those times x, y, z."""
N_FUNCTIONS = N_S + 3 * N_P
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
NEGLIGIBLE = 10.0
"""Functions of the fit that are nowhere above exp(−10) on the points of an atom are left out there. It costs
0.1 µEh at most."""
NUMBERS_AT_ONCE = 1_000_000
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
    points = Points.of(centres, atoms, xc)
    return points.field(fit_coefficients(points, xc))


def fit_coefficients(points: Points, xc: str) -> Array:
    """Return the coefficients of :func:`fitted_xc`, ``[n_atoms N_FUNCTIONS]``, Eh."""
    normal, right = equations(points, xc)
    return Normal(normal).solved(right)


def equations(points: Points, xc: str) -> tuple[Array, Array]:
    """Return the equations of the fit: the lower triangle of their matrix, and their right side."""
    n = len(points.atoms) * N_FUNCTIONS
    normal, right = np.zeros((n, n)), np.zeros(n)
    for batch in points.batches():
        potential = xc_potential(xc, *batch.density)
        for columns, functions, rest in batch.parts(potential):
            # A row of functions times its own transpose: one triangle of it, as BLAS has it.
            square = dsyrk(1.0, functions.T, trans=1).T
            add_lower(normal, columns, square)
            right[columns] += functions @ rest
    return normal, right


def add_lower(to: Array, columns: Columns, square: Array) -> None:
    """Add to the lower triangle of some rows and columns of a matrix."""
    kernels = library_of_atoms()
    if kernels is None:
        to[np.ix_(columns, columns)] += np.tril(square)
    else:
        n, n_all = ctypes.c_long(len(columns)), ctypes.c_long(len(to))
        kernels.add_lower(n, pointer(columns), pointer(square), n_all, pointer(to))


class Normal:
    """Solve equations with ``N + RIDGE diag N``.

    Args:
        normal: N, its lower triangle; overwritten.
    """

    def __init__(self, normal: Array) -> None:
        self._scale = scale = np.sqrt(np.diag(normal))
        # Nothing is fitted by a function that is zero on all points.
        scale[scale == 0] = 1.0
        normal /= scale
        normal /= scale[:, None]
        normal[np.diag_indices(len(scale))] += RIDGE
        self._factor = scipy.linalg.cho_factor(normal, lower=True, overwrite_a=True, check_finite=False)

    def solved(self, right: Array) -> Array:
        """Return the solution for a right side."""
        return np.asarray(scipy.linalg.cho_solve(self._factor, right / self._scale) / self._scale)


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
def points_of(atom: SphericalAtom, n_radial: int = RADIAL, n_angular: int = ANGULAR) -> tuple[Array, Array]:
    """Return the points of an atom at the origin, ``[n, 3]``, bohr, and ``w ρ_A`` on them.

    Gauss–Legendre in √r up to the atom's radius, Lebedev on spheres.
    """
    x, w = np.polynomial.legendre.leggauss(n_radial)
    x, w = (x + 1) / 2, w / 2
    r = atom.radius * x**2
    shares = 4 * np.pi * r**2 * w * 2 * atom.radius * x * np.maximum(atom.density_at(r), 0)
    places, weights = [], []
    for radius, share in zip(r, shares, strict=True):
        n = next((n for below, n in INNER if radius < below), n_angular)
        sphere = np.asarray(gen_grid.MakeAngularGrid(n))
        # Points of an octant one after the other: an atom that is far from one is so from the next.
        sphere = sphere[np.lexsort((sphere[:, 0] > 0, sphere[:, 1] > 0, sphere[:, 2] > 0))]
        places.append(radius * sphere[:, :3])
        weights.append(share * sphere[:, 3])
    return np.concatenate(places), np.concatenate(weights)


class Batch:
    """Hold the points of some atoms.

    Attributes:
        density: the density ``[n]``, its gradient ``[3, n]``, its second derivatives ``[6, n]``.
    """

    def __init__(self, found: list[tuple[Columns, Array, Array]]) -> None:
        self._found = found
        values = np.concatenate([values for _, values, _ in found], axis=1)
        self.density = values[0], values[1:4], values[4:10]

    def parts(self, potential: Array) -> Iterator[tuple[Columns, Array, Array]]:
        """Yield what is fitted on the points of one atom after another.

        Args:
            potential: on all points of the batch, Eh.

        Yields:
            Which functions are not negligible there, their values, and the potential without its steep part;
            both times the root of the weights.
        """
        start = 0
        for columns, values, functions in self._found:
            end = start + values.shape[1]
            yield columns, functions, (potential[start:end] - values[10]) * values[11]
            start = end


class Points:
    """Evaluate superposed atoms on points around them.

    Args:
        centres: ``[n_atoms, 3]``, bohr.
        atoms: what is there.
        steep: coefficients of each atom's potential that is not fitted.
        n_radial: points along a radius.
        n_angular: points on most spheres (Lebedev).
    """

    def __init__(
        self,
        centres: Array,
        atoms: Sequence[SphericalAtom],
        steep: Sequence[Array],
        *,
        n_radial: int = RADIAL,
        n_angular: int = ANGULAR,
    ) -> None:
        self.centres, self.atoms, n_atoms = np.ascontiguousarray(centres), atoms, len(atoms)
        self.n_radial, self.n_angular = n_radial, n_angular
        lengths = [max(len(atom.density), len(one)) for atom, one in zip(atoms, steep, strict=True)]
        self.density, self.steep = np.zeros((n_atoms, max(lengths))), np.zeros((n_atoms, max(lengths)))
        for k, (atom, one) in enumerate(zip(atoms, steep, strict=True)):
            self.density[k, : len(atom.density)], self.steep[k, : len(one)] = atom.density, one
        self.levels = np.array([[*s, *p] for s, p in map(fit_levels, atoms)], dtype=LONG)
        self.first = np.minimum(self.levels[:, 0], [atom.first for atom in atoms])
        self.last, self.reach = np.array(lengths, dtype=LONG), np.array([atom.reach for atom in atoms])
        self.pointers = [
            *map(pointer, (self.centres, self.first, self.last, self.reach)), ctypes.c_long(max(lengths)),
            *map(pointer, (self.density, self.steep)), ctypes.c_double(LOWEST_EXPONENT), ctypes.c_long(N_S),
            ctypes.c_long(N_P), pointer(self.levels),
        ]  # fmt: skip
        # The least distance of any point of an atom (rows) from another one (columns).
        distance = np.linalg.norm(self.centres[:, None] - self.centres, axis=-1)
        gap = np.maximum(distance - [[atom.radius] for atom in atoms], 0)
        self.wanted = LOWEST_EXPONENT * 2.0**self.levels * gap[:, :, None] ** 2 < NEGLIGIBLE
        self.near = self.wanted.any(axis=2) | (gap < self.reach)

    @classmethod
    def of(cls, centres: Array, atoms: Sequence[SphericalAtom], xc: str, **numbers: int) -> Points:
        """Return the points for a functional, as many as the ``numbers`` of :class:`Points` say."""
        return cls(centres, atoms, [steep_part(atom, xc) for atom in atoms], **numbers)

    def field(self, coefficients: Array) -> GaussianField:
        """Return a fitted potential as Gaussians around the atoms."""
        fitted = coefficients.reshape(len(self.atoms), N_FUNCTIONS)
        s, p = self.steep.copy(), np.zeros((*self.steep.shape, 3))
        every = np.arange(len(self.atoms))[:, None]
        s[every, self.levels[:, :N_S]] += fitted[:, :N_S]
        p[every, self.levels[:, N_S:]] += fitted[:, N_S:].reshape(len(every), N_P, 3)
        return GaussianField(self.centres, s, p)

    def batches(self) -> Iterator[Batch]:
        """Yield the points of all atoms, of some at a time."""
        found: list[tuple[Columns, Array, Array]] = []
        size = 0
        for own in range(len(self.atoms)):
            found.append(self.evaluate(own))
            size += found[-1][2].size
            if size > NUMBERS_AT_ONCE:
                yield Batch(found)
                found, size = [], 0
        if found:
            yield Batch(found)

    def evaluate(self, own: int) -> tuple[Columns, Array, Array]:
        """Return values on the points around one atom.

        Returns:
            Which functions of the fit are not negligible; ``[12, n]``: density, its gradient, its second
            derivatives, the potential that is not fitted, the root of the weight; the functions times this
            root, ``[n_columns, n]``.
        """
        places, weights = points_of(self.atoms[own], self.n_radial, self.n_angular)
        points = places + self.centres[own]
        near = np.flatnonzero(self.near[own])
        near = np.append(own, near[near != own])
        wanted = self.wanted[own, near]
        sizes = np.repeat([1, 3], [N_S, N_P])
        ends = np.cumsum(wanted * sizes).reshape(wanted.shape)
        rows = np.where(wanted, ends - sizes, -1)
        columns = (near[:, None] * N_FUNCTIONS + np.arange(N_FUNCTIONS))[np.repeat(wanted, sizes, axis=1)]
        # Rows of the atoms in order, and those of the atom itself moved to where they belong.
        order = np.argsort(columns, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        rows = np.where(wanted, place[np.minimum(rows, len(order) - 1)], -1)
        columns = np.ascontiguousarray(columns[order])
        values, functions = np.empty((12, len(points))), np.empty((len(columns), len(points)))
        kernels = library_of_atoms()
        if kernels is None:
            self.numpy_evaluate(points, weights, near, rows, values, functions)
        else:
            kernels.superpose(
                ctypes.c_long(len(points)), pointer(points), pointer(weights), ctypes.c_long(len(near)),
                pointer(near), *self.pointers, pointer(rows), pointer(values), pointer(functions),
            )  # fmt: skip
        return columns, values, functions

    def numpy_evaluate(
        self, points: Array, weights: Array, near: Columns, rows: Columns, values: Array, functions: Array
    ) -> None:
        """Fill in values and functions without the kernel, for where there is no compiler."""
        values[:], whole = 0, np.zeros(len(points))
        alpha = exponents(self.density.shape[1])
        for k, row in zip(near, rows, strict=True):
            r = (points - self.centres[k]).T
            square = np.sum(r**2, axis=0)
            terms = np.exp(-np.outer(alpha, square))
            rho, slope = self.density[k] @ terms, -2 * (self.density[k] * alpha) @ terms
            bend = 4 * (self.density[k] * alpha**2) @ terms
            values[0] += rho
            values[1:4] += slope * r
            for component, (i, j) in enumerate(zip(*np.triu_indices(3), strict=True)):
                values[4 + component] += bend * r[i] * r[j] + (slope if i == j else 0)
            values[10] += self.steep[k] @ terms
            part = np.sqrt(np.maximum(rho, 0)) / (square**2 + 1e-30)
            whole += part
            if k == near[0]:
                values[11] = part
            for place, level in zip(row[:N_S], self.levels[k, :N_S], strict=True):
                if place >= 0:
                    functions[place] = terms[level]
            for place, level in zip(row[N_S:], self.levels[k, N_S:], strict=True):
                if place >= 0:
                    functions[place : place + 3] = r * terms[level]
        values[11] = np.sqrt(weights * values[11] / (whole + 1e-300))
        functions *= values[11]
