"""Spherical neutral atoms as sums of Gaussians: densities, and potentials of nucleus and electrons.

Every sum runs over one ladder of exponents, ``α_k = 0.01 · 2^k`` per bohr², so that all Gaussians of a
distance follow from the first by squaring. ``atoms.json`` holds the densities; ``make_atoms.py`` wrote it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pyscf import gto
from scipy.special import erf

from helmol.arrays import Array
from helmol.dft.densities import atom_of, hartree_fock_atom

LOWEST_EXPONENT = 0.01
"""First exponent of the ladder, per bohr²."""
TABLE = Path(__file__).with_name("atoms.json")

TAIL = 1e-5
"""Density at which an atom ends for the choice of points, per bohr³."""
VOID = 1e-10
"""Density that is not felt by any point, per bohr³."""
STEEPEST_DENSITY, STEEPEST_VALENCE = 300.0, 3.0
"""Last exponent of a density over the squared charge of the nucleus, with all electrons and beside an
effective core potential; the cusp at the nucleus is steeper, and holds next to nothing."""
STEEPEST_POTENTIAL = 1e5
"""The same of a potential. What is left out of −Z/r is a point of 1e-5 π Eh bohr³ per Z."""
WORSE = 2.0
"""By what factor a shorter fit may be worse."""
RIDGE = 1e-13
"""Regularisation of fits, relative to normalised functions."""


def exponents(n: int) -> Array:
    """Return the first exponents of the ladder, per bohr², ``[n]``."""
    return np.asarray(LOWEST_EXPONENT * 2.0 ** np.arange(n))


@dataclass(frozen=True)
class SphericalAtom:
    """Hold a neutral, spherical atom, or what is left of it beside an effective core potential.

    Attributes:
        charge: of the nucleus without the core.
        density: coefficients of ``ρ(r) = Σ_k c_k exp(−α_k r²)``, per bohr³; those before the atom's first
            exponent are zero. ``Σ_k c_k (π/α_k)^{3/2}`` is the charge.
    """

    charge: int
    density: tuple[float, ...]

    @cached_property
    def first(self) -> int:
        """Place of the first exponent of the density in the ladder."""
        return next(k for k, c in enumerate(self.density) if c)

    @cached_property
    def radius(self) -> float:
        """Distance up to which there are points to fit at, bohr."""
        return self._end(TAIL)

    @cached_property
    def reach(self) -> float:
        """Distance beyond which there is no density to speak of, bohr."""
        return self._end(VOID)

    def _end(self, density: float) -> float:
        """Return the distance at which the density falls below a value for good, bohr."""
        r = np.linspace(0.5, 20.0, 2000)
        return float(r[np.flatnonzero(self.density_at(r) > density).max()])

    @cached_property
    def potential(self) -> Array:
        """Coefficients of ``−Z/r + ∫ρ(r')/|r−r'|`` over the ladder, from the atom's first exponent on, Eh.

        The potential of the charge q of one Gaussian is ``q erf(√α r)/r``; the sum ends with the atom, as
        that of Gaussians does. Least squares: matrix elements of atoms up to oxygen are off by less than a
        µEh on average, of krypton by 35.
        """
        n = _levels(STEEPEST_POTENTIAL * max(self.charge, 1) ** 2)
        r = distances()
        alpha = exponents(len(self.density))
        charges = np.array(self.density) * (np.pi / alpha) ** 1.5
        values = (erf(np.sqrt(alpha) * r[:, None]) @ charges - self.charge) / r
        z = max(self.charge, 1)
        weights = r**3 * (2 + 10 * np.exp(-2 * r) + z**3 * np.exp(-2 * z * r))
        found: Array = np.zeros(n)
        found[self.first :] = least_squares(gaussians(r, n)[:, self.first :], values, weights)
        return found

    def density_at(self, r: Array) -> Array:
        """Return the density at distances, per bohr³."""
        return np.asarray(gaussians(r, len(self.density)) @ np.array(self.density))


def gaussians(r: Array, n: int) -> Array:
    """Return ``exp(−α_k r²)`` of the first exponents of the ladder, ``[len(r), n]``."""
    return np.asarray(np.exp(-np.outer(r**2, exponents(n))))


def least_squares(functions: Array, values: Array, weights: Array) -> Array:
    """Return the coefficients x with the least ``Σ_i w_i (Σ_k f_ik x_k − v_i)²``."""
    normal = functions.T @ (weights[:, None] * functions)
    scale = np.sqrt(np.diag(normal))
    normal = normal / np.outer(scale, scale) + RIDGE * np.eye(len(scale))
    return np.asarray(np.linalg.solve(normal, functions.T @ (weights * values) / scale) / scale)


def fit_density(r: Array, density: Array, charge: int, *, core: bool = False) -> SphericalAtom:
    """Return an atom with a density that is given at distances, its charge exact.

    Least squares with weights ``4πr²/max_{r' ≥ r} ρ(r')``. It leaves out as many of the first exponents of
    the ladder as makes the sum of squares no more than twice the least, of fits without a negative tail if
    there are any.

    Args:
        r: distances that grow by a constant factor, bohr, from far inside the core to the tail.
        density: there, per bohr³.
        charge: electrons, and nucleus without the core.
        core: whether an effective core potential stands for further electrons.
    """
    steepest = STEEPEST_VALENCE if core else STEEPEST_DENSITY
    # Without a core the density near the nucleus is small and matters little.
    beyond = np.maximum.accumulate(density[::-1])[::-1]
    weights = 4 * np.pi * r**3 / np.maximum(beyond, 1e-10) * (beyond > 1e-9)
    found = []
    for first in range(6):
        functions = gaussians(r, _levels(steepest * charge**2))[:, first:]
        coefficients = _charged(functions, density, weights, charge, first)
        fitted = functions @ coefficients
        error = float(np.sum(weights * (fitted - density) ** 2))
        found.append((error, bool((fitted[density > 1e-12] >= 0).all()), first, coefficients))
    least = min(error for error, *_ in found)
    good = [entry for entry in found if entry[0] <= WORSE * least]
    _, _, first, coefficients = max(good, key=lambda entry: (entry[1], entry[2]))
    return SphericalAtom(charge, (*[0.0] * first, *coefficients.tolist()))


def _charged(functions: Array, values: Array, weights: Array, charge: int, first: int) -> Array:
    """Return the coefficients of least squares among those with a charge, by a Lagrange multiplier."""
    n = functions.shape[1]
    normal = functions.T @ (weights[:, None] * functions)
    scale = np.sqrt(np.diag(normal))
    volumes = (np.pi / exponents(first + n)[first:]) ** 1.5 / scale
    size = np.linalg.norm(volumes)
    bordered = np.zeros((n + 1, n + 1))
    bordered[:n, :n] = normal / np.outer(scale, scale) + RIDGE * np.eye(n)
    bordered[:n, n] = bordered[n, :n] = volumes / size
    right = np.append(functions.T @ (weights * values) / scale, charge / size)
    return np.asarray(np.linalg.solve(bordered, right)[:n] / scale)


def _levels(steepest: float) -> int:
    """Return how many exponents the ladder has up to one."""
    return int(np.ceil(np.log2(steepest / LOWEST_EXPONENT)))


def spherical_atom(mole: gto.Mole, atom: int) -> SphericalAtom:
    """Return the spherical atom of an atom of a molecule.

    From the table, which has the elements up to radon with all their electrons and those of def2 sets with
    their effective core potentials. They are PySCF's minao atoms (of ANO orbitals that are
    not projected onto anything); from potassium to krypton, and beside a core potential, spherically averaged
    PBE atoms in def2-QZVPP. An atom that the table lacks has the density of
    :func:`helmol.dft.densities.hartree_fock_atom` in the basis of the molecule.

    Raises:
        InputError: as :func:`helmol.dft.densities.hartree_fock_atom`.
    """
    core = int(mole.atom_nelec_core(atom))
    number = int(mole.atom_charge(atom)) + core
    known = _table().get((number, core))
    return computed_atom(*atom_of(mole, atom)) if known is None else known


@cache
def _table() -> dict[tuple[int, int], SphericalAtom]:
    """Return the atoms of ``atoms.json`` by atomic number and core electrons."""
    return {
        (int(number), int(core)): SphericalAtom(int(number) - int(core), tuple(density))
        for number, by_core in json.loads(TABLE.read_text()).items()
        for core, density in by_core.items()
    }


@lru_cache(maxsize=256)
def computed_atom(symbol: str, basis: Any, potential: Any) -> SphericalAtom:
    """Return the spherical atom of an element in a basis with an effective core potential."""
    mole, orbitals, occupations = hartree_fock_atom(symbol, basis, potential)
    r, charge = distances(), int(mole.atom_charge(0))
    density = radial_density(mole, orbitals, occupations, r)
    return fit_density(r, density, charge, core=bool(mole.atom_nelec_core(0)))


def radial_density(mole: gto.Mole, orbitals: Array, occupations: Array, r: Array) -> Array:
    """Return the density of a spherical atom at the origin at distances, per bohr³."""
    # Any direction does.
    along = mole.eval_gto("GTOval", r[:, None] * [0.0, 0.0, 1.0]) @ orbitals
    return np.asarray(along**2 @ occupations)


def distances() -> Array:
    """Return the distances at which densities are fitted, bohr."""
    return np.geomspace(1e-5, 25.0, 3000)
