"""A folder of predictions: gone on with to the same bits; other formats; any name; two processes at once."""

import csv
import os
import random
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from forked import in_child, killed_after, together, tried
from helmol.errors import BusyError, InputError
from helmol.files import replacing
from helmol.locks import Claim
from helmol.predict import files
from helmol.predict.files import predict_file
from helmol.predict.prediction import Prediction
from helmol.store import Store
from toy_model import ToyModel as Model
from toy_model import write_text
from toy_store import make_store, toy_samples

pytestmark = pytest.mark.faults


FORMATS = {".molden": write_text}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "x.h5", toy_samples(10))


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(files, "MOLECULES_AT_A_TIME", 4)


def contents(folder):
    """Return all arrays, and the other files, by name."""
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".npz"}
    for path in folder.glob("*.npz"):
        with np.load(path) as data:
            found[path.name] = {name: data[name].tobytes() for name in data.files}
    return found


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "MOLECULES_AT_A_TIME", 4)
        predict_file(Model(), store, out=folder, writers=FORMATS)
    return contents(folder)


@pytest.mark.parametrize("missing", [[0], [1, 2], [3, 4], [9], [0, 5, 8]])
def test_what_is_missing_is_made_with_the_same_bits(store, whole, tmp_path, missing):
    predict_file(Model(), store, out=tmp_path, writers=FORMATS)
    names = sorted(path.stem for path in tmp_path.glob("*.npz"))
    for k in missing:
        (tmp_path / f"{names[k]}.npz").unlink()
    result = predict_file(Model(), store, out=tmp_path, writers=FORMATS)
    assert (result["n_predicted"], result["n_kept"]) == (len(missing), 10 - len(missing))
    assert contents(tmp_path) == whole


def test_killed_at_any_moment_the_same_command_ends_in_the_same_bits(store, whole, tmp_path, many):
    rng = random.Random(1)
    for turn in range(many(4, 200)):
        out, kills = tmp_path / f"{turn}", 0
        while "ok" not in (
            outcome := killed_after(
                lambda out=out: predict_file(Model(), store, out=out, writers=FORMATS)["n_molecules"],
                rng.uniform(0, 0.1) * 1.3**kills,
            )
        ):
            assert outcome == {"died": -9}
            kills += 1
        assert contents(out) == whole


def test_another_format_is_made_of_earlier_results(store, whole, tmp_path):
    predict_file(Model(), store, out=tmp_path)
    assert not list(tmp_path.glob("*.molden"))
    model = Model()
    result = predict_file(model, store, out=tmp_path, writers=FORMATS)
    assert (result["n_predicted"], model.asked) == (0, [])
    assert contents(tmp_path) == whole


def test_nothing_of_another_model_stays_beside_newer_results(store, tmp_path):
    predict_file(Model("two"), store, out=tmp_path, writers=FORMATS)
    old = {path.name: path.read_text() for path in tmp_path.glob("*.molden")}
    predict_file(Model(), store, out=tmp_path)
    assert not list(tmp_path.glob("*.molden"))
    predict_file(Model(), store, out=tmp_path, writers=FORMATS)
    new = {path.name: path.read_text() for path in tmp_path.glob("*.molden")}
    assert new.keys() == old.keys()
    assert not set(new.values()) & set(old.values())


def test_the_table_of_before_does_not_stand_beside_newer_results(store, tmp_path, monkeypatch):
    predict_file(Model("two"), store, out=tmp_path)

    def fail(self, name, prediction):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files.Run, "write_missing", fail)
        with pytest.raises(KeyboardInterrupt):
            predict_file(Model(), store, out=tmp_path)
    assert not (tmp_path / "summary.csv").exists()
    predict_file(Model(), store, out=tmp_path)
    with (tmp_path / "summary.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 10


def test_a_result_comes_back_as_it_was_saved(store, tmp_path):
    with Store.open(store) as opened:
        (made,) = Model().predict_each([opened[0]])
    made.save(tmp_path / "a.npz", model="x")
    back = Prediction.load(tmp_path / "a.npz")
    assert back.id == "a"
    assert back.gap == made.gap
    assert {k: v.tobytes() for k, v in back.arrays().items()} == {
        k: v.tobytes() for k, v in made.arrays().items()
    }
    np.savez(tmp_path / "b.npz", fock=made.fock)
    with pytest.raises(InputError, match=r"b\.npz cannot be read.*'numbers' is missing"):
        Prediction.load(tmp_path / "b.npz")


def test_a_damaged_result_is_named_and_kept(store, tmp_path, many, rng):
    predict_file(Model(), store, out=tmp_path)
    path = sorted(tmp_path.glob("*.npz"))[2]
    data = path.read_bytes()
    right = contents(tmp_path)
    for _ in range(many(25, 2000)):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        result, refusal = tried(predict_file, Model(), store, out=tmp_path)
        if refusal is not None:
            assert str(path) in refusal
            assert path.read_bytes() == damaged
        elif result["n_predicted"]:
            assert contents(tmp_path) == right
        path.write_bytes(data)
    path.write_bytes(data[:500])
    with pytest.raises(InputError, match="--overwrite"):
        predict_file(Model(), store, out=tmp_path)
    predict_file(Model(), store, out=tmp_path, overwrite=True)
    assert contents(tmp_path) == right


def test_of_two_processes_one_writes_a_folder(store, whole, tmp_path, many):
    for turn in range(many(3, 60)):
        out = tmp_path / f"{turn}"
        work = partial(predict_file, Model(seconds=0.05), store, out=out, writers=FORMATS)
        outcomes = together([lambda work=work: work()["n_predicted"]] * 2)
        assert {"ok": 10} in outcomes
        assert all("ok" in one or "in use: process" in one["refused"] for one in outcomes)
        assert contents(out) == whole


def test_a_place_that_can_be_no_folder_is_refused_and_a_held_one_named(store, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        predict_file(Model(), store, out=tmp_path / "file")
    with Claim(tmp_path / "out", folder=True), pytest.raises(BusyError, match="in use: process"):
        predict_file(Model(), store, out=tmp_path / "out")


def test_temporary_files_of_a_killed_process_are_no_results_and_go(store, whole, tmp_path):

    def die():
        with replacing(tmp_path / "out" / "H2O-0-000.npz") as temporary:
            temporary.write_bytes(b"half")
            os._exit(9)

    assert in_child(die) == {"died": 9}
    assert len(list((tmp_path / "out").iterdir())) == 1
    predict_file(Model(), store, out=tmp_path / "out", writers=FORMATS)
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("name", ["x" * 300, "ä" * 150, "a/../../b", "水" * 99])
def test_any_name_of_a_molecule_makes_a_file(tmp_path, name):
    first, second = toy_samples(2)
    path = make_store(tmp_path / "x.h5", [replace(first, id=name), replace(second, id=name + "/")])
    result = predict_file(Model(), path, out=tmp_path / "out", writers=FORMATS)
    assert [row["id"] for row in result["molecules"]] == [name, name + "/"]
    assert len(list((tmp_path / "out").glob("*.npz"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"x.h5", "out"}


def test_a_format_that_one_molecule_does_not_fit_costs_nothing_else(store, tmp_path):
    def odd(prediction, path):
        if prediction.id.endswith("003"):
            raise ValueError("more shells than this format knows")
        write_text(prediction, path)

    result = predict_file(Model(), store, out=tmp_path, writers={".molden": odd})
    (entry,) = result["skipped"]
    assert (entry["item"], entry["row"]) == ("H2O-0-003", 3)
    assert entry["reason"] == "more shells than this format knows"
    assert result["n_molecules"] == 10  # its matrices are there
    assert len(list(tmp_path.glob("*.molden"))) == 9
