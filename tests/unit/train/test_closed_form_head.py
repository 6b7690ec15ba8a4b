"""The energy head that starts from a least-squares fit, and stores of energies without Fock matrices."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from energy_store import energy_samples, energy_settings, make_energy_store
from helmol.config import parse
from helmol.errors import ConfigError, InputError, StoreError
from helmol.model import find_model, fit_readout, load_model
from helmol.model.readout import atom_features, left_out, pool, standardise
from helmol.store import Store
from helmol.system import Matrices
from helmol.target import target_matrix
from helmol.train import TrainConfig, run
from helmol.train.data import choose_split, prepare_data
from helmol.train.plan import make_plan
from helmol.train.start import starting_model
from toy_store import make_store

EMPTY = Matrices(fock=np.empty((0, 0)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A store of energies and forces alone."""
    samples = [replace(sample, matrices=EMPTY) for sample in energy_samples()]
    return make_store(tmp_path_factory.mktemp("frames") / "frames.h5", samples)


def start(data, **changes):
    plan = make_plan(parse(TrainConfig, energy_settings(data, **changes)))
    with Store.open(data) as store:
        prepared = prepare_data(store, plan, choose_split(store, plan.config.data))
        return starting_model(plan, prepared)[0], prepared


def test_the_fit_is_the_ridge_solution_and_the_head_says_the_same(data):
    network, prepared = start(data, readout="elements")
    atoms, z, molecule = atom_features(network, prepared.items)
    features, numbers = pool(network.energy_head, atoms, z, molecule)
    assert np.abs(features.sum(axis=0)).max() < 1e-4 * len(atoms)  # standardised: float32 zero
    weights = network.energy_head.elements.weight.double()[numbers].detach().numpy()
    fitted = (
        np.einsum("mef,ef->m", features, weights) / features.shape[2] * float(network.energy_target.scale)
    )
    rest = [label.energy - network.energy_target.energy_of(label.molecule) for label in prepared.energies]
    assert np.abs(fitted - rest).mean() < 0.5 * np.abs(rest).mean()
    result = run(
        parse(TrainConfig, energy_settings(data, readout="elements", max_steps=1, lr=1e-9, muon_lr=1e-9)),
        out=data.parent / "one-step",
    )
    assert result["start"]["energy_mae_meV"] == pytest.approx(result["last"]["energy_mae_meV"], rel=1e-3)
    zero = run(parse(TrainConfig, energy_settings(data, max_steps=1)), out=data.parent / "from-zero")
    assert result["start"]["energy_mae_meV"] < 0.7 * zero["start"]["energy_mae_meV"]


def test_a_start_that_training_spoils_stays_the_best(data, tmp_path):
    keys = energy_settings(data, readout="elements", max_steps=4, lr=10.0, muon_lr=1.0, warmup_steps=1)
    result = run(parse(TrainConfig, keys), out=tmp_path / "run")
    assert result["last"]["energy_mae_meV"] > result["start"]["energy_mae_meV"]
    assert result["best"] == result["start"]
    assert result["best"]["step"] == 0
    network, _ = start(data, readout="elements")
    best = load_model(tmp_path / "run" / "checkpoints" / "best")
    assert torch.equal(best.energy_head.elements.weight, network.energy_head.elements.weight)
    assert torch.equal(best.energy_head.mean, network.energy_head.mean)


def test_a_feature_that_does_not_vary_is_not_blown_up(data):
    network, _ = start(data, readout="elements")
    head, numbers = network.energy_head, np.array([1, 1, 8, 8])
    features = np.ones((4, head.mean.shape[1]))
    features[0, 0], features[1, 0] = 3.0, 5.0
    standardise(head, features, numbers)
    assert head.mean[1, 0] == 4.0
    assert head.inverse_std[1, 0] == pytest.approx(1.0)
    assert head.inverse_std[8, 1] == pytest.approx(1e3, rel=1e-3)


def test_errors_left_out_are_those_of_fits_without_them(rng):
    x, y = rng.normal(size=(9, 4)), rng.normal(size=9)
    groups, strength = [[0, 3], [1], [2, 4, 5, 8], [6, 7]], 0.3
    errors = []
    for group in groups:
        rest = [k for k in range(9) if k not in group]
        weights = x[rest].T @ np.linalg.solve(x[rest] @ x[rest].T + strength * np.eye(len(rest)), y[rest])
        errors.append(y[group] - x[group] @ weights)
    expected = np.square(np.concatenate(errors)).mean() ** 0.5
    assert left_out(x @ x.T, y, groups, strength) == pytest.approx(expected, rel=1e-10)
    one_by_one = [[k] for k in range(9)]
    assert left_out(x @ x.T, y, one_by_one, strength) != pytest.approx(expected, rel=1e-3)


def test_a_head_of_init_is_not_fitted_again(data, tmp_path):
    keys = energy_settings(data, readout="elements")
    run(parse(TrainConfig, keys), out=tmp_path / "first")
    first = load_model(find_model(tmp_path / "first"))
    again, _ = start(data, readout="elements", init=str(tmp_path / "first"))
    assert torch.equal(again.energy_head.elements.weight, first.energy_head.elements.weight)


def test_only_that_head_can_be_fitted(data):
    network, prepared = start(data, readout="linear")
    with pytest.raises(ConfigError, match="elements"):
        fit_readout(network, prepared.items, [label.energy for label in prepared.energies])


def test_samples_without_fock_matrices_come_back_so(data):
    with Store.open(data) as store:
        sample = store[0]
    assert sample.matrices.fock.shape == (0, 0)
    assert sample.energy == energy_samples()[0].energy
    with pytest.raises(InputError, match="no Fock matrix"):
        target_matrix(sample, "fock")


def test_nothing_to_learn_is_refused(tmp_path):
    sample = replace(energy_samples()[0], matrices=EMPTY, energy=None)
    with pytest.raises(StoreError, match="neither"):
        make_energy_store(tmp_path / "none.h5", [sample])


def test_fock_matrices_cannot_be_learnt_from_them(data, tmp_path):
    with pytest.raises(InputError, match="no Fock matrix"):
        run(parse(TrainConfig, energy_settings(data, task="both")), out=tmp_path / "run")
