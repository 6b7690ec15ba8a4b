"""Rebuild what a foreign Fock matrix claims to be: the check of imported labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from helmol.basis import from_house
from helmol.dft.dispersion import dispersion
from helmol.dft.field import mean_field
from helmol.dft.integrals import house, house_shells, symmetric
from helmol.dft.level import LevelConfig
from helmol.dft.mole import build_mole
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.system import Molecule

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rebuilt:
    """Hold what follows from a Fock matrix at a level of theory.

    Attributes:
        fock: ``F[D]``, house order, Eh; equal to the given one if that is self-consistent.
        energy: total energy of D, Eh; its error is of second order in that of D.
        forces: −dE/dR of the converged SCF, Eh/bohr, where asked for.
    """

    fock: Array
    energy: float
    forces: Array | None = None


def rebuild(molecule: Molecule, level: LevelConfig, fock: Array, *, forces: bool = False) -> Rebuilt:
    """Diagonalise a closed-shell Fock matrix, fill its lowest orbitals, and build F of that density.

    Args:
        molecule: nuclei, charge; closed shell.
        level: functional, basis, grid.
        fock: house order, ``[nao, nao]``, Eh.
        forces: whether to converge the SCF from there and differentiate its energy.

    Raises:
        InputError: an open shell, or a matrix that does not fit the basis.
    """
    mole = build_mole(molecule, level)
    shells = house_shells(mole)
    if molecule.spin or fock.ndim != 2:
        raise InputError("only closed shells with one Fock matrix can be rebuilt")
    mf = mean_field(mole, level)
    overlap = mole.intor_symmetric("int1e_ovlp")
    _, coefficients = eigh(from_house(fock, shells, "pyscf"), overlap)
    occupied = coefficients[:, : int(mole.nelectron) // 2]
    density = 2 * occupied @ occupied.T
    potential = mf.get_veff(mole, density)
    hcore = mf.get_hcore()
    rebuilt = house(symmetric(mf.get_fock(hcore, overlap, potential, density)), mole)
    empirical, slope = dispersion(molecule, level)
    energy = float(mf.energy_tot(density, hcore, potential)) + empirical
    return Rebuilt(rebuilt, energy, _forces(mf, density) - slope if forces else None)


def _forces(mf: Any, density: Array) -> Array:
    mf.kernel(dm0=density)
    gradient = mf.nuc_grad_method()
    gradient.verbose = 0
    return np.asarray(-gradient.kernel(), dtype=np.float64)


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
