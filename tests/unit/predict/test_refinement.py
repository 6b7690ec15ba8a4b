"""A prediction is refined: energy, forces and dipole come near those of the SCF."""

from __future__ import annotations

import numpy as np
import pytest

from helmol import dft
from helmol.errors import InputError
from helmol.units import DEBYE_PER_AU
from scf_truth import LEVEL, WATER, Truth, answer


@pytest.fixture(scope="module")
def water() -> Truth:
    return Truth(WATER)


def test_energy_forces_and_dipole_of_a_refined_prediction(
    water: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, water, water.noisy(0.02))
    prediction = water.model.predict(water.mole)
    forces = -water.mf.nuc_grad_method().kernel()
    dipole = np.asarray(water.mf.dip_moment(verbose=0))
    errors = []
    for steps in (0, 3):
        found = prediction.refine(steps=steps)
        errors.append(
            (
                abs(found.energy - water.mf.e_tot),
                np.abs(found.forces - forces).max(),
                np.abs(found.prediction.dipole - dipole).max(),
            )
        )
        trace = np.trace(found.prediction.density @ prediction.overlap)
        assert trace == pytest.approx(10, abs=1e-9)
    for before, after in zip(*errors, strict=True):
        assert after < before / 10
    assert errors[0][2] > 0.01 * DEBYE_PER_AU / 2.54
    assert (found.builds, found.responses) == (1, 4)
    assert 0 <= found.remaining < found.gained
    assert "energy" in repr(found)
    twice = prediction.refine(steps=3, rounds=2)
    assert twice.energy == pytest.approx(water.mf.e_tot, abs=1e-7)
    assert prediction.energy == pytest.approx(water.mf.e_tot, abs=4e-5)
    assert prediction.energy_error < 4e-5
    assert prediction.forces == pytest.approx(forces, abs=2e-4)


def test_a_prediction_that_knows_no_level_is_refused(water: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    answer(monkeypatch, water, water.fock)
    prediction = water.model.predict(water.mole)
    with pytest.raises(InputError, match="does not say in which basis"):
        replace(prediction, level=None).refine()
    assert dft.level_from(prediction.level).xc == LEVEL.xc
