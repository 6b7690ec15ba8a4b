"""Evaluate, predict and guess as a user types them, on labelled water and an untrained network."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import helmol
from helmol import dft, model, structures, target
from helmol.cli.main import app
from helmol.graph import prepare
from helmol.store import Store
from helmol.structures import Structure
from helmol.system import Molecule

LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp", grid_level=1)
FRAMES = 4


def _waters() -> list[Molecule]:
    random = np.random.default_rng(5)
    start = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
    return [
        Molecule.from_angstrom([8, 1, 1], start + random.normal(size=(3, 3)) * 0.05) for _ in range(FRAMES)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store, a structure file and a model folder."""
    folder = tmp_path_factory.mktemp("verbs")
    labelled = [dft.run(molecule, LEVEL, id=f"w{k}") for k, molecule in enumerate(_waters())]
    samples, basis = [sample for sample, _ in labelled], labelled[0][1]
    level = dft.level_of_theory(LEVEL, method="rks")
    with Store.create(folder / "water.h5", level=level, basis=basis) as store:
        store.append(samples)
        store.set_splits({"train": ["w0", "w1"], "test": ["w2", "w3"]})
    structures.write(folder / "water.xyz", [Structure(s.id, s.molecule, {}) for s in samples])
    structures.write(
        folder / "helium.xyz",
        [Structure("atom", Molecule.from_angstrom([2], [[0, 0, 0]]), {})],
    )
    config = model.MODEL_PRESETS["nano"].model_copy(update={"channels": 4, "n_layers": 1})
    domain = target.Domain(level, basis, "fock-minus-minao", (0,), (0,))
    network = model.build(config, domain, seed=0)
    items = [
        prepare(s.molecule, basis, cutoff=config.cutoff, matrix=target.target_matrix(s, domain.target))
        for s in samples[:2]
    ]
    model.fit_statistics(network, items)
    model.save_model(folder / "run" / "checkpoints" / "best", network)
    return folder


def _call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_evaluate(place: Path, tmp_path: Path) -> None:
    out, result_file = tmp_path / "evaluation", tmp_path / "e.json"
    answer = _call("evaluate", place / "run", place / "water.h5", "--out", out, "--json", result_file)
    assert answer.exit_code == 0, answer.output
    assert "minao" in answer.output
    assert "next: helmol predict" in answer.output
    result = json.loads(result_file.read_text())
    keys = (
        "n_molecules h_mae_uEh h_mae_diagonal_uEh h_mae_offdiagonal_uEh eps_occ_mae_uEh homo_mae_uEh "
        "lumo_mae_uEh gap_mae_uEh density_error dipole_mae_debye psi_similarity by_element by_element_pair"
    ).split()
    assert not {*keys, "baselines", "target", "parameters"} - set(result)
    assert not set(keys) - set(result["baselines"]["minao"])
    assert result["n_molecules"] == 2
    assert result["target"] == "fock-minus-minao"
    assert result["dipole_mae_debye"] > 0
    # Of the order of the minao matrix, about 18 mEh: the network starts at zero.
    assert 5_000 < result["baselines"]["minao"]["h_mae_uEh"] < 50_000
    assert json.loads((out / "evaluation.json").read_text())["h_mae_uEh"] == result["h_mae_uEh"]
    for name in ("parity.png", "levels.png", "shell_pairs.png"):
        assert (out / name).stat().st_size > 10_000


def test_evaluate_refuses_an_unknown_split(place: Path, tmp_path: Path) -> None:
    answer = _call(
        "evaluate", place / "run", place / "water.h5", "--split", "validate", "--out", tmp_path / "x"
    )
    assert answer.exit_code == 1
    assert "no split 'validate'" in answer.output
    assert not (tmp_path / "x").exists()


def test_without_a_test_split_the_unseen_molecules_are_evaluated(place: Path, tmp_path: Path) -> None:
    run, store = tmp_path / "run", tmp_path / "water.h5"
    shutil.copytree(place / "run", run)
    shutil.copy(place / "water.h5", store)
    with Store.open(store, "a") as opened:
        opened.set_splits({})
    (run / "split.json").write_text(json.dumps({"data": "w3", "train": ["w0", "w1"], "val": ["w2"]}))
    answer = _call("evaluate", run, store, "--out", tmp_path / "e", "--json", tmp_path / "e.json")
    assert answer.exit_code == 0, answer.output
    result = json.loads((tmp_path / "e.json").read_text())
    assert (result["n_molecules"], result["split"]) == (1, "unseen")
    (run / "split.json").write_text(json.dumps({"train": ["w0", "w1", "w3"], "val": ["w2"]}))
    answer = _call("evaluate", run, store, "--out", tmp_path / "e")
    assert answer.exit_code == 1
    assert "trained or chosen on all 4 molecules" in answer.output


@pytest.mark.parametrize("source", ["water.xyz", "water.h5"])
def test_predict(place: Path, tmp_path: Path, source: str) -> None:
    out = tmp_path / "predictions"
    arguments = ("predict", place / "run", place / source, "--out", out, "--residual", "--molden")
    answer = _call(*arguments)
    assert answer.exit_code == 0, answer.output
    with (out / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"w{k}" for k in range(FRAMES)]
    trained = helmol.load(place / "run", device="cpu")
    for row, molecule in zip(rows, _waters(), strict=True):
        mole = dft.build_mole(molecule, LEVEL)
        expected = trained.predict(mole)
        with np.load(out / row["file"]) as data:
            assert np.abs(data["overlap"] - mole.intor("int1e_ovlp")).max() < 1e-8
            assert np.abs(data["fock"] - expected.fock).max() < 1e-6
            assert data["dipole"] == pytest.approx(expected.dipole, abs=1e-5)
            assert data["residual"] == pytest.approx(float(row["residual_Eh"]))
        assert float(row["gap_eV"]) > 0
        assert (out / row["file"]).with_suffix(".molden").is_file()
    assert f"0 predicted, {FRAMES} already there" in _call(*arguments).output
    assert f"{FRAMES} predicted, 0 already there" in _call(*arguments, "--overwrite").output


def test_predict_refuses_what_was_not_learnt(place: Path, tmp_path: Path) -> None:
    answer = _call("predict", place / "run", place / "helium.xyz", "--out", tmp_path / "p")
    assert answer.exit_code == 1
    assert "atom (He): the model has not learnt He" in answer.output
    assert not (tmp_path / "p").exists()
    missing = _call("predict", place / "nothing", place / "water.xyz", "--out", tmp_path / "p")
    assert missing.exit_code == 1
    assert "no model in" in missing.output


def test_without_pyscf_and_ase_a_store_suffices(place: Path, tmp_path: Path) -> None:
    script = """
import sys
sys.modules.update(pyscf=None, ase=None, tblite=None)
from helmol.cli.main import app
app(sys.argv[1:])
"""
    results = {}
    for verb in ("evaluate", "predict"):
        result_file = tmp_path / f"{verb}.json"
        arguments = [verb, place / "run", place / "water.h5", "--out", tmp_path / verb, "--json", result_file]
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
            check=False, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        results[verb] = json.loads(result_file.read_text())
    assert results["evaluate"]["gap_mae_uEh"] > 0
    assert results["evaluate"]["dipole_mae_debye"] is None
    assert "PySCF is not installed" in results["evaluate"]["missing"]["dipole_mae_debye"]
    assert results["predict"]["molecules"][0]["dipole_debye"] is None
    with np.load(tmp_path / "predict" / "w0.npz") as data:
        assert "fock" in data
        assert "dipole" not in data


def test_import_helmol_is_light() -> None:
    script = "import sys, helmol; print(sorted({'torch', 'pyscf', 'numpy'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_guess(place: Path, tmp_path: Path) -> None:
    result_file = tmp_path / "g.json"
    answer = _call(
        "guess", place / "run", place / "water.xyz", "--index", 2, "--out", tmp_path, "--json", result_file,
        "--starts", "minao,model,vsap",
    )  # fmt: skip
    assert answer.exit_code == 0, answer.output
    result = json.loads(result_file.read_text())
    assert result["same_state"] is True
    for start in ("minao", "model", "vsap"):
        run = result[start]
        assert run["converged"] is True
        assert run["fock_builds"] > run["cycles"] > 1
        assert run["seconds"] > 0
        assert run["energy_Eh"] == pytest.approx(result["minao"]["energy_Eh"], abs=1e-8)
    assert (tmp_path / "scf_convergence.png").stat().st_size > 10_000
    wrong = _call("guess", place / "run", place / "water.xyz", "--index", 9, "--out", tmp_path)
    assert wrong.exit_code == 1
    assert "has 4 structures" in wrong.output


def test_guess_outside_the_domain_is_refused(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "guess"
    answer = _call("guess", place / "run", place / "helium.xyz", "--out", out)
    assert answer.exit_code == 1
    assert "has not learnt He" in answer.output
    assert not out.exists()
