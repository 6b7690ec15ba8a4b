"""Every AO order helmol knows, each as a gather with signs to the house order.

``new[k] = sign[k] · old[index[k]]``. Only the order of m inside a shell is here; a program that
also sorts its shells differently is handled by its reader.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from helmol.arrays import Array, Float64, Int64, IntArray
from helmol.errors import InputError

MOrder = Literal["house", "pyscf", "orca", "psi4", "aims"]

_LARGEST_L: dict[MOrder, int] = {"house": 12, "pyscf": 12, "orca": 4, "psi4": 6, "aims": 2}


def m_order(source: MOrder, l: int) -> tuple[Int64[IntArray, " m"], Float64[Array, " m"]]:
    """Return index and sign that bring one shell from ``source`` order to m = −l … l.

    * ``pyscf``: p stands as (x, y, z), all else as m = −l … l (PySCF's ``mol.ao_labels``).
    * ``orca``, ``psi4``: m = 0, +1, −1, +2, −2, …; ORCA has − on |m| = 3, 4 of f and g.
    * ``aims``: m = −l … l with − on odd m > 0.

    Raises:
        InputError: no verified table for this source and l.
    """
    if l > _LARGEST_L[source]:
        raise InputError(f"no verified {source} order for l = {l} (largest is {_LARGEST_L[source]})")
    m = np.arange(-l, l + 1)
    index, sign = np.arange(2 * l + 1), np.ones(2 * l + 1)
    if source == "pyscf" and l == 1:
        index = np.array([1, 2, 0])
    elif source in ("orca", "psi4"):
        index = np.where(m > 0, 2 * m - 1, -2 * m)
        if source == "orca":
            sign = np.where(np.abs(m) >= 3, -1.0, 1.0)
    elif source == "aims":
        sign = np.where((m > 0) & (m % 2 == 1), -1.0, 1.0)
    return index.astype(np.int64), sign


def house_order(
    shells: Sequence[int], source: MOrder
) -> tuple[Int64[IntArray, " nao"], Float64[Array, " nao"]]:
    """Return index and sign for all AOs of a molecule.

    Args:
        shells: angular momentum of every shell, in the order they stand.
        source: the order inside a shell.

    Returns:
        ``index`` and ``sign``, both ``[nao]``.
    """
    return _house_order(tuple(shells), source)


@lru_cache(maxsize=64)
def _house_order(shells: tuple[int, ...], source: MOrder) -> tuple[IntArray, Array]:
    """Return :func:`house_order`, once for several matrices of a molecule."""
    indices, signs, start = [np.zeros(0, np.int64)], [np.zeros(0)], 0
    for l in shells:
        index, sign = m_order(source, l)
        indices.append(start + index)
        signs.append(sign)
        start += 2 * l + 1
    found = np.concatenate(indices), np.concatenate(signs)
    for array in found:
        array.flags.writeable = False
    return found


def to_house(
    matrix: Float64[Array, "*stack nao nao"], shells: Sequence[int], source: MOrder
) -> Float64[Array, "*stack nao nao"]:
    """Bring an AO matrix ``[..., nao, nao]`` from ``source`` to house order; exact in every bit."""
    index, sign = house_order(shells, source)
    _check_size(matrix, len(index))
    return _gathered(matrix, index, sign)


def from_house(
    matrix: Float64[Array, "*stack nao nao"], shells: Sequence[int], target: MOrder
) -> Float64[Array, "*stack nao nao"]:
    """Bring an AO matrix ``[..., nao, nao]`` from house to ``target`` order; exact in every bit."""
    index, sign = house_order(shells, target)
    _check_size(matrix, len(index))
    inverse = np.argsort(index)
    return _gathered(matrix, inverse, sign[inverse])


def coefficients_from_house(
    coefficients: Float64[Array, "*stack nao n"], shells: Sequence[int], target: MOrder
) -> Float64[Array, "*stack nao n"]:
    """Bring orbitals, columns of ``[..., nao, n]``, from house to ``target`` order; exact in every bit."""
    index, sign = house_order(shells, target)
    if coefficients.shape[-2] != len(index):
        raise InputError(f"orbitals of shape {coefficients.shape} do not fit {len(index)} atomic orbitals")
    return np.ascontiguousarray((coefficients * sign[:, None])[..., np.argsort(index), :])


def _gathered(matrix: Array, index: IntArray, sign: Array) -> Array:
    """Return ``sign_i sign_j M[index_i, index_j]``."""
    # Rows, then columns: half the time of both at once.
    found: Array = matrix.take(index, axis=-2).take(index, axis=-1)
    return found * (sign[:, None] * sign) if (sign < 0).any() else found


def _check_size(matrix: Array, nao: int) -> None:
    """Raise if a matrix does not fit the shells."""
    if matrix.shape[-2:] != (nao, nao):
        raise InputError(f"matrix of shape {matrix.shape} does not fit {nao} atomic orbitals")
