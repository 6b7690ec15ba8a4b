"""Coulomb potentials of densities that are expanded in few functions around the atoms."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.linalg
from pyscf import df, gto
from pyscf.gto import moleintor

from helmol.arrays import Array, BoolArray
from helmol.dft.gaussian_field import LONG, pointer
from helmol.native.build import library

AUXILIARY = "def2-universal-jfit"
"""Where the functions are from that moved charge is expanded in."""
LARGEST_DEGREE, LARGEST_EXPONENT = 1, 1.5
"""Those of higher degree or steeper are left out, which leaves about six functions of an atom: charge that
moves is not in the core, and finer detail of it brings nothing beside the potential that is left as it is."""
LEAST_PRODUCT = 1e-7
"""Pairs of functions are left out whose most diffuse parts have a smaller product everywhere."""
LEAST_EXPONENT = 40.0
"""The kernel leaves out products of primitives below exp(-this), the least that libcint takes."""
SHARE_OF_MEMORY = 0.4
"""Share of the memory that three-index integrals may take; else they are computed in every cycle."""
AT_ONCE = 120
"""Functions of which integrals are computed at a time where they are not kept, or transformed."""
MOST_PRODUCTS = 60_000_000
"""Integrals over orbitals that are held at a time, four bytes each."""

IntArray = npt.NDArray[np.signedinteger[Any]]


class FittedCoulomb:
    """Expand densities in few functions, ``Σ_Q (P|Q) c_Q = Σ_µν (P|µν) D_µν``, and make potentials of them.

    Args:
        mole: the molecule.
        functions: the P.
        max_memory: MB.
    """

    def __init__(self, mole: gto.Mole, functions: gto.Mole, *, max_memory: float) -> None:
        self._functions = functions
        self._integrals = Integrals(mole, self._functions)
        self._n_ao = int(mole.nao)
        self._metric = self._functions.intor("int2c2e")
        self._factor = scipy.linalg.cho_factor(self._metric, lower=True, check_finite=False)
        size = 8e-6 * len(self._integrals.weights) * int(self._functions.nao)
        whole = (0, int(self._functions.nbas))
        self._kept = self._integrals.of(*whole) if size < SHARE_OF_MEMORY * max_memory else None

    def fit(self, density: Array) -> Array:
        """Return the coefficients c of a symmetric density ``[nao, nao]``, PySCF order."""
        packed = np.asarray(density).take(self._integrals.below) * self._integrals.weights
        return self.solve(np.concatenate([part @ packed for part in self._parts()]))

    def solve(self, potentials: Array) -> Array:
        """Return c with ``Σ_Q (P|Q) c_Q = v_P``, for v ``[n]`` or ``[n, …]``."""
        return np.asarray(scipy.linalg.cho_solve(self._factor, potentials, check_finite=False))

    def potential(self, coefficients: Array) -> Array:
        """Return ``Σ_P (µν|P) c_P``, ``[nao, nao]``, PySCF order, Eh."""
        found, start = np.zeros(len(self._integrals.weights)), 0
        for part in self._parts():
            found += coefficients[start : start + len(part)] @ part
            start += len(part)
        whole = np.zeros(self._n_ao**2)
        whole[self._integrals.below] = found
        whole[self._integrals.above] = found
        return whole.reshape(self._n_ao, self._n_ao)

    def polarisation(self, filled: Array, others: Array, weights: Array) -> Array:
        """Return ``Π_PQ = Σ_ia w_ia (P|ia) (Q|ia)`` in the precision of the weights, ``[n, n]``.

        Args:
            filled: orbitals i, ``[nao, n_i]``.
            others: orbitals a, ``[nao, n_a]``.
            weights: not negative, ``[n_i, n_a]``.
        """
        n = int(self._functions.nao)
        found = np.zeros((n, n), dtype=weights.dtype)
        at_once = max(1, MOST_PRODUCTS // (n * others.shape[1]))
        for first in range(0, filled.shape[1], at_once):
            some = slice(first, first + at_once)
            products = self._products(filled[:, some].astype(weights.dtype), others.astype(weights.dtype))
            products *= np.sqrt(weights[some])
            flat = products.reshape(n, -1)
            found += flat @ flat.T
        return found

    def diagonal(self, orbitals: Array) -> Array:
        """Return ``(P|kk)`` of some orbitals ``[nao, n_k]``, ``[n, n_k]``."""
        below = self._integrals.below
        mu, nu = below // self._n_ao, below % self._n_ao
        packed = orbitals[mu] * orbitals[nu] * self._integrals.weights[:, None]
        return np.concatenate([part @ packed for part in self._parts()])

    def _products(self, left: Array, right: Array) -> Any:
        """Return ``(P|ia)`` in the precision of the orbitals, ``[n, n_i, n_a]``, from near pairs only."""
        mu, nu = np.divmod(self._integrals.below, self._n_ao)
        twice = np.flatnonzero(self._integrals.weights == 2)
        rows = np.concatenate([mu, nu[twice]])
        order = np.argsort(rows, kind="stable")
        column = np.concatenate([nu, mu[twice]])[order]
        where = np.concatenate([np.arange(len(mu)), twice])[order]
        bounds = np.searchsorted(rows[order], np.arange(self._n_ao + 1))
        near = [slice(*ends) for ends in pairwise(bounds)]
        found = []
        for part in self._parts():
            for first in range(0, len(part), AT_ONCE):
                # Pairs first: what is picked out of it is whole rows.
                integrals = np.ascontiguousarray(part[first : first + AT_ONCE].T, dtype=left.dtype)
                half = np.empty((self._n_ao, integrals.shape[1], left.shape[1]), dtype=left.dtype)
                for row, some in enumerate(near):
                    half[row] = integrals.take(where[some], axis=0).T @ left[column[some]]
                found.append(half.transpose(1, 2, 0) @ right)
        return np.concatenate(found)

    @property
    def metric(self) -> Array:
        """``(P|Q)``, ``[n, n]``, Eh."""
        return np.asarray(self._metric)

    def energy(self, coefficients: Array) -> float:
        """Return the Coulomb energy of a charge with itself twice, ``Σ_PQ c_P (P|Q) c_Q``, Eh."""
        return float(coefficients @ self._metric @ coefficients)

    def _parts(self) -> Iterator[Array]:
        """Yield ``(P|µν)`` of all near pairs and some functions at a time, ``[n, n_pairs]``."""
        if self._kept is not None:
            yield self._kept
            return
        places, first = self._functions.ao_loc_nr(), 0
        while first < self._functions.nbas:
            last = max(first + 1, int(np.searchsorted(places, places[first] + AT_ONCE, side="right")) - 1)
            yield self._integrals.of(first, last)
            first = last


class Integrals:
    """Compute ``(P|µν)`` of the near pairs µν of a molecule's functions.

    Pairs stand in the order of pairs of shells i ≥ j, those of one pair ν by ν, and of shells with themselves
    are there both ways.

    Args:
        mole: the molecule.
        functions: the P.

    Attributes:
        below: where in a matrix ``[nao, nao]`` each pair is, ``[n_pairs]``.
        above: where the pair is the other way round.
        weights: how many elements of a symmetric matrix it stands for, 2 or 1.
    """

    def __init__(self, mole: gto.Mole, functions: gto.Mole) -> None:
        self._mole, self._functions = mole, functions
        places = np.asarray(mole.ao_loc_nr(), dtype=LONG)
        first, second = np.nonzero(np.tril(near_shells(mole)))
        sizes = np.diff(places)
        of_pair = sizes[first] * sizes[second]
        starts = np.cumsum(of_pair) - of_pair
        self._pairs = np.ascontiguousarray(np.column_stack([first, second, starts, of_pair]), dtype=LONG)
        within = np.arange(int(of_pair.sum())) - np.repeat(starts, of_pair)
        fast = np.repeat(sizes[first], of_pair)
        mu = np.repeat(places[first], of_pair) + within % fast
        nu = np.repeat(places[second], of_pair) + within // fast
        self._mu, self._nu = mu, nu
        n_ao = int(mole.nao)
        self.below: IntArray = mu * n_ao + nu
        self.above: IntArray = nu * n_ao + mu
        self.weights: Array = np.repeat(np.where(first == second, 1.0, 2.0), of_pair)

    def of(self, first: int, last: int) -> Array:
        """Return the integrals of some shells of the functions, ``[n, n_pairs]``, Eh."""
        kernels = None if self._mole.cart else library("coulomb")
        return self.of_pyscf(first, last) if kernels is None else self._of_kernel(kernels, first, last)

    def of_pyscf(self, first: int, last: int) -> Array:
        """Return :meth:`of` from PySCF's integrals of all pairs."""
        shells = (0, self._mole.nbas, 0, self._mole.nbas, first, last)
        found = df.incore.aux_e2(self._mole, self._functions, aosym="s2ij", shls_slice=shells)
        larger, smaller = np.maximum(self._mu, self._nu), np.minimum(self._mu, self._nu)
        # PySCF has them function by function.
        return np.ascontiguousarray(found.T.take(larger * (larger + 1) // 2 + smaller, axis=1))

    def _of_kernel(self, kernels: ctypes.CDLL, first: int, last: int) -> Array:
        """Return :meth:`of` by PySCF's own function for a pair of shells and a third."""
        own, others = self._mole, self._functions
        atm, bas, env = gto.conc_env(own._atm, own._bas, own._env, others._atm, others._bas, others._env)
        atm, bas = np.ascontiguousarray(atm, dtype=np.intc), np.ascontiguousarray(bas, dtype=np.intc)
        env = np.ascontiguousarray(env, dtype=float)
        env[gto.PTR_EXPCUTOFF] = LEAST_EXPONENT
        optimiser = moleintor.make_cintopt(atm, bas[: own.nbas], env, "int3c2e_sph")
        columns = [gto.ANG_OF, gto.NPRIM_OF, gto.NCTR_OF]
        kinds = [
            start + np.unique(bas[start:end, columns], axis=0, return_index=True)[1]
            for start, end in ((0, own.nbas), (own.nbas, len(bas)))
        ]
        places = np.asarray(others.ao_loc_nr(), dtype=LONG)[first : last + 1]
        out = np.empty((int(places[-1] - places[0]), len(self.weights)))
        lacking = kernels.near_integrals(
            ctypes.cast(moleintor.libcgto.int3c2e_sph, ctypes.c_void_p), optimiser, pointer(atm),
            ctypes.c_long(len(atm)), pointer(bas), ctypes.c_long(len(bas)), pointer(env),
            ctypes.c_long(len(kinds[0]) + len(kinds[1])), ctypes.c_long(len(kinds[0])),
            pointer(np.concatenate(kinds).astype(LONG)),
            ctypes.c_long(len(self._pairs)), pointer(self._pairs), ctypes.c_long(own.nbas + first),
            ctypes.c_long(own.nbas + last), pointer(places - places[0]),
            ctypes.c_long(out.shape[1]), pointer(out),
        )  # fmt: skip
        if lacking:
            raise MemoryError("no memory for three-index integrals")
        return out


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
    """Return the functions of an element in PySCF's format, ``[[l, [exponent, coefficient, …], …], …]``.

    Those of one degree are contractions of one shell, of one primitive each: integrals of shells are faster.
    """
    found: list[Any] = gto.basis.load(AUXILIARY, symbol)
    shells = []
    for l in range(LARGEST_DEGREE + 1):
        exponents = [s[1][0] for s in found if s[0] == l and s[1][0] <= LARGEST_EXPONENT]
        if exponents:
            shells.append(
                [
                    l,
                    *(
                        [alpha, *row]
                        for alpha, row in zip(exponents, np.eye(len(exponents)).tolist(), strict=True)
                    ),
                ]
            )
    return shells


def near_pairs(mole: gto.Mole) -> BoolArray:
    """Return which pairs of functions overlap at all, ``[nao, nao]``; see :func:`near_shells`."""
    shell = np.repeat(np.arange(mole.nbas), np.diff(mole.ao_loc_nr()))
    return np.asarray(near_shells(mole)[shell[:, None], shell])


def near_shells(mole: gto.Mole) -> BoolArray:
    """Return which pairs of shells overlap at all, ``[nbas, nbas]``.

    The largest value of ``exp(−α r²) exp(−β |r − R|²)`` is ``exp(−αβ/(α+β) R²)``, with α and β the smallest
    exponents of both.
    """
    exponents = np.array([mole.bas_exp(k).min() for k in range(mole.nbas)])
    centres = mole.atom_coords(unit="Bohr")[mole._bas[:, gto.ATOM_OF]]
    distance = np.linalg.norm(centres[:, None] - centres, axis=-1)
    reduced = exponents[:, None] * exponents / (exponents[:, None] + exponents)
    return np.asarray(reduced * distance**2 < -np.log(LEAST_PRODUCT))
