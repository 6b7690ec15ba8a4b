"""Folders are replaced whole, whatever happens in between."""

import errno

import pytest
import torch

from helmol.config import parse
from helmol.errors import TrainingError
from helmol.train import TrainConfig, checkpoint, run
from helmol.train.checkpoint import earlier, read_state, recover, replacing_folder, write_state
from toy_store import settings


def write(folder, text):
    with replacing_folder(folder) as new:
        (new / "file").write_text(text)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_folder(tmp_path, error):
    folder = tmp_path / "last"
    write(folder, "old")
    expected = TrainingError if isinstance(error, OSError) else KeyboardInterrupt

    def fail():
        with replacing_folder(folder) as new:
            (new / "file").write_text("half")
            raise error

    with pytest.raises(expected) as caught:
        fail()
    if isinstance(error, OSError):
        assert "no space left" in str(caught.value)
        assert "intact" in str(caught.value)
    assert (folder / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


@pytest.mark.parametrize(
    ("there", "left"),
    [
        ({"last": "old", "last.new": "half"}, "old"),
        ({"last.old": "old", "last.new": "new"}, "new"),
        ({"last": "new", "last.old": "old"}, "new"),
        ({"last.old": "old"}, "old"),
        ({"last.new": "half"}, None),
    ],
)
def test_recovery_after_a_kill_at_any_moment(tmp_path, there, left):
    for name, text in there.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    recover(tmp_path / "last")
    assert [path.name for path in tmp_path.iterdir()] == (["last"] if left else [])
    assert left is None or (tmp_path / "last" / "file").read_text() == left


def test_earlier_ones_are_kept_as_many_as_wanted(tmp_path):
    folder = tmp_path / "last"
    for step in range(5):
        with replacing_folder(folder, n_earlier=2) as new:
            (new / "step").write_text(str(step))
    assert (folder / "step").read_text() == "4"
    assert [(path.name, (path / "step").read_text()) for path in earlier(folder)] == [
        ("last-1", "3"), ("last-2", "2"),
    ]  # fmt: skip
    assert len(list(tmp_path.iterdir())) == 3


def test_state_comes_back_to_the_last_bit(tmp_path):
    tensors = {"a": torch.randn(3, 4), "b": torch.randn(2, dtype=torch.float64), "c": torch.get_rng_state()}
    numbers = {"third": 1 / 3, "n": 7, "none": None, "nested": {"x": [0.1, 1e-300]}}
    write_state(tmp_path, tensors, numbers)
    read, counters = read_state(tmp_path)
    assert all(torch.equal(value, read[name]) for name, value in tensors.items())
    assert counters == numbers


def test_a_full_disk_during_training_keeps_the_checkpoint(toy, tmp_path, monkeypatch):
    """The second checkpoint finds no room; the run goes on from the first when there is room again."""
    config = parse(TrainConfig, settings(toy))
    run(config, out=tmp_path / "whole")
    calls = []

    def full(folder, *args):
        calls.append(folder)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_state(folder, *args)

    with monkeypatch.context() as patch:
        patch.setattr("helmol.train.state.write_state", full)
        with pytest.raises(
            TrainingError, match="no space left on the disk; the checkpoint before it is intact"
        ):
            run(config, out=tmp_path / "run")
    assert checkpoint.read_state(tmp_path / "run/checkpoints/last")[1]["counters"]["step"] == 4
    result = run(config, out=tmp_path / "run")
    assert result["resumed_from"] == 4
    name = "checkpoints/last/state.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
