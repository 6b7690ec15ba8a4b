"""Card, rows and log of a run state the errors of the models that it saves, and name what was learnt."""

import json

import numpy as np
import pytest

from energy_store import energy_settings, make_energy_store
from helmol.config import parse
from helmol.evaluate.run import evaluate_store
from helmol.model import load_model
from helmol.store import Store
from helmol.train import TrainConfig, launch, metrics, run
from helmol.train.report import NO_BASELINE, _curves
from toy_store import make_store, settings, toy_samples


@pytest.fixture(scope="module")
def damped(tmp_path_factory):
    """A finished run whose floor is chosen at its end only, far from what was validated before."""
    folder = tmp_path_factory.mktemp("damped")
    data = make_store(folder / "toy.h5")
    with Store.open(data, "a") as store:
        ids = store.ids
        store.set_splits({"train": ids[:16], "val": ids[16:20]})
    chosen = {
        "floor": 0.9, "h_mae_uEh": [1.0, 1.0], "eps_occ_mae_uEh": [1.0, 1.0],
        "density_error_per_electron": [1.0, 1.0],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "FloorChoice", lambda *args, **options: lambda model: None)
        patch.setattr("helmol.train.floor._best", lambda errors: chosen)
        config = parse(TrainConfig, settings(data, train="train", val="val"))
        result = run(config, out=folder / "run")
    return data, folder / "run", result, config


def test_all_of_them_are_of_the_saved_model(damped, tmp_path):
    data, out, result, _ = damped
    rows = {int(row["step"]): row for row in metrics.read(out / "metrics.csv")}
    card, log = (out / "card.md").read_text(), (out / "log.txt").read_text()
    for name in ("best", "last"):
        model = load_model(out / "checkpoints" / name)
        assert float(model.fock_target.overlap_floor) == pytest.approx(0.9)
        truth = evaluate_store(model, data, split="val", out=tmp_path / name)
        for key in ("h_mae_uEh", "eps_occ_mae_uEh", "gap_mae_uEh"):
            assert result[name][key] == pytest.approx(truth[key], rel=1e-6)
            assert rows[result[name]["step"]][f"val_{key}"] == pytest.approx(truth[key], rel=1e-6)
        assert f"{truth['h_mae_uEh']:.4g}" in card
        assert f"{truth['density_error']:.4g}" in card
    assert max(rows) == result["last"]["step"]
    best = result["best"]
    line = (
        f"the best model, step {best['step']}, validation: H {best['h_mae_uEh']:.4g} µEh, ε_occ "
        f"{best['eps_occ_mae_uEh']:.4g} µEh, gap {best['gap_mae_uEh']:.4g} µEh"
    )
    assert any(one.endswith(line) for one in log.splitlines())
    # Undamped, as it was validated in the loop, the model has other errors: the test could fail.
    model.fock_target.overlap_floor.zero_()
    other = evaluate_store(model, data, split="val", out=tmp_path / "other")
    assert other["h_mae_uEh"] != pytest.approx(truth["h_mae_uEh"], rel=1e-3)


def test_cheap_guesses_stand_beside_it(damped):
    data, out, result, _ = damped
    with Store.open(data) as store:
        samples = [store[store.row(id)] for id in store.splits["val"]]
    error = np.mean([np.abs(s.matrices.references["minao"] - s.matrices.fock).mean() for s in samples])
    assert result["baselines"]["minao"]["h_mae_uEh"] == pytest.approx(1e6 * error)
    assert json.loads((out / "baselines.json").read_text()) == result["baselines"]
    card = (out / "card.md").read_text()
    step = {name: result[name]["step"] for name in ("best", "last")}
    assert f"| validation error | best (step {step['best']}) | last (step {step['last']}) | minao |" in card
    assert "occupied orbitals, mean \\|cosine\\|" in card


def test_it_is_said_if_it_is_no_better_than_they_are(damped, monkeypatch, caplog):
    _, out, result, config = damped
    worse = {"minao": {**result["best"], "h_mae_uEh": 1e-3}}
    (out / "baselines.json").write_text(json.dumps(worse))
    run(config, out=out)
    line = f"NO BETTER THAN THE CHEAP GUESS 'minao': H {result['best']['h_mae_uEh']:.4g} µEh against 0.001"
    assert line in (out / "card.md").read_text()
    assert any(record.getMessage().startswith(line) for record in caplog.records)
    # Killed before they were computed: the same command makes up for it.
    (out / "baselines.json").unlink()
    assert run(config, out=out)["baselines"] == result["baselines"]
    assert "NO BETTER" not in (out / "card.md").read_text()


def test_a_store_without_cheap_guesses(tmp_path):
    from dataclasses import replace

    bare = [replace(s, matrices=replace(s.matrices, references={})) for s in toy_samples(24)]
    data = make_store(tmp_path / "bare.h5", bare)
    changes = {"target": "fock", "max_steps": 2}
    result = run(parse(TrainConfig, settings(data, **changes)), out=tmp_path / "run")
    assert result["baselines"] == {}
    assert NO_BASELINE in (tmp_path / "run/card.md").read_text()


def test_energies_are_called_energies(tmp_path):
    data = make_energy_store(tmp_path / "toy.h5")
    result = run(parse(TrainConfig, energy_settings(data, max_steps=2)), out=tmp_path / "run")
    assert result["learnt"] == "energies"
    assert result["baselines"]["elements"]["energy_mae_meV"] > 0
    for name in ("log.txt", "card.md"):
        text = (tmp_path / "run" / name).read_text()
        assert "fock" not in text
        assert "energies" in text


def test_results_of_an_earlier_run_do_not_stay(tmp_path, monkeypatch):
    """Its checkpoints were deleted, or never came: what it says is not of the run that begins now."""
    out = tmp_path / "run"
    (out / "plots").mkdir(parents=True)
    old = ("card.md", "plots/learning_curve.png", "overlap_floor.json", "baselines.json")
    for name in ("config.yaml", "metrics.csv", *old):
        (out / name).write_text("of before")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        run(parse(TrainConfig, settings(make_store(tmp_path / "toy.h5"))), out=out)
    assert not [name for name in old if (out / name).exists()]
    assert metrics.read(out / "metrics.csv") == []


def test_errors_of_one_unit_share_a_panel():
    rows = [
        {"step": 4, "loss": 0.5, "val_h_mae_uEh": 9.0, "val_gap_mae_uEh": 0.0, "val_energy_mae_meV": 3.0},
        {"step": 8, "loss": 0.4, "val_h_mae_uEh": 7.0, "val_gap_mae_uEh": 5.0, "val_energy_mae_meV": 2.0},
    ]
    assert _curves(rows) == {
        "validation MAE / µEh": {"Fock matrix": [(4, 9.0), (8, 7.0)], "gap": [(8, 5.0)]},
        "energy / meV": {"energy": [(4, 3.0), (8, 2.0)]},
        "training loss": {"loss": [(4, 0.5), (8, 0.4)]},
    }
    assert _curves(rows[:1])["Fock matrix / µEh"] == {"Fock matrix": [(4, 9.0)]}
