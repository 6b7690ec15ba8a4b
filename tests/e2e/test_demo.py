"""The demo, small: every stage for real, its files, its keys, and going on where it was stopped."""

import json
import shutil

import pytest

from helmol import demo, structures
from helmol.demo.report import FIGURES
from helmol.store import Store

SMALL = demo.DemoConfig(
    n_train=5,
    n_val=2,
    n_test=3,
    n_gap=2,
    basis="sto-3g",
    preset="nano",
    minutes=1.0,
    reserve_minutes=0.1,
    train_minutes=0.05,
    workers=1,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, demo.run(SMALL, out=out)


def test_files_and_keys(finished):
    out, result = finished
    names = {path.name for path in out.iterdir()}
    assert {*FIGURES, "report.md", "report.html", "demo.json", "water.h5", "run", "data"} <= names
    assert (out / "data" / "card.md").exists()
    written = json.loads((out / "demo.json").read_text())
    assert written == result
    assert written["h_mae_uEh"] == written["evaluate"]["h_mae_uEh"] > 0
    assert written["n_molecules"] == SMALL.n_test
    assert {"minao", "model", "same_state", "fell_back"} <= set(written["guess"])
    assert abs(written["guess"]["minao"]["energy_Eh"] - written["guess"]["model"]["energy_Eh"]) < 1e-8
    assert written["target"] == "fock-minus-minao-lite"
    stages = {"structures", "labels", "card", "train", "evaluate", "predict", "guess", "report", "total"}
    assert set(written["seconds"]) == stages


def test_test_molecules_come_from_a_later_segment(finished):
    out, _ = finished
    order = [frame.id for frame in structures.read(out / "structures.extxyz")]
    with Store.open(out / "water.h5") as store:
        place = {name: [order.index(id) for id in ids] for name, ids in store.splits.items()}
    assert {name: len(ids) for name, ids in place.items()} == {"train": 5, "val": 2, "test": 3}
    assert max(place["train"] + place["val"]) + SMALL.n_gap < min(place["test"])
    assert max(place["test"]) + SMALL.n_gap < len(order)


def test_it_goes_on_where_it_was_stopped(finished):
    out, first = finished
    (out / "demo.json").unlink()
    shutil.rmtree(out / "run")
    before = (out / "structures.extxyz").stat().st_mtime_ns
    again = demo.run(SMALL, out=out)
    assert (out / "structures.extxyz").stat().st_mtime_ns == before
    assert again["labels"]["n_new"] == 0
    assert again["labels"]["content_hash"] == first["labels"]["content_hash"]
    assert again["seconds"]["train"] > first["seconds"]["train"]
