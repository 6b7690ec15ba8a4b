"""Molecules refuse what cannot be meant, in one clear line."""

import numpy as np
import pytest

from helmol.elements import SYMBOLS, atomic_number
from helmol.errors import InputError
from helmol.system import Matrices, Molecule
from helmol.units import ANGSTROM_PER_BOHR

WATER = ([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])


def test_angstrom_becomes_bohr_once():
    molecule = Molecule.from_angstrom(*WATER)
    np.testing.assert_allclose(molecule.positions * ANGSTROM_PER_BOHR, WATER[1], atol=1e-15)
    np.testing.assert_allclose(molecule.positions_ang, WATER[1], atol=1e-15)
    assert molecule.formula == "H2O"
    assert molecule.n_edges == 6
    with pytest.raises(ValueError, match="read-only"):
        molecule.positions[0, 0] = 1.0


@pytest.mark.parametrize(
    ("numbers", "positions", "charge", "spin", "message"),
    [
        ([], np.zeros((0, 3)), 0, 0, "at least one atom"),
        ([8], [[0, 0]], 0, 0, "shape"),
        ([0], [[0, 0, 0]], 0, 0, "not an element"),
        ([200], [[0, 0, 0]], 0, 0, "atomic number 200"),
        ([8], [[0, 0, np.nan]], 0, 0, "not a finite number"),
        ([1, 1], [[0, 0, 0], [0, 0, 0.5]], 0, 0, "0.265 Å apart"),
        ([8, 1], [[0, 0, 0], [0, 0, 2]], 0, 0, "9 electrons"),
        ([8, 1, 1], [[0, 0, 0], [0, 0, 2], [0, 2, 0]], 1, 0, "charge 1"),
        ([1], [[0, 0, 0]], 0, 3, "unpaired"),
    ],
)
def test_refusals(numbers, positions, charge, spin, message):
    with pytest.raises(InputError, match=message):
        Molecule(np.array(numbers, dtype=int), np.array(positions, dtype=float), charge, spin)


def test_symbols_there_and_back():
    assert [atomic_number(symbol) for symbol in SYMBOLS[1:]] == list(range(1, 119))
    assert atomic_number("br") == 35
    with pytest.raises(InputError, match="unknown element 'Qq'"):
        atomic_number("Qq")


def test_matrices_must_fit_each_other():
    with pytest.raises(InputError, match="fock has shape"):
        Matrices(np.zeros((2, 3)))
    with pytest.raises(InputError, match="overlap has shape"):
        Matrices(np.zeros((3, 3)), overlap=np.zeros((2, 2)))
    with pytest.raises(InputError, match="minao has shape"):
        Matrices(np.zeros((2, 3, 3)), references={"minao": np.zeros((3, 3))})
