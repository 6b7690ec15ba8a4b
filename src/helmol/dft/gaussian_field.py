"""Potentials of Gaussians around atoms, and their matrix elements."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pyscf import gto

from helmol.arrays import Array
from helmol.dft.atoms import exponents
from helmol.native.build import library

LARGEST_L = 6
"""Largest degree of a shell that the kernel is written for."""
LONG = np.dtype(ctypes.c_long)
NUMBERS_AT_ONCE = 10_000_000
"""Integrals in memory together."""


@dataclass(frozen=True)
class GaussianField:
    """Hold a potential ``Σ_A Σ_k (s_Ak + p_Ak · r_A) exp(−α_k r_A²)``, α_k those of the ladder, Eh.

    Attributes:
        centres: ``[n_atoms, 3]``, bohr.
        s: ``[n_atoms, n_levels]``.
        p: ``[n_atoms, n_levels, 3]``.
    """

    centres: Array
    s: Array
    p: Array

    @property
    def first(self) -> int:
        """First level that is used."""
        used = self.s.any(axis=0) | self.p.any(axis=(0, 2))
        return int(np.argmax(used))

    def matrix(self, mole: gto.Mole) -> Array:
        """Return ``⟨µ|V|ν⟩`` between the functions of a molecule, ``[nao, nao]``, PySCF order, Eh."""
        out = np.zeros((int(mole.nao), int(mole.nao)))
        return out if self._run(mole, pointer(out), None, None, None) else self.pyscf_matrix(mole)

    def gradient(self, mole: gto.Mole, weights: Array) -> tuple[Array, Array]:
        """Return the derivatives of ``Σ X_µν ⟨µ|V|ν⟩`` with respect to places.

        Args:
            mole: of the functions.
            weights: X, symmetric, ``[nao, nao]``, PySCF order.

        Returns:
            Those of the functions of each atom of the molecule, ``[natm, 3]``, and those of the potential's
            centres, its coefficients held, ``[n_atoms, 3]``; Eh/bohr times the unit of X.
        """
        of_shells, of_centres = np.zeros((mole.nbas, 3)), np.zeros((len(self.centres), 3))
        dense = np.ascontiguousarray(weights)
        if not self._run(mole, None, pointer(dense), pointer(of_shells), pointer(of_centres)):
            return self.pyscf_gradient(mole, weights)
        of_atoms = np.zeros((mole.natm, 3))
        np.add.at(of_atoms, mole._bas[:, gto.ATOM_OF], of_shells)
        return of_atoms, of_centres

    def _run(self, mole: gto.Mole, *arrays: ctypes.c_void_p | None) -> bool:
        """Run the kernel if there is one for such functions, and return whether.

        Args:
            mole: of the functions.
            arrays: the matrix, weights, derivatives with respect to shells and to centres.
        """
        kernels = library_of_atoms()
        if kernels is None or mole.cart or max(mole.bas_angular(k) for k in range(mole.nbas)) > LARGEST_L:
            return False
        first, last = self.first, len(self.s[0])
        with_p = np.flatnonzero(self.p.any(axis=(0, 2)))
        p_first, p_last = (int(with_p[0]), int(with_p[-1]) + 1) if len(with_p) else (first, first)
        shells, env = _shells(mole), np.ascontiguousarray(mole._env)
        to_spherical, offsets = _to_spherical()
        lacking = kernels.potential(
            ctypes.c_long(len(shells)), pointer(shells), pointer(env), pointer(env), pointer(env),
            pointer(to_spherical), pointer(offsets), ctypes.c_long(len(self.centres)), pointer(self.centres),
            ctypes.c_long(last - first), pointer(exponents(last)[first:]),
            pointer(np.ascontiguousarray(self.s[:, first:])), ctypes.c_long(p_first - first),
            ctypes.c_long(p_last - first), pointer(np.ascontiguousarray(self.p[:, p_first:p_last])),
            ctypes.c_long(int(mole.nao)), *arrays,
        )  # fmt: skip
        if lacking:
            raise MemoryError("no memory for matrix elements of a potential")
        return True

    def pyscf_matrix(self, mole: gto.Mole) -> Array:
        """Return :meth:`matrix` from PySCF's integrals, for where there is no compiler; ten times slower."""
        out = np.zeros((int(mole.nao), int(mole.nao)))
        for atom in range(len(self.centres)):
            functions, coefficients = self.functions(atom)
            out += three_centre("int3c1e", mole, functions)[0] @ coefficients
        return out

    def pyscf_gradient(self, mole: gto.Mole, weights: Array) -> tuple[Array, Array]:
        """Return :meth:`gradient` from PySCF's integrals; many times slower, too."""
        of_atoms, of_centres = np.zeros((mole.natm, 3)), np.zeros((len(self.centres), 3))
        n, places = int(mole.nao), mole.ao_loc_nr()
        owners = owners_of(mole)
        for atom in range(len(self.centres)):
            functions, coefficients = self.functions(atom)
            n_parts = 1 + 3 * n**2 * len(coefficients) // NUMBERS_AT_ONCE
            bounds = np.unique(np.linspace(0, mole.nbas, n_parts + 1).astype(int)).tolist()
            for shells in pairwise(bounds):
                rows = slice(int(places[shells[0]]), int(places[shells[1]]))
                integrals = three_centre("int3c1e_ip1", mole, functions, shells) @ coefficients
                change = 2 * np.einsum("xij,ij->ix", integrals, weights[rows])
                # A function that moves with its atom changes by −∇µ; if all move together nothing changes.
                np.add.at(of_atoms, owners[rows], -change)
                of_centres[atom] += change.sum(axis=0)
        return of_atoms, of_centres

    def functions(self, atom: int) -> tuple[gto.Mole, Array]:
        """Return the Gaussians of one centre as PySCF's functions, and their coefficients."""
        s, p = np.flatnonzero(self.s[atom]), np.flatnonzero(self.p[atom].any(axis=1))
        mole, units = unit_functions(self.centres[atom], s, p)
        return mole, np.concatenate([self.s[atom, s], self.p[atom, p].ravel()]) / units


def owners_of(mole: gto.Mole) -> npt.NDArray[np.intp]:
    """Return which atom each function of a molecule is of, ``[nao]``, PySCF order."""
    slices = mole.aoslice_by_atom()[:, 2:]
    return np.repeat(np.arange(mole.natm), slices[:, 1] - slices[:, 0])


def unit_functions(
    position: Array, s: npt.NDArray[np.intp], p: npt.NDArray[np.intp]
) -> tuple[gto.Mole, Array]:
    """Return Gaussians of some levels, and those times x, y, z, as PySCF's normalised functions.

    Returns:
        PySCF's ``Mole``, and what each of its functions is a multiple of the Gaussian by.
    """
    exponent = exponents(int(max([*s, *p], default=0)) + 1)
    mole = centre(position, [(0, exponent[k]) for k in s] + [(1, exponent[k]) for k in p])
    units_s = gto.gto_norm(0, exponent[s]) * (4 * np.pi) ** -0.5
    units_p = gto.gto_norm(1, exponent[p]) * (0.75 / np.pi) ** 0.5
    return mole, np.concatenate([units_s, np.repeat(units_p, 3)])


def centre(position: Array, shells: list[tuple[int, float]]) -> gto.Mole:
    """Return PySCF's ``Mole`` of primitive functions of some degrees and exponents at a place."""
    mole = gto.Mole()
    mole.verbose, mole.unit, mole.spin = 0, "Bohr", None
    mole.atom, mole.basis = [("X-H", tuple(position))], {"X-H": [[l, [alpha, 1.0]] for l, alpha in shells]}
    mole.build(dump_input=False, parse_arg=False)
    return mole


def three_centre(
    name: str, mole: gto.Mole, functions: gto.Mole, shells: tuple[int, int] | None = None
) -> Array:
    """Return integrals of two functions of a molecule and one of others, ``[components, n_rows, nao, n]``.

    Args:
        name: of PySCF's integral.
        mole: of the two.
        functions: the others.
        shells: range of those whose functions come first; all by default.
    """
    joined = gto.conc_mol(mole, functions)
    places = (*(shells or (0, mole.nbas)), 0, mole.nbas, mole.nbas, joined.nbas)
    found = np.asarray(joined.intor(f"{name}_{'cart' if mole.cart else 'sph'}", shls_slice=places))
    return found.reshape(-1, *found.shape[-3:])


@cache
def library_of_atoms() -> ctypes.CDLL | None:
    """Return the kernels of ``atoms.c``, ready for use; ``None`` without a compiler."""
    kernels = library("atoms")
    if kernels is not None:
        kernels.tables()
    return kernels


def pointer(array: Any) -> ctypes.c_void_p:
    """Return the address of a dense array, and hold it."""
    if not array.flags.c_contiguous or array.dtype not in (np.float64, LONG, np.intc):
        raise ValueError(f"the kernels work on dense arrays, not on {array.dtype} of strides {array.strides}")
    address = ctypes.c_void_p(array.ctypes.data)
    # The bare address would not keep an array alive that nothing else holds.
    address.array = array  # type: ignore[attr-defined]
    return address


def _shells(mole: gto.Mole) -> npt.NDArray[Any]:
    """Return the shells of a molecule as the kernel reads them, places of numbers being those in ``_env``."""
    places = mole._atm[mole._bas[:, gto.ATOM_OF], gto.PTR_COORD]
    columns = [gto.ANG_OF, gto.NPRIM_OF, gto.NCTR_OF, gto.PTR_EXP, gto.PTR_COEFF]
    rows = np.column_stack([places, mole._bas[:, columns], mole.ao_loc_nr()[:-1]])
    return np.ascontiguousarray(rows, dtype=LONG)


@cache
def _to_spherical() -> tuple[Array, npt.NDArray[Any]]:
    """Return PySCF's transformations from Cartesian to spherical functions, and where each begins."""
    # PySCF's integrals know the constants of s and p functions, of higher ones the transformation does.
    constants = {0: (0.25 / np.pi) ** 0.5, 1: (0.75 / np.pi) ** 0.5}
    found = [
        np.asarray(gto.cart2sph(l, normalized="sp")).ravel() * constants.get(l, 1.0)
        for l in range(LARGEST_L + 1)
    ]
    sizes = [0, *(len(one) for one in found[:-1])]
    return np.concatenate(found), np.cumsum(sizes).astype(LONG)
