"""The reference ``minao-hartree``: superposed atoms whose charge has settled in its own Coulomb field."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.linalg
from pyscf import df, gto, lib

from helmol import properties
from helmol.arrays import Array, BoolArray
from helmol.dft.densities import superposed_density
from helmol.dft.lite import minao_lite
from helmol.errors import ConvergenceError

AUXILIARY = "def2-universal-jfit"
"""Where the functions are from that moved charge is expanded in."""
LARGEST_DEGREE, LARGEST_EXPONENT = 1, 1.5
"""Those of higher degree or steeper are left out, which leaves about six functions of an atom: charge that
moves is not in the core, and finer detail of it brings nothing beside the potential that is left as it is."""
LEAST_PRODUCT = 1e-7
"""Pairs of functions are left out whose most diffuse parts have a smaller product everywhere."""
TOLERANCE = 1e-6
"""Root of the Coulomb energy of what charge still moves at which the cycles end, √Eh: the change of matrix
elements is of its order in Eh."""
MOST_CYCLES = 200
REMEMBERED = 8
"""Cycles that DIIS extrapolates from."""
SHARE_OF_MEMORY = 0.4
"""Share of the memory that three-index integrals may take; else they are computed in every cycle."""
AT_ONCE = 120
"""Functions of which integrals over all pairs are computed at a time."""


def minao_hartree(mole: gto.Mole, xc: str, *, max_memory: float = 4000.0) -> Array:
    """Return ``H = H_atoms + J[D − D_atoms]`` with D the density of its own orbitals, PySCF order, Eh.

    H_atoms is :func:`helmol.dft.lite.minao_lite` of neutral atoms, D_atoms their density, J the Coulomb
    potential by density fitting with few functions. What charge changes of the exchange-correlation potential
    is left out, so there is no grid beside that of H_atoms, and three-index integrals are computed once: a
    fraction of one Fock build. Levels share electrons around the Fermi energy
    (:func:`helmol.properties.smeared_occupations`); both spins have the same matrix.

    Args:
        mole: any molecule, with or without effective core potentials.
        xc: the functional, as for :func:`helmol.dft.lite.minao_lite`.
        max_memory: MB.

    Returns:
        ``[nao, nao]``.

    Raises:
        InputError: an element of which there is no atomic density.
        ConvergenceError: the charge does not settle.
    """
    neutral = mole.copy(deep=False)
    neutral.charge = 0
    atoms = minao_lite(neutral, xc)
    coulomb = FittedCoulomb(mole, max_memory=max_memory)
    orthonormal = properties.orthonormal(mole.intor_symmetric("int1e_ovlp"))
    start = coulomb.fit(superposed_density(mole))
    extrapolation = lib.diis.DIIS()
    extrapolation.space = REMEMBERED
    moved = np.zeros_like(start)
    for _ in range(MOST_CYCLES):
        matrix = atoms + coulomb.potential(moved)
        change = coulomb.fit(_density(matrix, orthonormal, mole.nelec)) - start - moved
        if coulomb.energy(change) < TOLERANCE**2:
            return matrix
        moved = extrapolation.update(moved + change, change)
    raise ConvergenceError(f"the charge of minao-hartree does not settle in {MOST_CYCLES} cycles")


def _density(matrix: Array, orthonormal: Array, nelec: tuple[int, int]) -> Array:
    """Return the density of the orbitals of a matrix, of both spins together."""
    energy, coeff = scipy.linalg.eigh(
        orthonormal.T @ matrix @ orthonormal, overwrite_a=True, check_finite=False, driver="evd"
    )
    filled = [properties.smeared_occupations(energy, n) for n in nelec]
    return properties.density(orthonormal @ coeff, filled[0] + filled[1])


class FittedCoulomb:
    """Expand densities in few functions, ``Σ_Q (P|Q) c_Q = Σ_µν (P|µν) D_µν``, and make potentials of them.

    Args:
        mole: the molecule.
        max_memory: MB.
    """

    def __init__(self, mole: gto.Mole, *, max_memory: float) -> None:
        self._mole, self._functions = mole, auxiliary_functions(mole)
        self._pairs = np.flatnonzero(near_pairs(mole)[np.tril_indices(int(mole.nao))])
        self._metric = self._functions.intor("int2c2e")
        self._factor = scipy.linalg.cho_factor(self._metric, lower=True)
        size = 8e-6 * len(self._pairs) * int(self._functions.nao)
        self._kept = list(self._made()) if size < SHARE_OF_MEMORY * max_memory else None

    def fit(self, density: Array) -> Array:
        """Return the coefficients c of a symmetric density ``[nao, nao]``, PySCF order."""
        n_ao = int(self._mole.nao)
        packed = lib.pack_tril(2 * np.asarray(density))
        packed[np.arange(1, n_ao + 1).cumsum() - 1] /= 2
        packed = packed[self._pairs]
        right = np.concatenate([packed @ part for part in self._parts()])
        return np.asarray(scipy.linalg.cho_solve(self._factor, right))

    def potential(self, coefficients: Array) -> Array:
        """Return ``Σ_P (µν|P) c_P``, ``[nao, nao]``, PySCF order, Eh."""
        found, start = np.zeros(len(self._pairs)), 0
        for part in self._parts():
            found += part @ coefficients[start : start + part.shape[1]]
            start += part.shape[1]
        n_ao = int(self._mole.nao)
        whole = np.zeros(n_ao * (n_ao + 1) // 2)
        whole[self._pairs] = found
        return np.asarray(lib.unpack_tril(whole))

    def energy(self, coefficients: Array) -> float:
        """Return the Coulomb energy of a charge with itself twice, ``Σ_PQ c_P (P|Q) c_Q``, Eh."""
        return float(coefficients @ self._metric @ coefficients)

    def _parts(self) -> Iterator[Array]:
        """Yield ``(µν|P)`` of all near pairs and some functions at a time."""
        yield from self._made() if self._kept is None else self._kept

    def _made(self) -> Iterator[Array]:
        """Compute :meth:`_parts`."""
        places, first = self._functions.ao_loc_nr(), 0
        while first < self._functions.nbas:
            last = max(first + 1, int(np.searchsorted(places, places[first] + AT_ONCE, side="right")) - 1)
            shells = (0, self._mole.nbas, 0, self._mole.nbas, first, last)
            found = df.incore.aux_e2(self._mole, self._functions, aosym="s2ij", shls_slice=shells)
            # Column by column, as PySCF has them.
            yield np.asfortranarray(found[self._pairs])
            first = last


def auxiliary_functions(mole: gto.Mole) -> gto.Mole:
    """Return the functions that moved charge is expanded in, around all atoms that are no ghosts."""
    there = [(mole.atom_pure_symbol(k), mole.atom_coord(k)) for k in range(mole.natm) if mole.atom_charge(k)]
    functions = gto.Mole()
    functions.verbose, functions.unit, functions.spin, functions.cart = 0, "Bohr", None, mole.cart
    functions.atom, functions.basis = there, {symbol: _functions_of(symbol) for symbol, _ in there}
    functions.build(dump_input=False, parse_arg=False)
    return functions


@lru_cache(maxsize=128)
def _functions_of(symbol: str) -> list[Any]:
    """Return the functions of an element in PySCF's format, ``[[l, [exponent, coefficient], …], …]``."""
    found: list[Any] = gto.basis.load(AUXILIARY, symbol)
    return [shell for shell in found if shell[0] <= LARGEST_DEGREE and shell[1][0] <= LARGEST_EXPONENT]


def near_pairs(mole: gto.Mole) -> BoolArray:
    """Return which pairs of functions overlap at all, ``[nao, nao]``.

    The largest value of ``exp(−α r²) exp(−β |r − R|²)`` is ``exp(−αβ/(α+β) R²)``, with α and β the smallest
    exponents of both.
    """
    exponents = np.array([mole.bas_exp(k).min() for k in range(mole.nbas)])
    centres = mole.atom_coords(unit="Bohr")[mole._bas[:, gto.ATOM_OF]]
    distance = np.linalg.norm(centres[:, None] - centres, axis=-1)
    reduced = exponents[:, None] * exponents / (exponents[:, None] + exponents)
    shell = np.repeat(np.arange(mole.nbas), np.diff(mole.ao_loc_nr()))
    near = reduced * distance**2 < -np.log(LEAST_PRODUCT)
    return np.asarray(near[shell[:, None], shell])
