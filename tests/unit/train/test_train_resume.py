"""A run that stops and goes on ends in the same bits as one that never stopped."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from helmol.config import parse
from helmol.errors import ConfigError, InputError, TrainingError
from helmol.train import TrainConfig, loop, metrics, run
from helmol.train import state as state_room
from helmol.train.optimizers import Optimizers
from helmol.train.state import TrainingState
from toy_store import make_store, settings, toy_samples


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Save the half second of drawing per run."""
    monkeypatch.setattr("helmol.train.launch.plot_learning_curve", lambda folder: None)


def config(toy, **changes):
    return parse(TrainConfig, settings(toy, **changes))


class Killed(Exception):
    """Stands for the moment a process dies."""


def stop_at(monkeypatch, step):
    """Let the run die in a step, before anything of it is saved."""

    def count(counters, loss, norm, config):
        if counters.step == step:
            raise Killed
        return _count(counters, loss, norm, config)

    _count = loop._count
    monkeypatch.setattr(loop, "_count", count)


def die_in(step, monkeypatch, *args, **kwargs):
    """Start a run that dies in a step."""
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        with pytest.raises(Killed):
            run(*args, **kwargs)


def end_of(folder):
    """Return all tensors, the rows of metrics without times, and the best step."""
    tensors = {}
    for name in ("last/state", "last/model", "best/model"):
        tensors |= {
            f"{name}/{k}": v for k, v in load_file(folder / "checkpoints" / f"{name}.safetensors").items()
        }
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in metrics.read(folder / "metrics.csv")]
    return tensors, rows, json.loads((folder / "checkpoints/best/validation.json").read_text())["step"]


def same(first, second):
    keys = first[0].keys() == second[0].keys()
    return keys and all(torch.equal(v, second[0][k]) for k, v in first[0].items()) and first[1:] == second[1:]


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("dies_in_step", [2, 7])
def test_a_resumed_run_is_the_same_to_the_last_bit(toy, tmp_path, monkeypatch, optimizer, dies_in_step):
    # A checkpoint every 3 steps falls between the rows of metrics, every 4.
    changes = {"optimizer": optimizer, "checkpoint_every": 3}
    run(config(toy, **changes), out=tmp_path / "whole")
    die_in(dies_in_step, monkeypatch, config(toy, **changes), out=tmp_path / "broken")
    result = run(config(toy, **changes), out=tmp_path / "broken")
    assert result["resumed_from"] == ((dies_in_step - 1) // 3 * 3 or None)
    assert same(end_of(tmp_path / "whole"), end_of(tmp_path / "broken"))


def forget_optimizers(monkeypatch):
    monkeypatch.setattr(Optimizers, "load", lambda self, state: None)


def forget_average(monkeypatch):
    load = TrainingState.load.__func__

    def forgetful(cls, *args, **kwargs):
        state = load(cls, *args, **kwargs)
        state.average.load_state_dict(state.model.state_dict())
        return state

    monkeypatch.setattr(TrainingState, "load", classmethod(forgetful))


def forget_counter(name):
    def plant(monkeypatch):
        read = state_room.read_state

        def forgetful(folder):
            tensors, record = read(folder)
            record["counters"][name] = 0
            return tensors, record

        monkeypatch.setattr(state_room, "read_state", forgetful)

    return plant


@pytest.mark.parametrize(
    "plant", [forget_optimizers, forget_average, forget_counter("drawn"), forget_counter("loss_sum")]
)
def test_a_state_that_is_not_restored_is_noticed(toy, tmp_path, monkeypatch, plant):
    run(config(toy, checkpoint_every=3), out=tmp_path / "whole")
    die_in(7, monkeypatch, config(toy, checkpoint_every=3), out=tmp_path / "broken")
    plant(monkeypatch)
    run(config(toy, checkpoint_every=3), out=tmp_path / "broken")
    assert not same(end_of(tmp_path / "whole"), end_of(tmp_path / "broken"))


def test_a_finished_run_says_so_and_changes_nothing(toy, tmp_path):
    first = run(config(toy), out=tmp_path / "run")
    before = end_of(tmp_path / "run")
    second = run(config(toy), out=tmp_path / "run")
    assert second["resumed_from"] == second["steps"] == 12
    assert second["best"] == first["best"]
    assert same(before, end_of(tmp_path / "run"))


def test_a_finished_run_is_not_one_of_other_data(tmp_path):
    samples = toy_samples(24)
    first = config(make_store(tmp_path / "a.h5", samples))
    run(first, out=tmp_path / "run")
    other = config(make_store(tmp_path / "other.h5", samples + toy_samples(1, seed=5)))
    with pytest.raises(ConfigError, match="data have changed"):
        run(other, out=tmp_path / "run")
    (tmp_path / "a.h5").unlink()
    assert run(first, out=tmp_path / "run")["finished"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"lr": 0.5}, "lr was"), ({"model": {"channels": 5}}, "model.channels"), ({"val": 5}, "val was")],
)
def test_another_configuration_is_refused_by_key(toy, tmp_path, changes, key):
    run(config(toy), out=tmp_path / "run")
    with pytest.raises(ConfigError, match=key):
        run(config(toy, **changes), out=tmp_path / "run")


def test_other_data_are_refused_and_a_moved_store_is_not(tmp_path, monkeypatch):
    samples = toy_samples(24)
    make_store(tmp_path / "a.h5", samples)
    make_store(tmp_path / "moved.h5", samples)
    make_store(tmp_path / "other.h5", samples + toy_samples(1, seed=5))
    die_in(7, monkeypatch, config(tmp_path / "a.h5"), out=tmp_path / "run")
    with pytest.raises(ConfigError, match="data have changed"):
        run(config(tmp_path / "other.h5"), out=tmp_path / "run")
    assert run(config(tmp_path / "moved.h5"), out=tmp_path / "run")["resumed_from"] == 4


def test_a_used_folder_is_refused(toy, tmp_path):
    run(config(toy), out=tmp_path / "run")
    with pytest.raises(InputError, match="holds a run"):
        run(config(toy), out=tmp_path / "run", resume="never")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        run(config(toy), out=tmp_path / "else")
    with pytest.raises(ConfigError, match="resume"):
        run(config(toy), out=tmp_path / "new", resume="maybe")


def test_a_damaged_checkpoint_is_one_clear_line(toy, tmp_path):
    run(config(toy), out=tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/last-1")
    (tmp_path / "run/checkpoints/last/state.json").write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        run(config(toy), out=tmp_path / "run")


def test_run_with_a_closed_form_part_goes_on_to_the_same_weights(toy, tmp_path, monkeypatch):
    """The part is fitted again to the same molecules; the errors may differ in the last bits, weights not."""
    settings_of = config(toy, linear="small", max_steps=6)
    whole = run(settings_of, out=tmp_path / "whole")
    die_in(5, monkeypatch, settings_of, out=tmp_path / "run")
    result = run(settings_of, out=tmp_path / "run")
    assert result["resumed_from"] == 4
    states = [load_file(tmp_path / name / "checkpoints/last/state.safetensors") for name in ("whole", "run")]
    weights = [{k: v for k, v in state.items() if k.startswith("network/")} for state in states]
    assert weights[0]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert result["last"]["h_mae_uEh"] == pytest.approx(whole["last"]["h_mae_uEh"], rel=1e-9)
    maps = [load_file(tmp_path / n / "checkpoints/last/model.safetensors") for n in ("whole", "run")]
    name = "targets.fock.parts.linear.maps"
    assert maps[0][name].any()
    assert torch.equal(maps[0][name], maps[1][name])
