"""One-electron integrals in house order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pyscf import gto

from helmol.arrays import Array
from helmol.basis import to_house


def house_shells(mole: gto.Mole) -> list[int]:
    """Return the angular momentum of every shell; contractions are shells of their own."""
    return [int(mole.bas_angular(k)) for k in range(mole.nbas) for _ in range(int(mole.bas_nctr(k)))]


def house(matrix: Any, mole: gto.Mole) -> Array:
    """Bring an AO matrix ``[..., nao, nao]`` of PySCF to house order."""
    return to_house(np.asarray(matrix, dtype=np.float64), house_shells(mole), "pyscf")


def overlap(mole: gto.Mole) -> Array:
    """Return the overlap ``[nao, nao]``, house order, exactly symmetric."""
    return house(symmetric(mole.intor_symmetric("int1e_ovlp")), mole)


def dipole_integrals(mole: gto.Mole) -> Array:
    """Return ``⟨µ| r |ν⟩`` about the origin, ``[3, nao, nao]`` (x, y, z), bohr, house order."""
    with mole.with_common_origin((0.0, 0.0, 0.0)):
        return house(mole.intor_symmetric("int1e_r", comp=3), mole)


def quadrupole_integrals(mole: gto.Mole, origin: Sequence[float] = (0.0, 0.0, 0.0)) -> Array:
    """Return ``⟨µ| r_x r_y |ν⟩`` about a point (bohr), ``[3, 3, nao, nao]``, bohr², PySCF order."""
    with mole.with_common_origin(tuple(origin)):
        found = np.asarray(mole.intor_symmetric("int1e_rr", comp=9))
    return found.reshape(3, 3, *found.shape[1:])


def symmetric(matrix: Any) -> Array:
    """Return ``(M + Mᵀ)/2`` of the last two axes, equal to its transpose in every bit."""
    values: Array = np.asarray(matrix, dtype=np.float64)
    return np.asarray((values + np.swapaxes(values, -1, -2)) / 2)
