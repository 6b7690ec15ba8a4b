"""``helmol train`` in processes of its own: kill -9, Ctrl-C, bad input."""

import json
import signal
import subprocess
import sys
import time

import pytest
import yaml

from toy_store import make_store, settings

COMMAND = [sys.executable, "-c", "import typer; from helmol.cli.train import train; typer.run(train)"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with a store, a configuration of 60 steps, and a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("restart")
    data = make_store(folder / "toy.h5")
    changes = {"max_steps": 60, "validate_every": 5, "checkpoint_every": 3}
    (folder / "train.yaml").write_text(yaml.safe_dump(settings(data, **changes)))
    assert finish(folder, "whole").returncode == 0
    return folder


def arguments(folder, out, *more):
    return [*COMMAND, str(folder / "train.yaml"), "--out", str(folder / out), *more]


def finish(folder, out, *more):
    return subprocess.run(arguments(folder, out, *more), capture_output=True, text=True, timeout=120)


def begin_and_signal(folder, out, number, *, after_step):
    """Run until a checkpoint of at least some step, send a signal; return exit code and stderr."""
    process = subprocess.Popen(
        arguments(folder, out), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while step_of(folder / out) < after_step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    return process.returncode, text


def step_of(run):
    try:
        return json.loads((run / "checkpoints/last/state.json").read_text())["counters"]["step"]
    except (FileNotFoundError, json.JSONDecodeError):
        return 0


def bits(run):
    """Return the tensors' bytes and the metrics without the column of seconds."""
    names = ("last/state", "last/model", "best/model")
    tensors = [(run / "checkpoints" / f"{name}.safetensors").read_bytes() for name in names]
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    column = rows[0].index("seconds")
    return tensors, [row[:column] + row[column + 1 :] for row in rows]


def test_killed_twice_and_resumed_is_never_killed(place):
    out = "killed"
    for step in (6, 21):
        code, _ = begin_and_signal(place, out, signal.SIGKILL, after_step=step)
        assert code == -signal.SIGKILL
        assert step_of(place / out) < 60
    done = finish(place, out)
    assert done.returncode == 0, done.stderr
    assert "resumed from step" in done.stderr
    assert bits(place / out) == bits(place / "whole")


def test_ctrl_c_ends_with_130_and_one_line(place):
    code, text = begin_and_signal(place, "interrupted", signal.SIGINT, after_step=6)
    assert code == 130
    assert "Traceback" not in text
    assert text.count("is saved") == 1
    assert step_of(place / "interrupted") >= 6


def test_finished_run_says_so(place):
    done = finish(place, "whole", "--json", str(place / "result.json"))
    assert done.returncode == 0
    assert "finished already" in done.stdout
    assert f"next: helmol evaluate {place / 'whole'}" in done.stdout
    assert json.loads((place / "result.json").read_text())["best"]["h_mae_uEh"] > 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "max_stepps=3"), "did you mean 'schedule.max_steps'"),
        (("--set", "data=nowhere.h5"), "nowhere.h5"),
        (("--set", "lr=0.5", "--out", "{whole}"), "lr was 0.004 and is 0.5"),
        (("--device", "tpu"), "device"),
    ],
)
def test_bad_input_is_one_line(place, more, message):
    more = [part.format(whole=place / "whole") for part in more]
    done = finish(place, "bad", *more)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (place / "bad").exists()
