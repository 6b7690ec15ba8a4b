"""Shells that another program writes in another sequence than PySCF, told by their exponents."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from helmol.dft.level import LevelConfig
from helmol.dft.mole import build_mole
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.system import Molecule


def appended_shells(numbers: Iterable[int], *, basis: str, base: str) -> dict[int, tuple[int, ...]]:
    """Return the places in PySCF's order of shells that are written as ``base`` plus the rest.

    Some programs make an augmented basis by appending shells to a smaller one: first the shells of
    ``base`` sorted by l, then those that only ``basis`` has. Shells are told by their exponents. A
    shell of ``base`` that ``basis`` lacks is taken for replaced by the first other one of its l.

    Returns:
        By atomic number, for each shell as it is written its place in PySCF's order; for carbon in
        def2-TZVPD ``s s s s s p p p d d f s d``.
    """
    return {number: _appended(number, basis, base) for number in sorted(set(numbers))}


def _appended(number: int, basis: str, base: str) -> tuple[int, ...]:
    whole, small = _exponents(number, basis), _exponents(number, base)
    rest = list(range(len(whole)))
    places: list[int | None] = []
    for shell in small:
        place = next((k for k in rest if whole[k] == shell), None)
        places.append(place)
        if place is not None:
            rest.remove(place)
    found: list[int] = []
    for shell, place in zip(small, places, strict=True):
        if place is None:
            place = next((k for k in rest if whole[k][0] == shell[0]), None)
            if place is None:
                raise InputError(f"{basis} of {SYMBOLS[number]} is no extension of {base}")
            rest.remove(place)
        found.append(place)
    return tuple(found + rest)


def _exponents(number: int, basis: str) -> list[tuple[int, tuple[float, ...], int]]:
    """Return l, exponents and the number of the contraction of every shell of an element."""
    level = LevelConfig(basis=basis)
    # One electron pair more or less does not matter for the functions.
    mole = build_mole(Molecule(np.array([number]), np.zeros((1, 3)), spin=number % 2), level)
    return [
        (int(mole.bas_angular(k)), tuple(np.round(mole.bas_exp(k), 6).tolist()), c)
        for k in range(mole.nbas)
        for c in range(int(mole.bas_nctr(k)))
    ]
