"""Many molecules: one file of arrays, properties, tables, parts; gone on with to the same bits."""

import csv
import importlib.util
import random
from dataclasses import replace

import ase.io
import h5py
import numpy as np
import pytest

from forked import killed_after, tried
from helmol.errors import InputError, StoreError
from helmol.predict import PredictionFile, files
from helmol.predict.files import portions, predict_file
from helmol.predict.kept import read_group, write_group
from helmol.predict.prediction import Prediction, make_prediction
from helmol.predict.tables import ATOM_COLUMNS, BOND_COLUMNS, check_parquet
from helmol.progress import Progress
from helmol.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU
from toy_model import ToyModel, write_text
from toy_store import BASIS, make_store, toy_samples

ALL = {"properties": ["charges", "bonds"], "one_file": True}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "x.h5", toy_samples(10))


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(files, "MOLECULES_AT_A_TIME", 4)


def contents(folder):
    """Return all arrays of the one file, and the other files, by name."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".h5"}
    with PredictionFile(folder) as predictions:
        for name in predictions:
            found[name] = {key: values.tobytes() for key, values in predictions.arrays(name).items()}
    return found


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "MOLECULES_AT_A_TIME", 4)
        predict_file(ToyModel(), store, out=folder, **ALL)
    return contents(folder)


def test_one_file_holds_what_a_folder_of_files_does(store, whole, tmp_path):
    result = predict_file(ToyModel(), store, out=tmp_path, properties=["charges", "bonds"])
    assert result["tables"] == ["summary.csv", "atoms.csv", "bonds.csv"]
    names = sorted(path.stem for path in tmp_path.glob("*.npz"))
    assert names == sorted(name for name in whole if "." not in name)
    for name in names:
        with np.load(tmp_path / f"{name}.npz") as data:
            assert set(data.files) == set(whole[name])
            for key in set(data.files) - {"density"}:
                assert data[key].tobytes() == whole[name][key], key
            assert data["properties"].tolist() == ["charges", "bonds"]
            density = np.frombuffer(whole[name]["density"]).reshape(data["density"].shape)
            assert density == pytest.approx(data["density"], abs=1e-14)
    folder, one = rows(tmp_path / "summary.csv"), whole["summary.csv"].decode().splitlines()
    assert one[1].split(",")[2] == f"predictions.h5/{folder[0]['file'].removesuffix('.npz')}"


def test_killed_at_any_moment_the_same_command_ends_in_the_same_bits(store, whole, tmp_path, many):
    rng = random.Random(1)
    for turn in range(many(2, 200)):
        out, kills = tmp_path / f"{turn}", 0
        while "ok" not in (
            outcome := killed_after(
                lambda out=out: predict_file(ToyModel(), store, out=out, **ALL)["n_molecules"],
                rng.uniform(0, 0.1) * 1.3**kills,
            )
        ):
            assert outcome == {"died": -9}
            kills += 1
        assert contents(out) == whole


def test_what_was_committed_is_kept_and_the_rest_made(store, whole, tmp_path, monkeypatch):
    model = ToyModel()
    with monkeypatch.context() as patch:
        calls = []

        def fail(self, name, prediction):
            calls.append(name)
            if len(calls) == 6:
                raise KeyboardInterrupt

        patch.setattr(files.Run, "write_missing", fail)
        with pytest.raises(KeyboardInterrupt):
            predict_file(model, store, out=tmp_path, **ALL)
    assert not list(tmp_path.glob("*.csv"))
    with PredictionFile(tmp_path) as predictions:
        assert len(predictions) == 8
    result = predict_file(ToyModel(), store, out=tmp_path, **ALL)
    assert (result["n_predicted"], result["n_kept"]) == (2, 8)
    assert contents(tmp_path) == whole


def test_a_flipped_bit_is_named_or_harmless(store, whole, tmp_path, many, rng):
    predict_file(ToyModel(), store, out=tmp_path, **ALL)
    path = tmp_path / "predictions.h5"
    data = path.read_bytes()
    for _ in range(many(15, 2000)):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        found, refusal = tried(contents, tmp_path)
        assert refusal is not None or found == whole
        path.write_bytes(data)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="--overwrite"):
        predict_file(ToyModel(), store, out=tmp_path, **ALL)
    predict_file(ToyModel(), store, out=tmp_path, overwrite=True, **ALL)
    assert contents(tmp_path) == whole


def test_two_spins_come_back(tmp_path):
    sample = toy_samples(1, numbers=(8, 1), charge=1)[0]
    molecule = replace(sample.molecule, spin=2)
    fock = np.stack([sample.matrices.fock, 1.1 * sample.matrices.fock])
    made = make_prediction(fock, molecule, basis=BASIS, overlap=sample.matrices.overlap)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_group(file.create_group("oh"), made.arrays(), compress=False)
        back = Prediction.from_arrays(read_group(file, "oh", tmp_path / "x.h5"), id="oh", where="x")
    for name in ("fock", "overlap", "mo_energy", "mo_coeff", "mo_occ"):
        assert np.array_equal(getattr(back, name), getattr(made, name))
    assert back.density == pytest.approx(made.density, abs=1e-14)
    assert back.lowdin_spins.sum() == pytest.approx(2)


def test_nothing_predicted_leaves_no_file(store, tmp_path):
    class Failing(ToyModel):
        def predict_each(self, samples, **_):
            return [InputError("no")] * len(samples)

    with pytest.raises(InputError, match="none of 10 molecules can be used"):
        predict_file(Failing(), store, out=tmp_path / "p", one_file=True)
    assert not (tmp_path / "p").exists()


def test_a_file_of_another_model_is_refused(store, whole, tmp_path):
    predict_file(ToyModel("two"), store, out=tmp_path, **ALL)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="of another model: choose another --out, or --overwrite"):
        predict_file(ToyModel(), store, out=tmp_path, **ALL)
    assert contents(tmp_path) == before
    assert predict_file(ToyModel(), store, out=tmp_path, overwrite=True, **ALL)["n_predicted"] == 10
    assert contents(tmp_path) == whole
    (tmp_path / "predictions.h5").write_text("mine")
    with pytest.raises(InputError, match="no result of 'helmol predict'"):
        predict_file(ToyModel(), store, out=tmp_path, **ALL)
    assert (tmp_path / "predictions.h5").read_text() == "mine"


def test_predictions_are_read_by_name(store, tmp_path):
    predict_file(ToyModel(), store, out=tmp_path, one_file=True, compress=True)
    with pytest.raises(InputError, match="there is no"):
        PredictionFile(tmp_path / "nothing.h5")
    with PredictionFile(tmp_path / "predictions.h5") as predictions:
        assert len(predictions) == 10
        assert "10 molecules" in repr(predictions)
        name = list(predictions)[3]
        found = predictions[name]
        assert isinstance(found, Prediction)
        assert found.id == name
        assert found.gap == pytest.approx(found.lumo - found.homo)
        assert found.mayer_bond_orders.shape == (3, 3)
        with pytest.raises(KeyError):
            predictions["nobody"]
        with pytest.raises(StoreError, match="in use"):
            predict_file(ToyModel(), store, out=tmp_path, one_file=True)
    with h5py.File(tmp_path / "predictions.h5") as plain:
        assert plain[name]["mo_energy"][:] == pytest.approx(found.mo_energy)
        assert plain[name].attrs["charge"] == 0


@pytest.mark.parametrize("one_file", [False, True])
def test_properties_are_added_to_what_is_there(store, whole, tmp_path, one_file):
    predict_file(ToyModel(), store, out=tmp_path, one_file=one_file)
    assert {path.name for path in tmp_path.glob("*.csv")} == {"summary.csv"}
    model = ToyModel()
    result = predict_file(model, store, out=tmp_path, properties=["charges", "bonds"], one_file=one_file)
    assert (result["n_predicted"], model.asked) == (0, [])
    if one_file:
        assert contents(tmp_path) == whole
    assert (tmp_path / "bonds.csv").read_bytes() == whole["bonds.csv"]
    assert (tmp_path / "atoms.csv").read_bytes() == whole["atoms.csv"]
    # Without the request the tables go, which would be of another call; the arrays stay.
    predict_file(model, store, out=tmp_path, one_file=one_file)
    assert not list(tmp_path.glob("[ab]*.csv"))
    result = predict_file(model, store, out=tmp_path, properties=["charges", "bonds"], one_file=one_file)
    assert (result["n_predicted"], model.asked) == (0, [])


def test_properties_are_added_to_results_of_helmol_0_1(store, whole, tmp_path):
    predict_file(ToyModel(), store, out=tmp_path)
    for path in tmp_path.glob("*.npz"):
        with np.load(path) as data:
            arrays = {
                key: data[key] for key in data.files if key not in ("basis", "level", "id", "properties")
            }
        np.savez(path, **arrays)
    model = ToyModel()
    predict_file(model, store, out=tmp_path, properties=["charges", "bonds"])
    assert model.asked == []
    assert (tmp_path / "atoms.csv").read_bytes() == whole["atoms.csv"]


@pytest.mark.parametrize("one_file", [False, True])
def test_without_matrices(store, whole, tmp_path, one_file):
    asked = {"one_file": one_file, "matrices": False, "properties": ["charges", "bonds"]}
    predict_file(ToyModel(), store, out=tmp_path, **asked)
    assert (tmp_path / "bonds.csv").read_bytes() == whole["bonds.csv"]
    assert predict_file(ToyModel(), store, out=tmp_path, **asked)["n_predicted"] == 0
    if one_file:
        with PredictionFile(tmp_path) as predictions:
            name = next(iter(predictions))
            arrays = predictions.arrays(name)
            with pytest.raises(InputError, match="--no-matrices"):
                predictions[name]
    else:
        with np.load(next(iter(sorted(tmp_path.glob("*.npz"))))) as data:
            arrays = dict(data)
    assert not {"fock", "overlap", "density", "mo_coeff"} & {*arrays}
    assert {"mo_energy", "charges", "lowdin_charges", "mayer_bond_orders"} <= {*arrays}
    # What needs them is predicted again.
    assert predict_file(ToyModel(), store, out=tmp_path, one_file=one_file)["n_predicted"] == 10
    with pytest.raises(InputError, match=r"\.molden files need the matrices"):
        predict_file(ToyModel(), store, out=tmp_path, writers={".molden": write_text}, matrices=False)


def test_a_folder_has_no_other_formats_of_an_earlier_model(store, tmp_path):
    names = (
        ".homo.cube",
        ".homo-1-alpha.cube",
        ".mo17.cube",
        ".lumo+1.cube",
        ".esp.cube",
        ".chk",
        ".dos.png",
    )
    predict_file(ToyModel("two"), store, out=tmp_path, writers=dict.fromkeys(names, write_text))
    (tmp_path / "H2O-0-000.notes.cube").touch()
    predict_file(ToyModel(), store, out=tmp_path)
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".npz"}
    assert left == {"summary.csv", "H2O-0-000.notes.cube"}


def test_shards_are_the_whole(store, tmp_path):
    twins = [
        replace(sample, id=id) for sample, id in zip(toy_samples(4), ("a", "a/", "b", "b/"), strict=True)
    ]
    path = make_store(tmp_path / "twins.h5", twins)
    names = []
    for k in (1, 2, 3):
        out = tmp_path / f"{k}"
        predict_file(ToyModel(), path, out=out, shard=(k, 3))
        names += [row["file"] for row in rows(out / "summary.csv")]
    assert sorted(names) == ["a-2.npz", "a.npz", "b-2.npz", "b.npz"]
    for wrong, said in (((0, 3), "i from 1 to n"), ((4, 3), "i from 1 to n"), ((5, 5), "is empty")):
        with pytest.raises(InputError, match=said):
            predict_file(ToyModel(), path, out=tmp_path / "x", shard=wrong)
    assert not (tmp_path / "x").exists()


def test_tables_of_atoms_and_bonds(store, tmp_path):
    predict_file(ToyModel(), store, out=tmp_path, properties=["charges", "bonds"])
    atoms, bonds = rows(tmp_path / "atoms.csv"), rows(tmp_path / "bonds.csv")
    assert tuple(atoms[0]) == ATOM_COLUMNS
    assert tuple(bonds[0]) == BOND_COLUMNS
    assert len(atoms) == 30
    sample = toy_samples(10)[1]
    with np.load(tmp_path / f"{sample.id}.npz") as data:
        mine = [row for row in atoms if row["id"] == sample.id]
        assert [int(row["atom"]) for row in mine] == [1, 2, 3]
        assert [row["element"] for row in mine] == ["O", "H", "H"]
        assert [float(row["mulliken_charge"]) for row in mine] == data["charges"].tolist()
        assert [float(row["lowdin_charge"]) for row in mine] == data["lowdin_charges"].tolist()
        assert [row["mulliken_spin"] for row in mine] == [""] * 3
        positions = [[float(row[f"{x}_angstrom"]) for x in "xyz"] for row in mine]
        assert positions == pytest.approx(sample.molecule.positions_ang)
        for row in (row for row in bonds if row["id"] == sample.id):
            i, j = int(row["atom_1"]) - 1, int(row["atom_2"]) - 1
            assert float(row["mayer_bond_order"]) == data["mayer_bond_orders"][i, j]
            distance = np.linalg.norm(sample.molecule.positions[i] - sample.molecule.positions[j])
            assert float(row["distance_angstrom"]) == pytest.approx(distance * ANGSTROM_PER_BOHR)
            assert max(float(row["mayer_bond_order"]), float(row["wiberg_bond_order"])) >= 0.1
    with pytest.raises(InputError, match="unknown property 'bond': known are charges, bonds"):
        predict_file(ToyModel(), store, out=tmp_path, properties=["bond"])
    with pytest.raises(InputError, match="of unrestricted models"):
        predict_file(ToyModel(), store, out=tmp_path, properties=["spins"])


def test_frames_are_read_by_ase(store, tmp_path):
    result = predict_file(ToyModel(dipole=True), store, out=tmp_path, properties=["charges"], extxyz=True)
    frames = ase.io.read(tmp_path / "predictions.extxyz", ":")
    assert len(frames) == 10
    for frame, row, sample in zip(frames, result["molecules"], toy_samples(10), strict=True):
        with np.load(tmp_path / row["file"]) as data:
            assert frame.get_charges() == pytest.approx(data["charges"], abs=1e-11)
            assert frame.arrays["lowdin_charges"] == pytest.approx(data["lowdin_charges"], abs=1e-11)
            dipole = data["dipole"] / DEBYE_PER_AU * ANGSTROM_PER_BOHR
            assert frame.get_dipole_moment() == pytest.approx(dipole, abs=1e-11)
        assert frame.info["name"] == row["id"]
        assert frame.info["gap_eV"] == pytest.approx(row["gap_eV"], abs=1e-10)
        assert frame.positions == pytest.approx(sample.molecule.positions_ang, abs=1e-11)


def test_tables_as_parquet_hold_the_same_numbers(store, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    asked = {"properties": ["charges", "bonds"], "parquet": True}
    samples = [replace(sample, id=f"00{k}") for k, sample in enumerate(toy_samples(3))]
    path = make_store(tmp_path / "x.h5", samples)
    result = predict_file(ToyModel(), path, out=tmp_path / "p", **asked)
    assert {"summary.parquet", "atoms.parquet", "bonds.parquet"} <= {*result["tables"]}
    for name in ("summary", "atoms", "bonds"):
        table = parquet.read_table(tmp_path / f"p/{name}.parquet").to_pylist()
        plain = rows(tmp_path / f"p/{name}.csv")
        assert [row["id"] for row in table] == [row["id"] for row in plain]
        for row, texts in zip(table, plain, strict=True):
            for key, text in texts.items():
                value = row[key] if isinstance(row[key], str) else "" if row[key] is None else float(row[key])
                assert value == (text if isinstance(value, str) else float(text))
    predict_file(ToyModel(), path, out=tmp_path / "p")
    assert not list((tmp_path / "p").glob("*.parquet"))


def test_parquet_without_pyarrow_is_refused_before_any_work(store, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "pyarrow" else found(name, *a)
    )
    with pytest.raises(InputError, match="need pyarrow: pip install pyarrow"):
        check_parquet()
    model = ToyModel()
    with pytest.raises(InputError, match="need pyarrow"):
        predict_file(model, store, out=tmp_path / "p", parquet=True)
    assert model.asked == []
    assert not (tmp_path / "p").exists()


def test_portions_depend_on_nothing_but_the_molecules(store):
    class Item:
        def __init__(self, n):
            self.molecule = type("M", (), {"n_atoms": n})

    named = [(Item(n), f"{n}") for n in (3, 3, 10, 3, 3, 3, 3, 3)]
    sizes = [len(portion) for portion in portions(named, max_edges=20)]
    assert sizes == [2, 1, 3, 2]
    assert [len(p) for p in portions(named, max_edges=10**6)] == [4, 4]
    assert [pair for p in portions(named, max_edges=20) for pair in p] == named


def test_the_rate_counts_what_was_made_now(monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0])
    monkeypatch.setattr("helmol.progress.time.monotonic", lambda: next(clock))
    progress = Progress("Predict", total=104, unit="molecules").__enter__()
    progress.advance(100, made=0)
    line = progress._line()
    assert "molecules/s" not in line
    assert "left" not in line
    progress.advance(2)
    assert progress._line() == "Predict: 102/104 molecules, 4 s (0.5 molecules/s), about 4 s left"


def test_shares_of_a_whole_have_no_rate(monkeypatch):
    clock = iter([0.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr("helmol.progress.time.monotonic", lambda: next(clock))
    progress = Progress("Train", total=100, unit="%").__enter__()
    progress.advance(20)
    assert progress._line() == "Train: 20/100 %, 2 s, about 8 s left"
