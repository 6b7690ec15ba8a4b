"""A finished run knows below which overlap its predictions are damped, and predictions obey."""

import json

import numpy as np
import pytest

from helmol.config import parse
from helmol.model import load_model, predict_fock, save_model
from helmol.store import Store
from helmol.target import damped
from helmol.train import TrainConfig, floor, run
from helmol.train.floor import FLOORS, RECORD, _best
from helmol.train.state import replace_model
from toy_store import make_store, settings


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("floor")
    config = parse(TrainConfig, settings(make_store(folder / "toy.h5")))
    return config, folder / "run", run(config, out=folder / "run")


def test_a_run_chooses_and_keeps_it(finished, tmp_path):
    config, out, result = finished
    chosen = result["overlap_floor"]["floor"]
    assert chosen in FLOORS
    assert json.loads((out / RECORD).read_text()) == result["overlap_floor"]
    networks = [load_model(out / "checkpoints" / name) for name in ("best", "last")]
    assert [float(network.fock_target.overlap_floor) for network in networks] == [chosen, chosen]
    networks[0].fock_target.overlap_floor.fill_(0.25)
    save_model(tmp_path, networks[0])
    assert float(load_model(tmp_path).fock_target.overlap_floor) == 0.25
    # Killed after the last step, before the choice: the same command makes up for it.
    (out / RECORD).unlink()
    for name in ("best", "last"):
        network = load_model(out / "checkpoints" / name)
        network.fock_target.overlap_floor.fill_(9.0)
        replace_model(out / "checkpoints", name, network, {"h_mae_uEh": -1.0})
    assert run(config, out=out)["overlap_floor"] == result["overlap_floor"]
    assert float(load_model(out / "checkpoints/best").fock_target.overlap_floor) == chosen


def test_predictions_are_damped_where_the_overlap_is_known(finished):
    config, out, _ = finished
    network = load_model(out / "checkpoints/best")
    with Store.open(config.data.store) as store:
        sample = store[0]
    known, start = sample.matrices.known, sample.matrices.references["minao"]
    plain, with_floor = [], []
    for value, found in ((0.0, plain), (0.5, with_floor)):
        network.fock_target.overlap_floor.fill_(value)
        for matrices in (known, sample.matrices.references):
            found += predict_fock(network, [sample.molecule], [matrices])
    assert np.array_equal(plain[0], plain[1])
    assert np.array_equal(with_floor[1], plain[0])
    np.testing.assert_allclose(
        with_floor[0], start + damped(plain[0] - start, known["overlap"], 0.5), atol=1e-12
    )
    assert not np.allclose(with_floor[0], plain[0])


def test_large_molecules_are_few(finished, monkeypatch):
    config, *_ = finished
    with Store.open(config.data.store) as store:
        ids = store.ids[:10]
        assert len(floor._some(store, ids)) == 10
        monkeypatch.setattr(floor, "WORK", 3.5 * len(store[0].matrices.overlap) ** 3)
        assert len(floor._some(store, ids)) == 3
        monkeypatch.setattr(floor, "WORK", 1.0)
        assert len(floor._some(store, ids)) == 1


def test_the_fock_matrix_may_not_suffer():
    def table(h, density):
        return {"h_mae_uEh": h, "eps_occ_mae_uEh": 1.0, "density_error_per_electron": density}

    errors = {value: table(10.0, 2.0) for value in FLOORS}
    assert _best(errors)["floor"] == 0.0
    assert _best(errors | {1e-3: table(9.0, 1.95)})["floor"] == 0.0
    errors |= {1e-3: table(10.1, 1.0), 1e-2: table(10.9, 0.1)}
    assert _best(errors) == {
        "floor": 1e-3, "h_mae_uEh": [10.0, 10.1], "eps_occ_mae_uEh": [1.0, 1.0],
        "density_error_per_electron": [2.0, 1.0],
    }  # fmt: skip
    assert _best({value: table(10.0, None) for value in FLOORS}) == {"floor": 0.0}
