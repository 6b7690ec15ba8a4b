"""``helmol train --processes``: one run by torch's launcher, started and stopped."""

import signal
import subprocess
import sys
import time

import pytest
import yaml

from toy_store import make_store, settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    changes = {"max_steps": 2000, "validate_every": 2000, "checkpoint_every": 3}
    (folder / "train.yaml").write_text(yaml.safe_dump(settings(make_store(folder / "toy.h5"), **changes)))
    return folder


def started(place):
    """Start two processes; return the launcher once there is a checkpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "helmol", "train", "train.yaml", "--out", "run", "--processes", "2"],
        cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (place / "run/checkpoints/last").exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def test_asked_to_stop_they_save_and_say_so_once(place):
    process = started(place)
    process.send_signal(signal.SIGUSR1)
    _, text = process.communicate(timeout=120)
    lines = text.strip().splitlines()
    assert process.returncode == 75
    assert lines.count("2 processes share every batch:") == 1
    assert lines[-1].startswith("helmol train: stopped by SIGTERM; step ")
    assert not any("Traceback" in line or "torch.distributed" in line for line in lines)
    assert sum("stopped by" in line for line in lines) == 1
