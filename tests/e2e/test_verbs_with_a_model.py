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
from helmol.target import Domain

LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp", grid_level=1)
FRAMES = 4
BAD_FRAMES = [
    "1\n", "charge=0\n", "He 0 0 0\n",
    "2\n", "a dummy atom\n", "H 0 0 0\n", "X 0 0 0.9\n",
    "1\n", "multiplicity=2\n", "H 0 0 0\n",
    "2\n", "no element\n", "Qq 0 0 0\n", "H 0 0 1\n",
    "2\n", "no number\n", "H 0 0 zero\n", "H 0 0 1\n",
]  # fmt: skip
BAD = [
    (2, "the model has not learnt He"), (3, "atom 2 (X) is a dummy or ghost atom"),
    (4, "the model has not learnt spin 2S = 1"), (5, "unknown element 'Qq'"), (6, "'H 0 0 zero'"),
]  # fmt: skip
"""Frames 2 to 6 of a file, and what is wrong with them."""


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
    (folder / "many").mkdir()
    frames = (folder / "water.xyz").read_text().splitlines(keepends=True)
    (folder / "many" / "a.xyz").write_text("".join(frames[:5] + BAD_FRAMES + frames[5:10]))
    (folder / "many" / "b.extxyz").write_text("".join(frames[10:]))
    (folder / "many" / "c.xyz").write_text("no structure at all\n")
    (folder / "many" / "notes.txt").write_text("other things lie here, too\n")
    config = model.MODEL_PRESETS["nano"].model_copy(update={"channels": 4, "n_layers": 1})
    domain = target.Domain(level, basis, "fock-minus-minao-lite", (0,), (0,))
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
    assert not set(keys) - set(result["baselines"]["minao-lite"])
    assert result["n_molecules"] == 2
    assert result["target"] == "fock-minus-minao-lite"
    assert result["dipole_mae_debye"] > 0
    # Of the order of the minao matrix, about 18 mEh: the network starts at zero.
    assert 5_000 < result["baselines"]["minao-lite"]["h_mae_uEh"] < 50_000
    assert json.loads((out / "evaluation.json").read_text())["h_mae_uEh"] == result["h_mae_uEh"]
    for name in ("parity.png", "levels.png", "shell_pairs.png", "elements.png", "distances.png"):
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
    assert "'atom': the model has not learnt He" in answer.output
    assert not (tmp_path / "p").exists()
    missing = _call("predict", place / "nothing", place / "water.xyz", "--out", tmp_path / "p")
    assert missing.exit_code == 1
    assert "no model in" in missing.output


@pytest.mark.parametrize("how", ["a folder", "a pattern", "files"])
def test_one_bad_molecule_does_not_end_the_predictions(place: Path, tmp_path: Path, how: str) -> None:
    many, out, record = place / "many", tmp_path / "p", tmp_path / "p.json"
    names = {
        "a folder": [many], "a pattern": [f"{many}/*xyz"],
        "files": [many / "a.xyz", many / "b.extxyz", many / "c.xyz", many / "a.xyz"],
    }[how]  # fmt: skip
    arguments = ("predict", place / "run", *names, "--out", out, "--json", record)
    answer = _call(*arguments)
    assert answer.exit_code == 3, answer.output
    assert "4 predicted, 0 already there, 6 skipped" in answer.output
    result = json.loads(record.read_text())
    _is_what_was_skipped(result, many)
    assert [row["id"] for row in result["molecules"]] == ["a-00000", "a-00006", "w2", "w3"]
    # The same bits as without the others; nothing is predicted twice.
    _call("predict", place / "run", place / "water.xyz", "--out", tmp_path / "alone")
    for name, same in (("a-00000", "w0"), ("w3", "w3")):
        with np.load(out / f"{name}.npz") as one, np.load(tmp_path / "alone" / f"{same}.npz") as other:
            assert np.array_equal(one["fock"], other["fock"])
    again = _call(*arguments)
    assert again.exit_code == 3
    assert "0 predicted, 4 already there, 6 skipped" in again.output
    strict = _call("predict", place / "run", *names, "--strict", "--out", tmp_path / "strict")
    assert strict.exit_code == 1
    assert not (tmp_path / "strict").exists()


def _is_what_was_skipped(result: dict, many: Path) -> None:
    """Compare the records of the folder of structures."""
    skipped = {(entry["file"], entry["row"]): entry for entry in result["skipped"]}
    assert result["n_skipped"] == len(skipped) == 6
    for row, reason in BAD:
        entry = skipped[str(many / "a.xyz"), row]
        assert reason in entry["reason"]
        assert entry["item"] == f"a-{row - 1:05d}"
    assert skipped[str(many / "c.xyz"), None]["item"] == "c.xyz"


def test_a_model_of_unrestricted_labels_takes_closed_and_open_shells(place: Path, tmp_path: Path) -> None:
    level = dft.level_of_theory(LEVEL, method="uks")
    domain = Domain(level, helmol.load(place / "run").domain.basis, "fock", (0,), (0, 1))
    config = model.MODEL_PRESETS["nano"].model_copy(update={"channels": 4, "n_layers": 1})
    model.save_model(tmp_path / "uks", model.build(config, domain, seed=0))
    record = tmp_path / "p.json"
    answer = _call("predict", tmp_path / "uks", place / "many", "--out", tmp_path / "p", "--json", record)
    assert answer.exit_code == 3, answer.output
    result = json.loads(record.read_text())
    assert len(result["molecules"]) == 5
    assert 4 not in {entry["row"] for entry in result["skipped"]}
    with np.load(tmp_path / "p" / "a-00003.npz") as radical:
        assert radical["mo_occ"].sum(axis=1).tolist() == [1, 0]


def damaged(place: Path, path: Path) -> Path:
    """Copy the store of waters with one bit of the last Fock matrix changed."""
    with Store.open(place / "water.h5") as store:
        fock = store.values("fock", 3).tobytes()
    data = bytearray((place / "water.h5").read_bytes())
    data[data.index(fock) + 100] ^= 4
    path.write_bytes(data)
    return path


TINY = ["--set", "level.xc=hf", "--set", "level.basis=sto-3g", "--workers", 1]
WITH_ONE_BAD = {
    "generate": ["generate", "bad.extxyz", *TINY],
    "generate, an SCF that fails": ["generate", "stretched.xyz", *TINY, "--set", "level.max_cycle=3"],
    "import": ["import", "extxyz", "bad.extxyz", "--level", "hf/sto-3g", "--checks", 0],
    "predict": ["predict", "MODEL", "damaged.h5"],
    "evaluate": ["evaluate", "MODEL", "damaged.h5", "--split", "all"],
    "embed": ["embed", "MODEL", "bad.extxyz"],
    "references": ["references", "damaged.h5", "--add", "minao"],
    "convert": ["convert", "damaged.h5", "--to", "npz"],
    "convert back": ["convert", "container", "--to", "store"],
}
"""What to call, in a folder where one item of each file cannot be used."""


@pytest.fixture
def with_one_bad(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with the files that the table names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MODEL").symlink_to(place / "run")
    damaged(place, tmp_path / "damaged.h5")
    frames = (place / "water.xyz").read_text().splitlines(keepends=True)
    good = [frames[k].replace("pbc=", "energy=-2000.0 pbc=") if k % 5 == 1 else frames[k] for k in range(10)]
    (tmp_path / "bad.extxyz").write_text("".join([*good, "1\n", "energy=-1 id=w9\n", "X 0 0 0\n"]))
    (tmp_path / "stretched.xyz").write_text("1\n\nHe 0 0 0\n2\n\nLi 0 0 0\nF 0 0 3\n")


@pytest.mark.parametrize("case", WITH_ONE_BAD)
def test_every_verb_skips_one_bad_item_and_says_so(with_one_bad: None, case: str) -> None:
    words = WITH_ONE_BAD[case]
    if case == "convert back":
        assert _call("convert", "damaged.h5", "--to", "npz", "--out", "container").exit_code == 3
        file = Path("container/w1.npz")
        file.write_bytes(file.read_bytes()[:-100])
    answer = _call(*words, "--out", "out", "--json", "out.json")
    assert answer.exit_code == 3, answer.output
    result = json.loads(Path("out.json").read_text())
    assert result["n_skipped"] == 1
    (entry,) = result["skipped"]
    assert entry.keys() == {"item", "file", "row", "reason"}
    text = " ".join(answer.output.split())
    assert "1 skipped" in text
    assert entry["item"] in text
    strict = _call(*words, "--out", "strict", "--strict")
    assert strict.exit_code == 1, strict.output
    assert entry["item"] in strict.output


def test_one_damaged_sample_does_not_end_evaluate_and_predict(place: Path, tmp_path: Path) -> None:
    path = damaged(place, tmp_path / "damaged.h5")
    with Store.open(place / "water.h5") as store:
        reference = store[2].matrices.fock
    wanted = {"item": "w3", "file": str(path), "row": 3}
    for verb in ("evaluate", "predict"):
        record = tmp_path / f"{verb}.json"
        arguments = (verb, place / "run", path, "--out", tmp_path / verb, "--json", record)
        answer = _call(*arguments)
        assert answer.exit_code == 3, answer.output
        assert "fock does not match its checksum" in " ".join(answer.output.split())
        result = json.loads(record.read_text())
        (entry,) = result["skipped"]
        assert {name: entry[name] for name in wanted} == wanted
        assert result["n_molecules"] == (1 if verb == "evaluate" else 3)
        strict = _call(*arguments, "--strict")
        assert strict.exit_code == 1
        assert "row 3, 'w3': fock does not match" in strict.output
    with np.load(tmp_path / "predict" / "w2.npz") as data:
        predicted = data["fock"]
    result = json.loads((tmp_path / "evaluate.json").read_text())
    assert result["h_mae_uEh"] == pytest.approx(1e6 * np.abs(_house(predicted) - reference).mean(), rel=1e-4)


def _house(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix of water in def2-SVP in the order of the store."""
    from helmol.basis import to_house

    return to_house(matrix, [0, 0, 0, 1, 1, 2, 0, 0, 1, 0, 0, 1], "pyscf")


def test_several_stores_make_one_table(place: Path, tmp_path: Path) -> None:
    for name, ids in (("a", ["w0", "w1"]), ("b", ["w2", "w3"])):
        with (
            Store.open(place / "water.h5") as store,
            Store.create(tmp_path / "stores" / f"{name}.h5", level=store.level, basis=store.basis) as part,
        ):
            part.append([store[store.row(id)] for id in ids])
    results = []
    for names in ([place / "water.h5"], [tmp_path / "stores"], [f"{tmp_path}/stores/*.h5"]):
        record = tmp_path / "e.json"
        answer = _call(
            "evaluate", place / "run", *names, "--split", "all", "--out", tmp_path / "e", "--json", record
        )
        assert answer.exit_code == 0, answer.output
        results.append(json.loads(record.read_text()))
    for result in results[1:]:
        assert result["n_molecules"] == 4
        assert result["h_mae_uEh"] == pytest.approx(results[0]["h_mae_uEh"], rel=1e-12)
        assert (
            result["baselines"]["minao-lite"]["gap_mae_uEh"]
            == results[0]["baselines"]["minao-lite"]["gap_mae_uEh"]
        )


def test_one_bad_molecule_does_not_end_the_embedding(place: Path, tmp_path: Path) -> None:
    record = tmp_path / "e.json"
    arguments = ("embed", place / "run", place / "many", "--out", tmp_path / "e", "--json", record)
    answer = _call(*arguments)
    assert answer.exit_code == 3, answer.output
    result = json.loads(record.read_text())
    _is_what_was_skipped(result, place / "many")
    assert (result["n_molecules"], result["n_atoms"]) == (4, 12)
    assert _call(*arguments, "--strict").exit_code == 1


def test_what_is_named_must_be_there(place: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("nothing.xyz", "nothing.xyz does not exist"), (f"{tmp_path}/*.xyz", "no file matches"),
        (tmp_path / "empty", "holds no structure files"),
    ):  # fmt: skip
        for verb in ("predict", "embed"):
            answer = _call(verb, place / "run", place / "water.xyz", name, "--out", tmp_path / "p")
            assert answer.exit_code == 1
            assert words in answer.output
    answer = _call("predict", place / "run", place / "water.xyz", "--split", "test", "--out", tmp_path / "p")
    assert answer.exit_code == 1
    assert "water.xyz is a structure file" in answer.output
    answer = _call("evaluate", place / "run", place / "water.xyz", "--out", tmp_path / "p")
    assert answer.exit_code == 1
    assert not (tmp_path / "p").exists()


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
