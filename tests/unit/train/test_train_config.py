"""Configurations in sections, short forms, those of helmol 0.1, and what is said of a wrong one."""

import json

import pytest
import yaml

from helmol.config import merged, parse, read_yaml
from helmol.errors import ConfigError
from helmol.train import TrainConfig, combined, read_config, run
from helmol.train.plan import make_plan
from helmol.train.sweep import read_sweep
from helmol.train.updates import FLAT, MAIN, config_v2, setting_v2
from toy_store import TINY, settings

FLAT_VALUES = {
    "data": "x.h5", "train": 5, "val": "test", "split_seed": 3, "cache_mb": 7.0, "task": "both",
    "init": "runs/x", "new_head": True, "freeze": True, "backbone_lr_factor": 0.3, "head_warmup_steps": 4,
    "preset": "nano", "model": {"channels": 6}, "readout": "linear", "forces": "direct", "target": "fock",
    "linear": "small", "centring": False, "scaling": False, "loss": "huber", "blocks": "diagonal",
    "loss_weights": "scales",
    "orbital_loss": "occupied", "orbital_weight": 2.0, "orbital_stage": 0.5, "energy_loss": "mse",
    "energy_weight": 0.2, "force_weight": 0.4, "hamiltonian_weight": 0.6, "optimizer": "adamw", "lr": 0.1,
    "muon_lr": 0.2, "betas": [0.5, 0.6], "momentum": 0.7, "weight_decay": 0.8, "clip_norm": 0.9,
    "max_steps": 8, "max_minutes": 9.0, "max_cpu_minutes": 10.0, "edges_per_batch": 11, "warmup_steps": 12,
    "ema_decay": 0.13, "seed": 14, "device": "cpu", "n_threads": 15, "dtype": "float32", "precision": "bf16",
    "validate_every": 16, "checkpoint_every": 17, "max_skipped": 18,
}  # fmt: skip
"""All keys of 0.1, each with another value than its default (dtype apart, which precision fixes)."""

SECTIONS = {
    "data": {"store": "x.h5", "train": 5, "val": "test", "split_seed": 3, "cache_mb": 7.0},
    "task": "both",
    "init": {
        "model": "runs/x", "new_head": True, "freeze": True, "backbone_lr_factor": 0.3,
        "head_warmup_steps": 4,
    },
    "model": {
        "preset": "nano", "channels": 6, "heads": {"energy": {"readout": "linear", "forces": "direct"}},
    },
    "target": {"matrix": "fock", "linear": "small", "centring": False, "scaling": False},
    "loss": {
        "fock": {
            "kind": "huber", "blocks": "diagonal", "weights": "scales", "orbital": "occupied",
            "orbital_weight": 2.0, "orbital_stage": 0.5,
        },
        "energy": "mse", "fock_weight": 0.6, "energy_weight": 0.2, "force_weight": 0.4,
    },
    "optimizer": {
        "kind": "adamw", "lr": 0.1, "muon_lr": 0.2, "betas": [0.5, 0.6], "momentum": 0.7, "weight_decay": 0.8,
        "clip_norm": 0.9,
    },
    "schedule": {
        "max_steps": 8, "max_minutes": 9.0, "max_cpu_minutes": 10.0, "edges_per_batch": 11,
        "warmup_steps": 12, "ema_decay": 0.13,
    },
    "run": {
        "seed": 14, "device": "cpu", "n_threads": 15, "dtype": "float32", "precision": "bf16",
        "validate_every": 16, "checkpoint_every": 17, "max_skipped": 18,
    },
}  # fmt: skip


def config(**data):
    return parse(TrainConfig, {"data": "x.h5", **data}, source="f.yaml")


def test_every_key_of_before_has_its_place():
    assert config_v2(FLAT_VALUES) == config_v2(SECTIONS) == SECTIONS
    assert {*FLAT, *MAIN, "task"} == {*FLAT_VALUES, "loss.fock"}
    dumped = parse(TrainConfig, FLAT_VALUES).model_dump(mode="json")
    assert dumped["run"].pop("keep_checkpoints") == 2  # a key of later
    assert dumped == SECTIONS
    default = config().model_dump(mode="json")
    same = {
        f"{name}.{key}"
        for name, section in SECTIONS.items()
        if isinstance(section, dict)
        for key, value in section.items()
        if default[name].get(key) == value
    }
    assert same == {"data.store", "run.dtype"}


def test_values_stand_for_main_keys():
    short = config(init="runs/x", model="nano", target="fock", loss="mse", optimizer="adamw")
    assert short == config(
        data={"store": "x.h5"}, init={"model": "runs/x"}, model={"preset": "nano"}, target={"matrix": "fock"},
        loss={"fock": {"kind": "mse"}}, optimizer={"kind": "adamw"},
    )  # fmt: skip
    assert config(loss={"fock": "mse", "force_weight": 1.0}).loss.fock.kind == "mse"
    assert config(loss=None, schedule=None, init=None) == config()


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"schedule": {"max_step": 3}}, "unknown key 'schedule.max_step'; did you mean 'max_steps'?"),
        ({"schedule": {"lr": 3}}, "unknown key 'schedule.lr'; did you mean 'optimizer.lr'?"),
        ({"run": {"validate_evry": 3}}, "unknown key 'run.validate_evry'; did you mean 'validate_every'?"),
        ({"max_step": 3}, "unknown key 'max_step'; did you mean 'schedule.max_steps'?"),
        ({"max_step": 3, "lr": 0.1}, "unknown key 'max_step'; did you mean 'max_steps'?"),
        ({"channels": 3}, "unknown key 'channels'; did you mean 'model.channels'?"),
        ({"zzz": 3}, "unknown key 'zzz'; known keys: data, task, init"),
        ({"model": {"chanels": 3}}, "model: unknown key 'chanels'; did you mean 'channels'?"),
        ({"model": {"heads": {"energy": {"readot": 3}}}}, "unknown key 'readot'; did you mean 'readout'?"),
        ({"model": {"preset": "nan"}}, "model.preset: unknown preset; did you mean 'nano'?"),
        (
            {"lr": 1, "run": {"seed": 3}},
            "'lr' stands beside the section 'run': in sections it is 'optimizer.lr'",
        ),
        ({"data": {"store": "x"}, "seed": 3}, "'seed' stands beside the section 'data'"),
        ({"preset": "nano", "model": "nano"}, "'preset' stands beside the section 'model'"),
        ({"schema": 2, "seed": 3}, "'seed' stands in a file of schema 2: in sections it is 'run.seed'"),
        ({"schema": 3}, "schema 3 of the configuration: this helmol reads 1 to 2"),
        ({"schedule": 3}, "schedule: Input should be a section with keys (got 3)"),
        ({"init": {"freeze": True}}, "init: freeze keeps the backbone of init.model, which is not given"),
    ],
)
def test_a_wrong_key_gets_one_line(data, line):
    with pytest.raises(ConfigError) as error:
        config(**data)
    assert str(error.value).startswith("f.yaml: ")
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def write(path, data):
    path.write_text(yaml.safe_dump(data))
    return path


def test_settings_of_the_command_line_fit_files_of_both_kinds(tmp_path):
    flat = write(tmp_path / "flat.yaml", {"data": "x.h5", "lr": 0.1, "train": 5})
    new = write(tmp_path / "new.yaml", {"data": {"store": "x.h5", "train": 5}, "optimizer": {"lr": 0.1}})
    given = ["loss=mse", "seed=3", "model=nano", "max_minutes=2", "model.channels=6", "readout=linear"]
    today = [setting_v2(setting) for setting in given]
    assert today[:2] == ["loss.fock.kind=mse", "run.seed=3"]
    assert setting_v2("loss={fock: mse}") == "loss={fock: mse}"
    results = [read_config(path, sets) for path in (flat, new) for sets in (given, today)]
    assert all(result == results[0] for result in results)
    assert results[0].model.heads["energy"]["readout"] == "linear"
    assert (results[0].data.train, results[0].schedule.max_minutes, results[0].optimizer.lr) == (5, 2, 0.1)


def test_sweeps_of_both_kinds_are_one(tmp_path):
    flat = {
        "base": {"data": "x.h5", "preset": "nano", "lr": 0.1},
        "cases": {"a": {}, "b": {"target": "fock"}},
    }
    new = {
        "base": {"data": "x.h5", "model": "nano", "optimizer": {"lr": 0.1}},
        "cases": {"a": {}, "b": {"target": {"matrix": "fock"}}},
    }
    sets = ["base.data=y.h5", "cases.a.seed=1", "base.linear=none"]
    sweeps = [read_sweep(write(tmp_path / "s.yaml", data), sets[:1] + sets[2:]) for data in (flat, new)]
    for case in "ab":
        first, second = (sweep.training(case, 4) for sweep in sweeps)
        assert first == second
        assert (str(first.data.store), first.target.linear, first.run.seed) == ("y.h5", "none", 4)
    with pytest.raises(ConfigError, match="'seed' is set by the sweep"):
        read_sweep(tmp_path / "s.yaml", sets).training("a", 0)


def test_parts_are_combined_key_by_key():
    parts = (
        {"preset": "nano", "seed": 3},
        {"model": {"channels": 6}},
        {"init": "a"},
        {"init": None, "seed": 4},
    )
    assert combined(*parts) == {
        "model": {"preset": "nano", "channels": 6}, "run": {"seed": 4}, "init": {"model": None},
    }  # fmt: skip
    data = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert merged(data, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert data == {"a": {"b": 1, "c": 2}, "d": [1]}


def test_a_run_of_flat_keys_goes_on_with_its_file_in_sections(toy, tmp_path):
    """Also where its checkpoint has the keys of before."""
    out, flat = tmp_path / "run", settings(toy, max_steps=2)
    first = run(parse(TrainConfig, flat), out=out)
    written = read_yaml(out / "config.yaml")
    assert written["schema"] == 2
    assert written["model"] == make_plan(parse(TrainConfig, flat)).resolved()["model"]
    assert {key: written["model"][key] for key in TINY} == TINY
    assert run(parse(TrainConfig, written), out=out)["best"] == first["best"]
    record = out / "checkpoints/last/state.json"
    state = json.loads(record.read_text())
    assert config_v2(state["fingerprint"]["config"]) == state["fingerprint"]["config"]
    with pytest.raises(ConfigError, match=r"cannot resume .*: optimizer\.lr was 0\.004 and is 0\.1"):
        run(parse(TrainConfig, {**flat, "lr": 0.1}), out=out)
