"""The ASE calculator: units, derivatives, optimiser, dynamics, vibrations, ensembles, refusals."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import PropertyNotImplementedError
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from ase.vibrations import Vibrations

import helmol
from energy_store import energy_samples, energy_settings, make_energy_store
from helmol.ase import HelmolCalculator
from helmol.config import parse
from helmol.errors import DomainError, InputError
from helmol.model import load_model, save_model
from helmol.predict import TrainedModel, ensemble_energies
from helmol.train import TrainConfig, run
from helmol.units import ANGSTROM_PER_BOHR, EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE
from toy_store import TINY

CHANGES = {
    "max_steps": 60, "validate_every": 60, "force_weight": 1.0, "lr": 0.01, "ema_decay": 0.9,
    "edges_per_batch": 60,
    "model": {**TINY, "channels": 8, "n_radial": 16, "radial_channels": 16, "cutoff": 10.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs that differ in their seed, one with both heads."""
    folder = tmp_path_factory.mktemp("calculator")
    data = make_energy_store(folder / "toy.h5")
    for name, changes in {
        "a": {},
        "b": {"seed": 1, "max_steps": 4},
        "both": {"task": "both", "max_steps": 4},
    }.items():
        run(parse(TrainConfig, energy_settings(data, **(CHANGES | changes))), out=folder / name)
    return folder


@pytest.fixture
def calculator(folder):
    return HelmolCalculator(folder / "a", dtype="float64")


def water(k=0):
    molecule = energy_samples(4)[k].molecule
    return Atoms(numbers=molecule.numbers, positions=molecule.positions * ANGSTROM_PER_BOHR)


def test_units_and_keys(folder, calculator):
    atoms = water()
    atoms.calc = calculator
    known = TrainedModel(load_model(folder / "a/checkpoints/best").double()).energies(atoms)
    assert atoms.get_potential_energy() == pytest.approx(EV_PER_HARTREE * known.energy, abs=1e-9)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert np.allclose(atoms.get_forces(), EV_PER_ANGSTROM_PER_AU * known.forces, atol=1e-9)
    assert calculator.implemented_properties == ["energy", "free_energy", "forces"]
    assert helmol.ase.HelmolCalculator is HelmolCalculator


def test_forces_are_the_derivative_in_ev_per_angstrom(calculator):
    atoms = water()
    atoms.calc = calculator
    forces = atoms.get_forces()
    assert np.abs(forces).max() > 0.1
    for atom, axis in ((0, 0), (1, 2), (2, 1)):
        values = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.calc = calculator
            moved.positions[atom, axis] += step
            values.append(moved.get_potential_energy())
        slope = (values[0] - values[1]) / 2e-4
        assert -slope == pytest.approx(forces[atom, axis], abs=1e-5)
        # What forces in the wrong unit would give is told apart.
        assert -slope != pytest.approx(forces[atom, axis] * ANGSTROM_PER_BOHR, abs=1e-3) or abs(slope) < 1e-2


def test_optimiser_and_vibrations(calculator, tmp_path):
    atoms = water()
    atoms.calc = calculator
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.005, steps=150)
    assert np.abs(atoms.get_forces()).max() < 0.01
    assert atoms.get_potential_energy() < before
    vibrations = Vibrations(atoms, name=str(tmp_path / "vibrations"))
    vibrations.run()
    energies = vibrations.get_energies()
    # Translations and rotations are soft; a minimum has no other imaginary mode.
    assert len(energies) == 9
    assert np.sort(energies.real)[-1] > 0.02
    assert np.abs(energies.imag).max() < 0.5 * energies.real.max()


class WrongForces(HelmolCalculator):
    """Forces that are not the energy's derivative: a planted fault."""

    def calculate(self, *arguments):
        super().calculate(*arguments)
        self.results["forces"] = 1.3 * self.results["forces"]


def fluctuation(calculator):
    """Return the standard deviation of total and kinetic energy over a short NVE run, eV."""
    atoms = water()
    atoms.calc = calculator
    rng = np.random.default_rng(0)
    masses = atoms.get_masses()[:, None]
    atoms.set_velocities(rng.normal(size=(3, 3)) * np.sqrt(units.kB * 300 / masses))
    total, kinetic = [], []
    dynamics = VelocityVerlet(atoms, 0.25 * units.fs)
    dynamics.attach(lambda: total.append(atoms.get_total_energy()))
    dynamics.attach(lambda: kinetic.append(atoms.get_kinetic_energy()))
    dynamics.run(100)
    return np.std(total), np.std(kinetic)


def test_energy_is_conserved_in_dynamics(folder, calculator):
    total, kinetic = fluctuation(calculator)
    assert kinetic > 1e-3
    assert total < 0.05 * kinetic
    total, kinetic = fluctuation(WrongForces(folder / "a", dtype="float64"))
    assert total > 0.05 * kinetic


def test_many_at_once(calculator):
    frames = [water(k) for k in range(3)]
    found = calculator.calculate_many(frames)
    for atoms, results in zip(frames, found, strict=True):
        atoms.calc = calculator
        assert results["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        assert np.allclose(results["forces"], atoms.get_forces(), atol=1e-8)
    assert "forces" not in calculator.calculate_many(frames, forces=False)[0]
    with pytest.raises(InputError, match="takes a list"):
        calculator.calculate_many(frames[0])


def test_an_ensemble_has_mean_and_spread(folder):
    atoms = water()
    members = [HelmolCalculator(folder / name) for name in ("a", "b")]
    results = []
    for member in members:
        atoms.calc = member
        results.append((atoms.get_potential_energy(), atoms.get_forces()))
    ensemble = HelmolCalculator([folder / "a", folder / "b"])
    atoms.calc = ensemble
    energies = [energy for energy, _ in results]
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies), abs=1e-6)
    assert np.allclose(atoms.get_forces(), np.mean([f for _, f in results], axis=0), atol=1e-5)
    assert ensemble.results["energy_std"] == pytest.approx(np.std(energies, ddof=1), rel=1e-3)
    assert ensemble.get_property("forces_std", atoms).shape == (3, 3)
    assert "energy_std" not in members[0].implemented_properties


def test_members_of_an_ensemble_belong_together(folder, tmp_path):
    network = load_model(folder / "a/checkpoints/best")
    network.domain = replace(
        network.domain, level=replace(network.domain.level, xc="blyp", xc_resolved="1*106 + 1*131")
    )
    save_model(tmp_path / "blyp", network)
    with pytest.raises(InputError, match="different levels of theory"):
        HelmolCalculator([folder / "a", tmp_path / "blyp"])
    with pytest.raises(InputError, match="at least one model"):
        ensemble_energies([], [])
    with pytest.raises(InputError, match="dtype"):
        HelmolCalculator(folder / "a", dtype="float16")


@pytest.mark.parametrize("name", ["dipole", "charges", "stress", "energy_std"])
def test_what_the_model_does_not_know_raises(calculator, name):
    atoms = water()
    atoms.calc = calculator
    with pytest.raises(PropertyNotImplementedError):
        atoms.calc.get_property(name, atoms)


def test_a_model_of_fock_matrices_has_no_energies(folder, tmp_path):
    network = load_model(folder / "both/checkpoints/best")
    assert "dipole" in HelmolCalculator(folder / "both").implemented_properties
    del network.heads["energy"]
    calculator = HelmolCalculator(TrainedModel(network))
    atoms = water()
    atoms.calc = calculator
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError):
        calculator.calculate_many([atoms])


def test_periodic_structures_are_refused(calculator):
    """A slab or a chain has no volume as ASE counts it, and is periodic all the same."""
    before = water()
    before.cell = [20.0, 20.0, 20.0]
    assert np.isfinite(calculator.get_potential_energy(before))
    for cell, pbc in (([9, 9, 9], True), ([9, 9, 0], (True, True, False)), ([0, 0, 9], (False, False, True))):
        atoms = water()
        atoms.set_cell(cell)
        atoms.pbc = pbc
        with pytest.raises(InputError, match="periodic"):
            calculator.get_potential_energy(atoms)


def test_a_new_head_has_no_forces(folder, tmp_path):
    """Its zeros would look like a converged structure."""
    network = load_model(folder / "a/checkpoints/best")
    network.energy_head.readout[-1].weight.data.zero_()
    calculator, atoms = HelmolCalculator(TrainedModel(network)), water()
    atoms.calc = calculator
    assert calculator.implemented_properties == ["energy", "free_energy"]
    assert np.isfinite(atoms.get_potential_energy())
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_forces()
    with pytest.raises(DomainError, match="were not trained"):
        TrainedModel(network).energies(atoms)


def test_an_ensemble_of_models_with_and_without_energies_is_refused(folder):
    network = load_model(folder / "both/checkpoints/best")
    del network.heads["energy"]
    for models in ([folder / "a", TrainedModel(network)], [TrainedModel(network), folder / "a"]):
        with pytest.raises(InputError, match="of 2 predicts no energies"):
            HelmolCalculator(models)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"electric_field": [0, 0, 0.01]}, "an external field"),
        ({"solvent": "water"}, "a solvent"),
        ({"mol_charge": 2}, "mol_charge = 2 is a name that helmol does not know"),
        ({"total_charge": 2, "charge": 0}, "contradict"),
    ],
)
def test_what_atoms_state_is_never_dropped(calculator, info, message):
    atoms = water()
    atoms.calc = calculator
    atoms.info.update(info)
    with pytest.raises(InputError, match=message):
        atoms.get_potential_energy()
    ghost = Atoms("X", positions=[[0, 0, 5]])
    with pytest.raises(InputError, match=r"atom 4 .X. is a dummy or ghost atom"):
        calculator.calculate(water() + ghost)


@pytest.mark.parametrize("state", ["total_charge", "initial_charges"])
def test_charge_under_any_name_is_outside_the_domain(calculator, state):
    atoms = water()
    atoms.calc = calculator
    atoms.get_potential_energy()
    if state == "total_charge":
        atoms.info[state] = 2
    else:
        atoms.set_initial_charges([2.0, 0.0, 0.0])
    with pytest.raises(DomainError, match="charge 2"):
        atoms.get_potential_energy()


def test_charge_and_spin_are_part_of_the_system(calculator):
    atoms = water()
    atoms.calc = calculator
    atoms.get_potential_energy()
    assert calculator.check_state(atoms) == []
    atoms.info["charge"] = 2
    assert calculator.check_state(atoms) != []
    with pytest.raises(DomainError, match="charge"):
        atoms.get_potential_energy()
    atoms.info.clear()
    atoms.info["spin"] = 3
    with pytest.raises(DomainError, match="spin"):
        atoms.get_potential_energy()
