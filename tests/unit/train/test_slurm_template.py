"""The job of the documentation does what it says, beside stand-ins for SLURM's commands."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "many_processes.md"


@pytest.fixture
def place(tmp_path):
    """A folder with the job and commands that write down how they are called."""
    job, direct = re.findall(
        r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8").split("## SLURM")[1], re.S
    )
    (tmp_path / "job.sh").write_text(job)
    (tmp_path / "direct.sh").write_text(direct)
    commands = {
        "scontrol": '[ "$1" = show ] && printf "node7\\nnode8\\n"; true',
        "scancel": "touch stop",
        # A step that lasts until it is asked to stop.
        "srun": "for i in $(seq 400); do [ -e stop ] && exit 1; [ -e finish ] && exit 0; sleep 0.02; done",
    }
    for name, text in commands.items():
        path = tmp_path / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> calls\n{text}\n')
        path.chmod(0o755)
    return tmp_path


def started(place):
    variables = {
        "SLURM_JOB_ID": "42", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "32",
        "SLURM_JOB_NODELIST": "node[7-8]", "PATH": f"{place}:{os.environ['PATH']}",
    }  # fmt: skip
    process = subprocess.Popen(["bash", "job.sh"], cwd=place, env=variables)
    end = time.monotonic() + 20
    while not ((place / "calls").exists() and "srun" in (place / "calls").read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return process


def test_a_job_whose_time_is_up_is_queued_again(place):
    process = started(place)
    process.send_signal(signal.SIGUSR1)
    process.wait(timeout=20)
    calls = (place / "calls").read_text().splitlines()
    assert calls[0] == "scontrol show hostnames node[7-8]"
    assert calls[1] == (
        "srun torchrun --nnodes 2 --nproc-per-node gpu --rdzv-id 42 --rdzv-backend c10d --rdzv-endpoint "
        "node7:29500 -m helmol train water.yaml --out runs/water"
    )
    assert calls[2:] == ["scancel --signal=TERM 42.0", "scontrol requeue 42"]


def test_a_job_that_is_finished_is_not(place):
    process = started(place)
    (place / "finish").touch()
    assert process.wait(timeout=20) == 0
    assert "requeue" not in (place / "calls").read_text()
    assert subprocess.run(["bash", "-n", place / "direct.sh"], check=False).returncode == 0
