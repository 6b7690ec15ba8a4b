"""Matched ablations: what differs, what is equal, going on after a stop, the numbers in the table."""

import json
import math

import numpy as np
import pytest

from helmol.config import parse
from helmol.errors import ConfigError, DivergedError, InputError, TrainingError
from helmol.train.plan import make_plan
from helmol.train.sweep import SweepConfig, run_sweep, slug
from helmol.train.sweep_table import compare, interval
from toy_store import settings


def sweep(toy, **changes):
    base = {key: value for key, value in settings(toy).items() if key != "seed"}
    data = {
        "title": "Toy", "base": {**base, "max_steps": 2}, "split": "unseen",
        "cases": {"default": {}, "raw target": {"target": "fock"}, "wide": {"model": {"channels": 5}}},
    }  # fmt: skip
    return parse(SweepConfig, data | changes)


def test_cases_differ_in_their_keys_alone(toy):
    config = sweep(toy)
    default, wide = config.training("default", 3), config.training("wide", 3)
    assert make_plan(wide).network.channels == 5
    assert make_plan(wide).network.n_radial == make_plan(default).network.n_radial
    assert default.model_copy(update={"model": wide.model}) == wide
    assert default.run.seed == 3


def test_a_wrong_case_is_refused_before_anything_is_trained(toy, tmp_path):
    with pytest.raises(ConfigError, match="case 'typo': unknown key 'targt'; did you mean 'target'"):
        run_sweep(sweep(toy, cases={"default": {}, "typo": {"targt": "fock"}}), out=tmp_path)
    with pytest.raises(ConfigError, match="'seed' is set by the sweep"):
        run_sweep(sweep(toy, cases={"default": {"seed": 1}}), out=tmp_path)
    with pytest.raises(ConfigError, match="seeds must differ"):
        sweep(toy, seeds=[1, 1])
    with pytest.raises(ConfigError, match="unknown key 'chanels'; did you mean 'channels'"):
        run_sweep(sweep(toy, cases={"default": {}, "typo": {"model": {"chanels": 2}}}), out=tmp_path)
    with pytest.raises(ConfigError, match="'Wide net' and 'wide-net' would share the folder 'wide-net'"):
        run_sweep(sweep(toy, cases={"default": {}, "Wide net": {}, "wide-net": {}}), out=tmp_path)
    with pytest.raises(ConfigError, match="needs a name"):
        run_sweep(sweep(toy, cases={"default": {}, "?!": {}}), out=tmp_path)
    with pytest.raises(ConfigError, match="not task 'energy'"):
        run_sweep(sweep(toy, cases={"default": {}, "energies": {"task": "energy"}}), out=tmp_path)
    with pytest.raises(InputError, match="no split 'test'"):
        run_sweep(sweep(toy, split="test"), out=tmp_path)
    assert not list(tmp_path.iterdir())
    assert slug("H₀ / S as input!") == "h₀-s-as-input"


def test_a_stopped_sweep_goes_on_and_ends_with_the_same_table(toy, tmp_path):
    from helmol.train.sweep import train_and_evaluate

    config, done = sweep(toy, seeds=[0, 1]), []

    def stopping(training, folder):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(folder)
        return train_and_evaluate(training, folder, split="unseen", choose="best")

    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, out=tmp_path, runner=stopping)
    partial = json.loads((tmp_path / "sweep.json").read_text())
    assert (partial["finished"], partial["total"]) == (4, 6)
    assert "4 of 6 runs are finished" in (tmp_path / "table.md").read_text()
    weights = tmp_path / "runs/default/seed-0/checkpoints/last/model.safetensors"
    before = weights.stat().st_mtime_ns
    result = run_sweep(config, out=tmp_path)
    assert weights.stat().st_mtime_ns == before
    assert list(result["cases"]) == ["default", "raw target", "wide"]
    default = result["cases"]["default"]
    values = [run["h_mae_uEh"] for run in default["runs"]]
    assert values[0] != values[1]
    assert default["mean"]["h_mae_uEh"] == pytest.approx(np.mean(values))
    assert default["ratio"] == 1.0
    assert default["runs"][0]["n_molecules"] == 4
    assert result["cases"]["raw target"]["target"] == "fock"
    assert result["cases"]["wide"]["parameters"] > default["parameters"]
    table = (tmp_path / "table.md").read_text()
    assert table.count("\n| ") == 4
    assert "of 6 runs" not in table


def test_a_case_that_diverges_is_said_and_the_others_are_compared(toy, tmp_path):
    row = {
        "h_mae_uEh": 2.0, "steps": 1, "cpu_minutes": 1.0, "parameters": 1, "target": "fock", "n_train": 1,
        "n_molecules": 1, "baselines_h_mae_uEh": {},
    }  # fmt: skip

    def runner(training, folder):
        if training.optimizer.lr == 0.5:
            raise DivergedError("the loss was not finite")
        return row

    config = sweep(toy, cases={"default": {}, "hot": {"lr": 0.5}, "cold": {"lr": 1e-6}})
    result = run_sweep(config, out=tmp_path, runner=runner)
    assert result["failed"] == [{"case": "hot", "seed": 0, "error": "the loss was not finite"}]
    assert list(result["cases"]) == ["default", "cold"]
    assert "Diverged, in no mean: hot (seed 0)" in (tmp_path / "table.md").read_text()
    with pytest.raises(DivergedError, match="every run diverged"):
        run_sweep(sweep(toy, cases={"hot": {"lr": 0.5}}), out=tmp_path / "all", runner=runner)

    def full_disk(training, folder):
        raise TrainingError("no space left on the disk")

    with pytest.raises(TrainingError, match="no space"):
        run_sweep(config, out=tmp_path, runner=full_disk)


def test_intervals_over_seeds():
    assert interval([1.0]) is None
    low, high = interval([1.0, 2.0, 3.0])
    assert (low + high) / 2 == pytest.approx(2)
    assert high - 2 == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)


def test_ratio_compares_runs_of_one_seed():
    """Pairing takes the luck of a seed out; unpaired the two would be a draw."""
    reference = [{"seed": s, "h_mae_uEh": h} for s, h in ((0, 1.0), (1, 10.0), (2, 100.0))]
    better = [{"seed": s, "h_mae_uEh": h} for s, h in ((2, 80.0), (0, 0.8), (1, 8.0))]
    ratio, bounds = compare(better, reference)
    assert ratio == pytest.approx(0.8)
    np.testing.assert_allclose(bounds, [0.8, 0.8], rtol=1e-9)
    assert compare([{"seed": 7, "h_mae_uEh": 1.0}], reference) == (None, None)
