"""The minimal basis of free atoms that intrinsic atomic orbitals are made with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pyscf import gto

from helmol.arrays import Array, IntArray
from helmol.dft.mole import find_basis
from helmol.elements import SYMBOLS
from helmol.errors import InputError

NAME = "minao"
"""PySCF's set: the occupied functions of free atoms, from cc-pVTZ to Kr and cc-pVTZ-PP beyond."""

CORES = ((36, 0), (54, 28), (86, 60))
"""Core electrons that this set leaves out, up to an atomic number."""


class MinimalBasis(NamedTuple):
    """Hold overlaps with the minimal basis of free atoms, PySCF order.

    Attributes:
        overlap: of the minimal functions, ``[nmin, nmin]``.
        cross: of the molecule's functions with them, ``[nao, nmin]``.
        offsets: first minimal function of each atom and, last, nmin, ``[n_atoms + 1]``.
    """

    overlap: Array
    cross: Array
    offsets: IntArray


def minimal_basis(mole: gto.Mole) -> MinimalBasis:
    """Return the overlaps that :func:`helmol.properties.iao_charges` needs.

    Raises:
        InputError: PySCF has no such functions of an element, or they are not those of the electrons outside
            its effective core potential.
    """
    small = mole.copy(deep=False)
    basis = {}
    for k in range(mole.natm):
        number = int(mole.atom_charge(k) + mole.atom_nelec_core(k))
        symbol, core = SYMBOLS[number], int(mole.atom_nelec_core(k))
        functions = find_basis(NAME, symbol)
        wanted = next((electrons for last, electrons in CORES if number <= last), None)
        if not functions or core != wanted:
            raise InputError(
                f"no intrinsic atomic orbitals of {symbol}: PySCF's minimal basis has "
                + (f"no core of {core} electrons for it" if functions else "no functions for it")
            )
        basis[symbol] = functions
    small.basis = basis
    small.build(dump_input=False, parse_arg=False)
    return MinimalBasis(
        np.asarray(small.intor_symmetric("int1e_ovlp")),
        np.asarray(gto.mole.intor_cross("int1e_ovlp", mole, small)),
        np.append(small.aoslice_by_atom()[:, 2], int(small.nao)).astype(np.int64),
    )
