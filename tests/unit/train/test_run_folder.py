"""A run folder belongs to one process; leftovers block nothing; damage is named; kills lose nothing."""

import json
import os
import random
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from forked import child, in_child, killed_after, together, tried
from helmol.config import parse
from helmol.errors import BusyError, ConfigError, InputError, TrainingError
from helmol.locks import Claim
from helmol.train import TrainConfig, combined, loop, run
from helmol.train.checkpoint import read_state
from helmol.train.folder import open_folder
from helmol.train.state import TrainingState, check_whole, read_record
from helmol.train.sweep import SweepConfig, run_sweep
from toy_store import settings

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Save the half second of drawing per run."""
    monkeypatch.setattr("helmol.train.launch.plot_learning_curve", lambda folder: None)


QUICK = {"checkpoint_every": 2, "max_steps": 6, "validate_every": 3}


def config(toy, *, keep=1, **changes):
    """A run that keeps no checkpoint but the last."""
    return parse(TrainConfig, combined(settings(toy, **changes), {"run": {"keep_checkpoints": keep}}))


def end_of(folder):
    """Return the bytes of the last model and state."""
    last = folder / "checkpoints" / "last"
    return [(last / f"{name}.safetensors").read_bytes() for name in ("model", "state")]


@pytest.fixture(scope="module")
def whole(toy, tmp_path_factory):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(config(toy, **QUICK), out=folder)
    return folder


@pytest.fixture(scope="module")
def dead(toy, tmp_path_factory):
    """A run that died after its second checkpoint."""

    def die(counters, loss, norm, config):
        if counters.step == 5:
            raise RuntimeError("died")
        return count(counters, loss, norm, config)

    count, folder = loop._count, tmp_path_factory.mktemp("dead") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_count", die)
        with pytest.raises(RuntimeError, match="died"):
            run(config(toy, keep=2, checkpoint_every=2), out=folder)
    return folder


@pytest.fixture
def interrupted(dead, tmp_path):
    """A copy of it."""
    folder = shutil.copytree(dead, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "last-1")
    return folder


@pytest.mark.parametrize(
    ("size", "line"), [("2", "LOCAL_RANK, MASTER_ADDR"), (" 3 ", "RANK"), ("many", "WORLD_SIZE is 'many'")]
)
def test_processes_that_cannot_meet_are_refused_before_anything_is_written(
    toy, tmp_path, monkeypatch, size, line
):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match=line):
        run(config(toy), out=tmp_path / "run")
    sweep = SweepConfig(base=settings(toy), cases={"a": {}})
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        run_sweep(sweep, out=tmp_path / "sweep")
    assert list(tmp_path.iterdir()) == []


def test_one_process_of_a_launcher_trains(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run(config(toy, max_steps=1), out=tmp_path / "run")["finished"]


def test_of_two_processes_one_trains_and_the_other_says_who(toy, whole, tmp_path):
    settings_of = config(toy, **QUICK)
    outcomes = together([lambda: run(settings_of, out=tmp_path / "run")["finished"]] * 2)
    assert [outcome.get("ok") for outcome in outcomes].count(True) == 1
    (refused,) = [outcome["refused"] for outcome in outcomes if "refused" in outcome]
    assert refused.startswith(f"{tmp_path / 'run'} is in use: process ")
    assert end_of(tmp_path / "run") == end_of(whole)
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_folder_that_is_held_is_refused_at_once_and_a_refused_one_left_as_it_was(toy, tmp_path):
    with Claim(tmp_path / "run", folder=True), pytest.raises(BusyError, match="has been writing it since"):
        run(config(toy), out=tmp_path / "run")
    (tmp_path / "file").write_text("mine")
    for out, words in ((tmp_path / "file", "is a file"), (tmp_path / "file" / "run", "file")):
        with pytest.raises((InputError, NotADirectoryError), match=words):
            run(config(toy), out=out)
    with pytest.raises(ConfigError, match="train"):
        run(config(toy, train="nothing"), out=tmp_path / "new" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


LEFT = {
    "a log of a run that never began": ["log.txt"],
    "temporary files of helmol 0.1": [".config-a8hd73bq.yaml", ".split-00000000.json", "log.txt"],
    "temporary files": [".config.yaml.elsewhere-1-00000000.part", ".lock"],
    "a description": ["config.yaml", "split.json", "environment.json", "log.txt", "metrics.csv"],
    "half a first checkpoint": ["config.yaml", "log.txt", "checkpoints/last.new/model.safetensors"],
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_what_an_earlier_start_left_blocks_no_run(toy, tmp_path, left):
    for name in left:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("")
    result = run(config(toy, max_steps=1), out=tmp_path / "run")
    assert (result["resumed_from"], result["steps"]) == (None, 1)


@pytest.mark.parametrize(
    "there",
    [["thesis.txt"], ["config.yaml", "thesis.txt"], ["config.yaml", "checkpoints/epoch=3.ckpt"], ["plots"]],
)
def test_files_of_somebody_else_are_neither_joined_nor_removed(toy, tmp_path, there):
    for name in there:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        run(config(toy), out=tmp_path / "run")
    assert all((tmp_path / "run" / name).read_text() == "mine" for name in there)


def test_a_changed_bit_of_the_state_is_refused_and_named(toy, interrupted, many, rng):
    """The optimizers' moments are what a wrong run would not show for long."""
    path = interrupted / "checkpoints" / "last" / "state.safetensors"
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little") + 8
    for position in rng.integers(header, len(data), size=many(100, 5000)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(
            TrainingError, match=r"has changed since it was written in (network|optimizer|random)/"
        ):
            read_state(path.parent)
    with pytest.raises(TrainingError, match="start again with another --out"):
        run(config(toy, checkpoint_every=2), out=interrupted)
    path.write_bytes(data)
    assert run(config(toy, checkpoint_every=2), out=interrupted)["resumed_from"] == 4


def test_every_file_of_a_checkpoint_may_be_damaged_anywhere(toy, interrupted, many, rng):
    """Flip bits and cut: what would go on is the same to the last bit, or there is one line."""
    last, settings_of = interrupted / "checkpoints" / "last", config(toy, checkpoint_every=2)

    def load():
        state = TrainingState.load(last, settings_of, device=torch.device("cpu"))
        tensors = {**state.model.state_dict(), **state.optimizers.state()}
        return {
            **tensors,
            **{f"average {n}": t for n, t in state.average.state_dict().items()},
        }, state.counters

    whole, counters = load()
    files = {path: path.read_bytes() for path in last.iterdir()}
    refused = 0
    for _ in range(many(60, 3000)):
        path = sorted(files)[rng.integers(len(files))]
        damaged = bytearray(files[path])
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged if rng.integers(4) else damaged[: rng.integers(len(damaged))])
        result, refusal = tried(load)
        refused += refusal is not None
        if result is not None:
            assert result[1] == counters
            assert result[0].keys() == whole.keys()
            assert all(torch.equal(tensor, result[0][name]) for name, tensor in whole.items())
        path.write_bytes(files[path])
    assert refused > many(60, 3000) // 2


@pytest.mark.parametrize(
    "change",
    [
        {"counters": {"step": "x"}}, {"counters": None}, {"counters": {"step": 1.5}}, {"fingerprint": 3},
        {"fingerprint": {}}, {"fingerprint": {"config": None}}, {"schema": "x"}, {"schema": 99},
    ],
)  # fmt: skip
@pytest.mark.parametrize("seal", [True, False])
def test_an_edit_of_the_counters_is_one_line(toy, interrupted, change, seal):
    """Also where no digest tells, in a checkpoint of helmol 0.1."""
    path = interrupted / "checkpoints" / "last" / "state.json"
    data = {**json.loads(path.read_text()), **change}
    if not seal:
        del data["digest"], data["digests"]
    path.write_text(json.dumps(data))
    result, refusal = tried(run, config(toy, checkpoint_every=2), out=interrupted)
    assert result is None
    assert refusal


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("split.json", "[" * 100_000), ("split.json", '{"train": 3}'), ("environment.json", "5"),
        ("environment.json", "{}"), ("metrics.csv", "step\n1\n\x00\n"),
        ("checkpoints/best/validation.json", "{"), ("checkpoints/best/validation.json", '{"digest": "x"}'),
    ],
)  # fmt: skip
def test_a_damaged_file_of_the_folder_is_one_line_or_does_not_matter(toy, interrupted, name, text):
    (interrupted / name).parent.mkdir(exist_ok=True)
    (interrupted / name).write_text(text)
    result, refusal = tried(run, config(toy, checkpoint_every=2), out=interrupted)
    assert result["finished"] if result else refusal


def damage(path):
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["state.safetensors", "model.safetensors", "state.json", "model.json"])
def test_the_checkpoint_before_a_damaged_one_is_gone_on_from(toy, dead, tmp_path, caplog, name):
    """To the same bits, with lines that say which was skipped and which taken; nothing is thrown away."""
    folder = shutil.copytree(dead, tmp_path / "run")
    checkpoints = folder / "checkpoints"
    assert {path.name for path in checkpoints.iterdir()} >= {"last", "last-1"}
    damage(checkpoints / "last" / name)
    data = (checkpoints / "last" / name).read_bytes()
    settings_of = config(toy, keep=2, checkpoint_every=2, max_steps=12)
    if name != "state.safetensors":
        # What is taken is the same whichever file is damaged; to the end goes one of them.
        assert open_folder(folder, "auto", check_whole)
    else:
        result = run(settings_of, out=folder)
        assert result["resumed_from"] == 2
        run(settings_of, out=tmp_path / "whole")
        assert end_of(folder) == end_of(tmp_path / "whole")
        assert read_record(checkpoints / "last-1")[1].step == 10
    assert f"the checkpoint {checkpoints / 'last'} is skipped: " in caplog.text
    assert "the run goes on from the checkpoint before it, last-1" in caplog.text
    assert (checkpoints / "damaged" / name).read_bytes() == data


def test_where_no_checkpoint_is_whole_everything_stays(toy, dead, tmp_path):
    folder = shutil.copytree(dead, tmp_path / "run")
    for name in ("last", "last-1"):
        damage(folder / "checkpoints" / name / "state.safetensors")
    before = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}
    with pytest.raises(TrainingError, match="cannot be read"):
        run(config(toy, keep=2, checkpoint_every=2), out=folder)
    assert {path: path.read_bytes() for path in folder.rglob("*.safetensors")} == before


def test_tensors_of_another_checkpoint_are_refused(toy, interrupted):
    last = interrupted / "checkpoints" / "last"
    tensors = load_file(last / "model.safetensors")
    name = sorted(tensors)[0]
    save_file({**tensors, name: tensors[name] + 1}, last / "model.safetensors")
    with pytest.raises(InputError, match="has changed since it was written in"):
        run(config(toy, checkpoint_every=2), out=interrupted)


def test_killed_at_any_moment_the_same_command_ends_in_the_same_bits(toy, whole, tmp_path, many):
    rng, settings_of = random.Random(5), config(toy, **QUICK)
    for turn in range(many(1, 30)):
        out, kills = tmp_path / f"run-{turn}", 0
        while (
            outcome := killed_after(lambda out=out: run(settings_of, out=out)["finished"], wait(rng, kills))
        ) != {"ok": True}:
            assert outcome == {"died": -9}
            kills += 1
        assert end_of(out) == end_of(whole)
        assert in_child(lambda out=out: run(settings_of, out=out)["steps"]) == {"ok": 6}
        assert not [path for path in out.rglob("*") if path.suffix in (".new", ".old", ".part", ".lock")]


def wait(rng, kills):
    """Return how long a process lives: longer and longer, so that a slow machine gets to the end as well."""
    return rng.uniform(0, 0.5) * 2**kills


def test_a_killed_run_holds_its_folder_no_longer(toy, tmp_path):
    process, read = child(lambda: run(config(toy, max_steps=10_000), out=tmp_path / "run"))
    while not (tmp_path / "run" / "checkpoints" / "last").exists():
        time.sleep(0.02)
    with pytest.raises(BusyError, match=f"process {process} on"):
        run(config(toy, max_steps=10_000), out=tmp_path / "run")
    os.kill(process, 9)
    os.waitpid(process, 0)
    os.close(read)
    with pytest.raises(ConfigError, match="max_steps was"):
        run(config(toy), out=tmp_path / "run")
