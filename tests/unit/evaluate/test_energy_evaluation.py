"""Error tables of energies: of an energy head, and of the Fock matrices a model predicts."""

from dataclasses import replace

import numpy as np
import pytest

from energy_store import energy_samples, energy_settings, make_energy_store
from helmol import dft
from helmol.config import parse
from helmol.errors import InputError
from helmol.evaluate import FROM_FOCK_METRICS, energies_from_fock
from helmol.evaluate import run as evaluation
from helmol.evaluate.run import evaluate_store
from helmol.model import load_model
from helmol.system import Matrices, Molecule
from helmol.train import TrainConfig, run
from helmol.units import EV_PER_HARTREE


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store and the networks of two runs: energies alone, and both."""
    folder = tmp_path_factory.mktemp("evaluated")
    data = make_energy_store(folder / "toy.h5")
    networks = {}
    for task in ("energy", "both"):
        run(parse(TrainConfig, energy_settings(data, task=task, max_steps=4)), out=folder / task)
        networks[task] = load_model(folder / task / "checkpoints/best")
    return data, networks


def test_a_model_of_energies_alone(trained, tmp_path):
    data, networks = trained
    result = evaluate_store(networks["energy"], data, split="all", out=tmp_path)
    assert result["n_molecules"] == 30
    assert result["energy_mae_meV"] > 0
    assert result["force_mae_meV_per_angstrom"] > 0
    assert result["baselines"]["elements"]["energy_mae_meV"] > 0
    assert "h_mae_uEh" not in result
    assert {p.name for p in tmp_path.iterdir()} == {"evaluation.json", "report.md", "energies.png"}


def test_a_model_of_both(trained, tmp_path):
    data, networks = trained
    result = evaluate_store(networks["both"], data, split="all", out=tmp_path)
    assert {"h_mae_uEh", "energy_mae_meV"} <= result.keys()
    assert result["baselines"].keys() == {"minao", "elements"}
    assert (tmp_path / "parity.png").is_file()


def test_missing_labels(trained, tmp_path):
    _, networks = trained
    samples = [replace(sample, forces=None) for sample in energy_samples(4)]
    data = make_energy_store(tmp_path / "no_forces.h5", samples)
    result = evaluate_store(networks["energy"], data, split="all", out=tmp_path)
    assert result["force_mae_meV_per_angstrom"] is None
    assert "no force labels" in result["missing"]["force_mae_meV_per_angstrom"]
    data = make_energy_store(tmp_path / "none.h5", [replace(sample, energy=None) for sample in samples])
    with pytest.raises(InputError, match=r"no molecule of .* has what is compared: energy"):
        evaluate_store(networks["energy"], data, split="all", out=tmp_path)
    with pytest.raises(InputError, match="Hamiltonian head"):
        evaluate_store(networks["energy"], data, split="all", out=tmp_path, energy_from_h=1)


def test_a_model_of_both_is_compared_with_what_there_is(trained, tmp_path, monkeypatch):
    _, networks = trained
    samples = energy_samples(4)
    no_energy = [replace(sample, energy=None, forces=None) for sample in samples]
    no_fock = [replace(sample, matrices=Matrices(np.empty((0, 0)))) for sample in samples]
    data = make_energy_store(tmp_path / "no_energy.h5", no_energy)
    result = evaluate_store(networks["both"], data, split="all", out=tmp_path)
    assert result["h_mae_uEh"] > 0
    assert "energy_mae_meV" not in result
    assert "no energies" in result["missing"]["energy_mae_meV"]
    data = make_energy_store(tmp_path / "no_fock.h5", no_fock)
    result = evaluate_store(networks["both"], data, split="all", out=tmp_path)
    assert result["energy_mae_meV"] > 0
    assert result["n_molecules"] == len(samples)
    assert "no Fock matrices" in result["missing"]["h_mae_uEh"]
    # A molecule without one of the labels is compared in the other, and named.
    some = make_energy_store(tmp_path / "some.h5", [*samples[:3], *no_energy[3:5], *no_fock[5:]])
    result = evaluate_store(networks["both"], some, split="all", out=tmp_path)
    alone = make_energy_store(tmp_path / "alone.h5", [*samples[:3], samples[5]])
    wanted = evaluate_store(networks["both"], alone, split="all", out=tmp_path)
    assert (result["n_molecules"], wanted["n_molecules"]) == (6, 4)
    assert result["energy_mae_meV"] == pytest.approx(wanted["energy_mae_meV"], rel=1e-6)
    lacking = {(entry["row"], entry["reason"]) for entry in result["skipped"]}
    no_label = "it has no {} to compare with"
    assert lacking == {
        (3, no_label.format("energy")), (4, no_label.format("energy")), (5, no_label.format("Fock matrix")),
    }  # fmt: skip
    with pytest.raises(InputError, match=r"it has no .* to compare with"):
        evaluate_store(networks["both"], some, split="all", out=tmp_path, strict=True)
    # What cannot be compared is refused before anything is computed.
    monkeypatch.setattr(evaluation, "evaluate_model", None)
    with pytest.raises(InputError, match="has an energy to compare with"):
        evaluate_store(
            networks["both"], tmp_path / "no_energy.h5", split="all", out=tmp_path, energy_from_h=2
        )


def test_energies_of_fock_matrices():
    level = dft.LevelConfig(xc="pbe", basis="sto-3g", grid_level=1)
    water = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.74, -0.5]])
    sample, _ = dft.run(water, level, id="w")
    theory = dft.level_of_theory(level, method="rks")
    fock = sample.matrices.fock
    noise = 0.01 * np.random.default_rng(0).normal(size=fock.shape)
    noisy = fock + noise + noise.T
    wrong = replace(sample, energy=sample.energy + 0.001)
    tables = energies_from_fock([sample, wrong], {"true": [fock, fock], "noisy": [noisy, noisy]}, theory)
    assert set(FROM_FOCK_METRICS) <= tables["true"].keys()
    assert tables["true"]["energy_from_h_mae_meV"] == pytest.approx(EV_PER_HARTREE / 2, rel=1e-4)
    assert tables["true"]["energy_from_h_bias_meV"] == pytest.approx(-EV_PER_HARTREE / 2, rel=1e-4)
    alone = energies_from_fock([sample], {"noisy": [noisy]}, theory)["noisy"]
    assert alone["energy_from_h_mae_meV"] > 1
    assert alone["energy_from_h_corrected_mae_meV"] < 0.5 * alone["energy_from_h_mae_meV"]
    with pytest.raises(InputError, match=r"no molecule of .* has what is compared: energy"):
        energies_from_fock([replace(sample, energy=None)], {"true": [fock]}, theory)
    with pytest.raises(InputError, match="1 matrices 'true' for 2 molecules"):
        energies_from_fock([sample, wrong], {"true": [np.array(fock)]}, theory)
