"""Empirical dispersion: the derivative of its energy, in every label alike, and never in the Fock matrix."""

import numpy as np
import pytest

from helmol import dft
from helmol.dft import LevelConfig
from helmol.errors import InputError
from helmol.system import Molecule

LEVEL = LevelConfig(xc="HYB_GGA_XC_WB97X_D", basis="sto-3g", grid_level=0)
WITHOUT = LEVEL.model_copy(update={"dispersion": None})
WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0.1, -0.76, 0.59]])


def test_the_gradient_is_the_derivative_of_the_energy(rng: np.random.Generator) -> None:
    molecule = Molecule.from_angstrom([35, 6, 53, 1, 17], 6 * rng.random((5, 3)), spin=0)
    _, gradient = dft.dispersion(molecule, LEVEL)
    step, numeric = 1e-4, np.zeros((5, 3))
    for place in np.ndindex(5, 3):
        for sign in (1, -1):
            moved = molecule.positions.copy()
            moved[place] += sign * step
            energy, _ = dft.dispersion(Molecule(molecule.numbers, moved), LEVEL)
            numeric[place] += sign * energy / (2 * step)
    assert np.abs(gradient).max() > 1e-4
    np.testing.assert_allclose(gradient, numeric, atol=1e-10)


@pytest.mark.parametrize("xc", ["HYB_GGA_XC_WB97X_D", "hyb_gga_xc_wb97x_d", "pbe"])
def test_far_atoms_attract_by_c6_over_r6_and_other_functionals_do_nothing(xc: str) -> None:
    argon = Molecule(np.array([18, 18]), np.array([[0, 0, 0], [0, 0, 50.0]]))
    energy, gradient = dft.dispersion(argon, LevelConfig(xc=xc))
    # 4.61 J nm^6/mol in atomic units.
    assert energy == pytest.approx(0 if xc == "pbe" else -79.96172684 / 50**6, rel=1e-6)
    assert gradient[1, 2] == pytest.approx(-6 * energy / 50, rel=1e-6)


def test_energy_and_forces_have_it_the_fock_matrix_has_not() -> None:
    with_, without = (
        dft.run(WATER, level, id="w", forces=True, references=())[0] for level in (LEVEL, WITHOUT)
    )
    energy, gradient = dft.dispersion(WATER, LEVEL)
    assert energy < -1e-5
    assert with_.energy == without.energy + energy
    np.testing.assert_array_equal(with_.forces, without.forces - gradient)
    np.testing.assert_array_equal(with_.matrices.fock, without.matrices.fock)


@pytest.mark.parametrize("level", [LEVEL, WITHOUT])
def test_what_follows_from_a_fock_matrix_has_what_its_level_says(level: LevelConfig) -> None:
    sample, _ = dft.run(WATER, level, id="w", forces=True, references=())
    again = dft.level_from(dft.level_of_theory(level, method="rks"))
    mole = dft.build_mole(WATER, again)
    assert dft.energy_of_fock(mole, again, sample.matrices.fock).energy == pytest.approx(
        sample.energy, abs=1e-9
    )
    built = dft.energy_of_fock(mole, again, sample.matrices.fock)
    np.testing.assert_allclose(dft.forces_from(mole, again, built.density), sample.forces, atol=1e-5)


def test_elements_without_parameters_are_refused_before_work() -> None:
    with pytest.raises(InputError, match=r"H to Xe, not for Cs: set level\.dispersion to null"):
        dft.basis_set(LEVEL.model_copy(update={"basis": "def2-svp"}), [1, 55])
    assert dft.basis_set(WITHOUT.model_copy(update={"basis": "def2-svp"}), [1, 55]).elements
    assert dft.basis_set(LevelConfig(), [1, 55]).elements


def test_a_name_with_d3_can_do_without_and_says_so() -> None:
    named = LevelConfig(xc="b3lyp-d3bj", basis="sto-3g", grid_level=0)
    assert dft.level_of_theory(named, method="rks").dispersion == "d3bj"
    without = named.model_copy(update={"dispersion": None})
    assert dft.level_of_theory(without, method="rks").dispersion is None
    plain = named.model_copy(update={"xc": "b3lyp"})
    energies = [dft.run(WATER, level, id="w", references=())[0].energy for level in (without, plain)]
    assert energies[0] == energies[1]
