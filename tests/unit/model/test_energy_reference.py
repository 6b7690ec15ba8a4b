"""Energies of the elements by least squares, and where they are not determined."""

import logging

import numpy as np
import pytest
import torch
from energy_tools import energy_and_forces, make_energy_network
from physics_tools import make_network, random_molecule

from helmol.errors import ConfigError, DomainError, InputError
from helmol.graph import collate
from helmol.model import load_model, predict_energies, predict_fock, save_model
from helmol.system import Molecule
from helmol.target import EnergyTarget

TRUE = {1: -0.6, 6: -38.0, 8: -75.1}


def fit_energies(known, energies):
    target = EnergyTarget()
    target.fit(known, energies)
    return target


def molecules(rng, compositions):
    return [random_molecule(rng, numbers) for numbers in compositions]


def total(molecule):
    return sum(TRUE[z] for z in molecule.numbers.tolist())


def test_the_energies_of_the_elements_are_found(rng):
    known = molecules(rng, [(8, 1, 1), (6, 1, 1, 1, 1), (6, 8), (6, 6, 1, 1), (8, 8)])
    rest = 1e-3 * rng.normal(size=5)
    reference = fit_energies(known, [total(m) + r for m, r in zip(known, rest, strict=True)])
    for z, energy in TRUE.items():
        assert reference.per_element[z].item() == pytest.approx(energy, abs=5e-3)
    assert 0 < reference.scale < 1e-3
    reference.check(random_molecule(rng, (6, 8, 8, 1)))
    with pytest.raises(DomainError, match="not determined"):
        reference.check(random_molecule(rng, (16, 1, 1)))


def test_conformers_of_one_molecule_do_not_determine_the_elements(rng, caplog):
    known = molecules(rng, [(8, 1, 1)] * 4)
    with caplog.at_level(logging.WARNING, logger="helmol.target"):
        reference = fit_energies(known, [total(m) for m in known])
    assert "determine only 1 combination" in caplog.text
    reference.check(known[0])
    dimer = random_molecule(rng, (8, 8, 1, 1, 1, 1))
    reference.check(dimer)
    predicted = reference.per_element[torch.tensor(dimer.numbers.tolist())].sum().item()
    assert predicted == pytest.approx(total(dimer), abs=1e-10)
    with pytest.raises(DomainError, match="HO"):
        reference.check(random_molecule(rng, (8, 1)))


def test_bad_labels_are_refused(rng):
    known = molecules(rng, [(8, 1, 1)] * 2)
    with pytest.raises(InputError, match="training molecule 1"):
        fit_energies(known, [0.0, float("nan")])
    with pytest.raises(InputError, match="1 energies for 2"):
        fit_energies(known, [0.0])


def test_a_saved_model_gives_the_same_energies_and_forces(rng, tmp_path):
    network, molecule = make_energy_network(torch.float32), random_molecule(rng)
    save_model(tmp_path / "model", network)
    again = load_model(tmp_path / "model")
    before, after = (predict_energies(n, [molecule, molecule])[1] for n in (network, again))
    assert before.energy == after.energy
    assert (before.forces == after.forces).all()
    assert again.energy_target.force_scale == network.energy_target.force_scale


def test_batches_change_nothing(rng):
    network = make_energy_network()
    chosen = [random_molecule(rng), random_molecule(rng, (6, 1, 1, 8)), random_molecule(rng)]
    for molecule, found in zip(chosen, predict_energies(network, chosen, max_edges=35), strict=True):
        energy, forces = energy_and_forces(network, molecule)
        assert found.energy == pytest.approx(energy, abs=1e-12)
        np.testing.assert_allclose(found.forces, forces, atol=1e-12)


def test_what_a_model_cannot_say_is_refused(rng):
    molecule = random_molecule(rng)
    only_energy = make_energy_network(hamiltonian=False)
    assert not any("edge_blocks" in name for name, _ in only_energy.named_parameters())
    with pytest.raises(ConfigError, match="no Hamiltonian head"):
        predict_fock(only_energy, [molecule], [{}])
    only_fock = make_network(torch.float64)
    with pytest.raises(ConfigError, match="no energy head"):
        only_fock(collate([only_fock.prepare(molecule)]), ("energy",))
    direct = make_energy_network(forces="direct")
    direct.energy_target.force_scale.zero_()
    with pytest.raises(DomainError, match="were not trained"):
        predict_energies(direct, [molecule])
    with pytest.raises(DomainError, match="has not learnt"):
        predict_energies(only_energy, [Molecule([7, 7], [[0, 0, 0], [0, 0, 2.1]])])
