"""The energy of a guessed Fock matrix: exact at the true one, second order off it, third after correction."""

import numpy as np
import pytest

from helmol import dft
from helmol.errors import InputError
from helmol.system import Molecule

WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.74, -0.5]])
OH = Molecule.from_angstrom([8, 1], [[0, 0, 0], [0, 0, 0.98]], spin=1)


def labelled(molecule, **changes):
    level = dft.LevelConfig(xc="pbe", basis="sto-3g", grid_level=1, **changes)
    sample, _ = dft.run(molecule, level, id="x")
    return sample, dft.build_mole(molecule, level), level


@pytest.fixture(scope="module", params=["rks", "uks"])
def case(request):
    return labelled(WATER if request.param == "rks" else OH)


def noise(fock, size, seed=3):
    random = np.random.default_rng(seed).normal(size=fock.shape)
    return fock + size * (random + np.swapaxes(random, -1, -2))


def test_the_true_matrix_gives_the_label(case):
    sample, mole, level = case
    found = dft.energy_of_fock(mole, level, sample.matrices.fock)
    assert found.energy == pytest.approx(sample.energy, abs=1e-9)
    assert found.corrected == pytest.approx(sample.energy, abs=1e-9)
    assert found.residual < 1e-4
    np.testing.assert_allclose(found.fock, sample.matrices.fock, atol=1e-4)


def test_the_error_is_second_order_and_the_correction_removes_most_of_it(case):
    sample, mole, level = case
    errors = {}
    for size in (0.01, 0.02):
        found = dft.energy_of_fock(mole, level, noise(sample.matrices.fock, size))
        errors[size] = (found.energy - sample.energy, found.corrected - sample.energy)
        assert found.correction < 0
    assert errors[0.01][0] > 1e-6
    assert 3 < errors[0.02][0] / errors[0.01][0] < 5
    assert abs(errors[0.01][1]) < 0.5 * errors[0.01][0]


def test_forces_of_the_scf_that_a_matrix_leads_to(case):
    sample, mole, level = case
    molecule = dft.molecule_from_mole(mole)
    labelled_too, _ = dft.run(molecule, level, id="x", forces=True)
    start = dft.energy_of_fock(mole, level, noise(sample.matrices.fock, 0.01)).density
    np.testing.assert_allclose(dft.forces_from(mole, level, start), labelled_too.forces, atol=1e-4)


def test_a_shift_of_all_levels_changes_nothing(case):
    sample, mole, level = case
    shifted = sample.matrices.fock + 0.3 * sample.matrices.overlap
    assert dft.energy_of_fock(mole, level, shifted).energy == pytest.approx(sample.energy, abs=1e-9)


def test_another_order_of_the_orbitals_is_noticed(case):
    sample, mole, level = case
    n = sample.matrices.fock.shape[-1]
    order = np.roll(np.arange(n), 1)
    mixed = sample.matrices.fock[..., order[:, None], order]
    assert dft.energy_of_fock(mole, level, mixed).energy > sample.energy + 0.1


def test_bad_matrices_are_refused(case):
    sample, mole, level = case
    with pytest.raises(InputError, match="where the level of theory has"):
        dft.energy_of_fock(mole, level, np.eye(3))
    other = np.stack([sample.matrices.fock] * 2) if sample.matrices.n_spins == 1 else sample.matrices.fock[0]
    with pytest.raises(InputError, match="where the level of theory has"):
        dft.energy_of_fock(mole, level, other)
    with pytest.raises(InputError, match="not finite"):
        dft.energy_of_fock(mole, level, np.full_like(sample.matrices.fock, np.nan))
