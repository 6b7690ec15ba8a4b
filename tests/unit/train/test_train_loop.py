"""What the loop does in a run: skipping, stopping, choosing the best, writing the folder."""

import json
import os
import signal

import pytest
import torch
import yaml

from helmol.config import parse
from helmol.errors import ConfigError, InputError, TrainingError
from helmol.evaluate import errors
from helmol.model import load_model, predict_fock
from helmol.store import Store
from helmol.train import TrainConfig, loop, metrics, run
from helmol.train.plan import make_plan
from helmol.train.step import Gradient
from toy_store import make_store, settings, toy_samples


def config(toy, **changes):
    return parse(TrainConfig, settings(toy, **changes))


def test_run_folder_is_complete_and_the_saved_model_has_the_reported_error(toy, tmp_path):
    out = tmp_path / "run"
    result = run(config(toy), out=out)
    for name in ("config.yaml", "environment.json", "log.txt", "metrics.csv", "card.md", "split.json"):
        assert (out / name).stat().st_size > 0
    assert (out / "plots/learning_curve.png").stat().st_size > 1000
    assert not [p for p in out.rglob("*") if p.suffix in (".pt", ".pkl", ".new", ".old")]
    again = parse(TrainConfig, yaml.safe_load((out / "config.yaml").read_text()))
    assert make_plan(again).resolved() == make_plan(config(toy)).resolved()
    split = json.loads((out / "split.json").read_text())
    with Store.open(toy) as store:
        samples = [store[store.row(i)] for i in split["val"]]
        for name in ("best", "last"):
            network = load_model(out / "checkpoints" / name)
            references = [sample.matrices.references for sample in samples]
            table = errors(
                samples, predict_fock(network, [s.molecule for s in samples], references), store.basis
            )
            assert table["h_mae_uEh"] == pytest.approx(result[name]["h_mae_uEh"], rel=1e-6)
    rows = metrics.read(out / "metrics.csv")
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert result["best"]["h_mae_uEh"] == min(row["val_h_mae_uEh"] for row in rows)


def test_best_is_the_best_and_not_the_last(toy, tmp_path, monkeypatch):
    """Validation errors are replaced by 3, 1, 2: the model of the second validation must be kept."""
    values = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(
        "helmol.train.launch.Validation",
        lambda *args: lambda network: {"h_mae_uEh": next(values), "seconds": 0.0},
    )
    result = run(config(toy), out=tmp_path / "run")
    assert (result["best"]["step"], result["last"]["step"]) == (8, 12)
    steps = [
        json.loads((tmp_path / f"run/checkpoints/{n}/model.json").read_text())["step"]
        for n in ("best", "last")
    ]
    assert steps == [8, 12]


def spoil(monkeypatch, steps):
    """Make the loss of some steps (counted from 1) not a number, that of each molecule alone a number."""
    count, compute = iter(range(1, 1000)), Gradient.__call__

    def spoilt(*args):
        loss = compute(*args)
        return float("nan") if next(count) in steps else loss

    monkeypatch.setattr(Gradient, "__call__", spoilt)


def test_non_finite_steps_are_skipped_and_counted(toy, tmp_path, monkeypatch):
    spoil(monkeypatch, {2, 3, 9})
    result = run(config(toy), out=tmp_path / "run")
    assert result["skipped_steps"] == 3
    network = load_model(tmp_path / "run/checkpoints/last")
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_a_run_that_diverges_stops_with_one_clear_line(toy, tmp_path, monkeypatch):
    spoil(monkeypatch, range(6, 100))
    with pytest.raises(TrainingError, match="not finite in 3 steps in a row"):
        run(config(toy, max_skipped=3), out=tmp_path / "run")


def test_ctrl_c_saves_the_finished_step(toy, tmp_path, monkeypatch):
    whole = run(config(toy), out=tmp_path / "whole")
    count = loop._count

    def press(counters, *args):
        if counters.step == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return count(counters, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_count", press)
        with pytest.raises(KeyboardInterrupt):
            run(config(toy), out=tmp_path / "run")
    result = run(config(toy), out=tmp_path / "run")
    assert result["resumed_from"] == 6
    assert result["last"]["h_mae_uEh"] == whole["last"]["h_mae_uEh"]


def test_the_clock_ends_a_run(toy, tmp_path):
    result = run(config(toy, max_steps=None, max_minutes=0.01), out=tmp_path / "run")
    assert result["finished"]
    assert result["seconds"] >= 0.6
    rows = metrics.read(tmp_path / "run/metrics.csv")
    assert rows[-1]["step"] == result["steps"]


def test_caller_is_left_as_it_was(toy, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    run(config(toy, max_steps=2), out=tmp_path / "run")
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_small_cache_gives_the_same_run(toy, tmp_path):
    first = run(config(toy), out=tmp_path / "a")
    second = run(config(toy, cache_mb=0.002), out=tmp_path / "b")
    assert first["last"]["h_mae_uEh"] == second["last"]["h_mae_uEh"]


def test_double_precision(toy, tmp_path):
    run(config(toy, dtype="float64", max_steps=2), out=tmp_path / "run")
    assert load_model(tmp_path / "run/checkpoints/best").dtype == torch.float64


def test_domain_is_that_of_the_training_molecules(tmp_path):
    ions = toy_samples(4, numbers=(8, 1, 1, 1), charge=1)
    with Store.open(make_store(tmp_path / "s.h5", toy_samples(8) + ions), "a") as store:
        store.set_splits({"train": store.ids[:6], "val": store.ids[6:8], "ions": store.ids[8:]})
    run(config(tmp_path / "s.h5", train="train", val="val", max_steps=1), out=tmp_path / "run")
    assert load_model(tmp_path / "run/checkpoints/best").domain.charges == (0,)
    with pytest.raises(InputError, match=r"validation molecule .* charge 1"):
        run(config(tmp_path / "s.h5", train="train", val="ions"), out=tmp_path / "other")


def test_missing_references_are_refused(toy, tmp_path):
    with pytest.raises(InputError, match="sap"):
        run(config(toy, target="fock-minus-sap"), out=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1}, "unknown key 'learning_rate'"),
        ({"lrr": 1}, "did you mean 'lr'"),
        ({"preset": "smal"}, "did you mean 'small'"),
        ({"model": {"chanels": 3}}, "did you mean 'channels'"),
        ({"train": 100}, "24 can be drawn"),
        ({"train": "training"}, "no split 'training'"),
        ({"lr": -1}, "lr"),
        ({"train": 0}, "at least one"),
    ],
)
def test_bad_configuration_is_one_line_and_leaves_nothing(toy, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message) as caught:
        run(config(toy, **changes), out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_cpu_time_ends_a_run_and_leaves_validation_out(toy, tmp_path, monkeypatch):
    """By a clock that moves 10 ms when it is read, once a step, and 100 s in a validation."""
    now, validate = [0.0], loop._validate

    def read():
        now[0] += 0.01
        return now[0]

    def slow(*arguments):
        now[0] += 100
        return validate(*arguments)

    monkeypatch.setattr(loop.time, "process_time", read)
    monkeypatch.setattr(loop, "_validate", slow)
    budget = config(toy, max_steps=None, max_cpu_minutes=0.005, validate_every=10)
    result = run(budget, out=tmp_path / "run")
    assert result["finished"]
    assert result["cpu_seconds"] == pytest.approx(0.3, abs=0.05)
    rows = metrics.read(tmp_path / "run/metrics.csv")
    assert 25 <= rows[-1]["step"] <= 31
    assert len(rows) >= 3
    assert rows[-1]["lr"] < 1e-3


@pytest.mark.parametrize("kind", ["energies", "occupied"])
def test_orbital_loss_is_a_second_stage(toy, tmp_path, kind):
    """Until its stage begins a run is the same as without, afterwards it is not."""
    plain = config(toy, max_steps=4, validate_every=1)
    staged = config(
        toy, max_steps=4, validate_every=1, orbital_loss=kind, orbital_stage=0.5, orbital_weight=10.0
    )
    rows = []
    for name, settings_of in (("plain", plain), ("staged", staged)):
        run(settings_of, out=tmp_path / name)
        rows.append([row["loss"] for row in metrics.read(tmp_path / name / "metrics.csv")])
    assert rows[0][:2] == rows[1][:2]
    assert rows[1][2] > rows[0][2]
    assert rows[1][3] > rows[0][3]


def test_a_run_in_reduced_precision_learns_the_same_and_says_that_it_is_emulated(toy, tmp_path, caplog):
    losses = {}
    for precision in ("fp32", "tf32x3", "bf16"):
        out = tmp_path / precision
        run(config(toy, precision=precision, device="cpu"), out=out)
        losses[precision] = metrics.read(out / "metrics.csv")[-1]["loss"]
    assert "precision bf16 is emulated on cpu" in caplog.text
    assert losses["tf32x3"] == pytest.approx(losses["fp32"], rel=1e-3)
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.2)
    assert losses["bf16"] != losses["tf32x3"] != losses["fp32"]
