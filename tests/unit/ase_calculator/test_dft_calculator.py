"""The ASE calculator that spends Fock builds until the energy is as good as asked."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from helmol.ase import HelmolDFT
from helmol.errors import ConvergenceError, DomainError, InputError
from helmol.model import ModelConfig, build
from helmol.predict import TrainedModel
from helmol.target import Domain
from helmol.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU, EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE
from scf_truth import WATER, Truth, answer
from toy_store import BASIS, LEVEL, TINY


@pytest.fixture(scope="module")
def water() -> Truth:
    truth = Truth(WATER)
    truth.model.model.heads = {"fock": None}
    return truth


def atoms() -> Atoms:
    return Atoms(WATER.numbers, WATER.positions_ang)


def test_energy_and_forces_are_those_of_the_level(water: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, water, water.noisy(0.02))
    truth = EV_PER_HARTREE * water.mf.e_tot
    forces = -EV_PER_ANGSTROM_PER_AU * water.mf.nuc_grad_method().kernel()
    builds = []
    for wanted in (0.1, 1e-5):
        molecule = atoms()
        molecule.calc = HelmolDFT(water.model, energy_error=wanted)
        assert molecule.get_potential_energy() == pytest.approx(truth, abs=wanted)
        assert molecule.calc.results["energy_error"] <= wanted
        assert "forces" not in molecule.calc.results
        builds.append(molecule.calc.builds)
    assert builds[0] < builds[1] < 5
    assert molecule.get_forces() == pytest.approx(forces, abs=2e-3)
    assert molecule.calc.builds == builds[1]  # forces are of the same density
    dipole = DEBYE_PER_AU / ANGSTROM_PER_BOHR * molecule.get_dipole_moment()
    assert dipole == pytest.approx(water.mf.dip_moment(verbose=0), abs=1e-3)
    assert molecule.get_charges().sum() == pytest.approx(0, abs=1e-9)


def test_what_does_not_get_there_is_said(water: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, water, -water.fock)
    molecule = atoms()
    molecule.calc = HelmolDFT(water.model, most_builds=2)
    with pytest.raises(ConvergenceError, match=r"still uncertain by .* after 2 Fock builds"):
        molecule.get_potential_energy()
    molecule.info["charge"] = 2
    with pytest.raises(DomainError, match="has not learnt charge 2"):
        molecule.get_potential_energy()


def test_wrong_arguments(water: Truth) -> None:
    with pytest.raises(InputError, match="expected positive numbers"):
        HelmolDFT(water.model, energy_error=0.0)
    energies = {**TINY, "heads": {"energy": {}}}
    model = TrainedModel(build(ModelConfig(**energies), Domain(LEVEL, BASIS, "fock", (0,), (0,))))
    with pytest.raises(InputError, match="predicts no Fock matrices"):
        HelmolDFT(model)
    assert np.isfinite(HelmolDFT(water.model).energy_error)
