"""Evaluate and predict as a user types them, with models of energies."""

import csv
import json

import numpy as np
import pytest
from ase.io import read
from typer.testing import CliRunner

from energy_store import energy_settings, make_energy_store
from helmol.cli.main import app
from helmol.config import parse
from helmol.model import load_model, predict_energies
from helmol.store import Store
from helmol.train import TrainConfig, run
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE
from toy_store import settings


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("energy_verbs")
    data = make_energy_store(folder / "toy.h5")
    for seed in (0, 1):
        changes = {"seed": seed, "max_steps": 4, "force_weight": 1.0}
        run(parse(TrainConfig, energy_settings(data, **changes)), out=folder / f"run-{seed}")
    run(parse(TrainConfig, settings(data, max_steps=4)), out=folder / "fock")
    return folder


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_evaluate(place, tmp_path):
    answer = call(
        "evaluate", place / "run-0", place / "toy.h5", "--out", tmp_path, "--json", tmp_path / "e.json"
    )
    assert answer.exit_code == 0, answer.output
    assert "force components / meV/Å" in answer.output
    assert "dipole" not in answer.output
    result = json.loads((tmp_path / "e.json").read_text())
    assert {"energy_mae_meV", "energy_mae_meV_per_atom", "force_mae_meV_per_angstrom"} <= result.keys()
    assert result["split"] == "unseen"
    assert result["n_molecules"] == 2


def test_predict(place, tmp_path):
    answer = call(
        "predict", place / "run-0", place / "toy.h5", "--also", place / "run-1", "--out", tmp_path,
        "--json", tmp_path / "p.json",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    rows = list(csv.DictReader((tmp_path / "energies.csv").read_text().splitlines()))
    frames = read(tmp_path / "energies.extxyz", index=":")
    assert len(rows) == len(frames) == json.loads((tmp_path / "p.json").read_text())["n_molecules"] == 30
    with Store.open(place / "toy.h5") as store:
        molecule = store.molecule(29)
    networks = [load_model(place / f"run-{seed}/checkpoints/best") for seed in (0, 1)]
    members = [predict_energies(network, [molecule])[0] for network in networks]
    energies = [member.energy for member in members]
    assert float(rows[29]["energy_Eh"]) == pytest.approx(np.mean(energies), abs=1e-9)
    spread = 1000 * EV_PER_HARTREE * np.std(energies, ddof=1)
    assert float(rows[29]["energy_std_meV"]) == pytest.approx(spread, rel=1e-4)
    assert frames[29].get_potential_energy() == pytest.approx(EV_PER_HARTREE * np.mean(energies), abs=1e-6)
    forces = EV_PER_ANGSTROM_PER_AU * np.mean([member.forces for member in members], axis=0)
    assert np.allclose(frames[29].get_forces(), forces, atol=1e-5)
    assert np.allclose(frames[29].positions, molecule.positions_ang, atol=1e-8)


def test_what_does_not_fit_is_one_line(place, tmp_path):
    answer = call("predict", place / "fock", place / "toy.h5", "--also", place / "run-0", "--out", tmp_path)
    assert answer.exit_code == 1
    assert "predicts Fock matrices only" in answer.output
    answer = call("predict", place / "run-0", place / "toy.h5", "--residual", "--out", tmp_path)
    assert answer.exit_code == 1
    assert "predicts energies only" in answer.output
    answer = call("guess", place / "run-0", place / "toy.h5")
    assert answer.exit_code == 1
    (tmp_path / "he.xyz").write_text("1\n\nHe 0 0 0\n")
    answer = call("predict", place / "run-0", tmp_path / "he.xyz", "--out", tmp_path)
    assert answer.exit_code == 1
    assert "He" in answer.output
