"""One molecule may take so much time and memory, and no more, whatever the library does that it is in."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from helmol.dft import LevelConfig
from helmol.generate.limits import TimeIsUp, limit_memory, within
from helmol.generate.pool import outcomes
from helmol.generate.worker import Task
from stuck import Stuck

HF = LevelConfig(xc="hf", basis="sto-3g", grid_level=0)
TESTS = Path(__file__).parents[2]


def test_time_is_up_and_the_next_one_has_its_own() -> None:
    begin = time.monotonic()
    for _ in range(2):
        with (
            pytest.raises(TimeIsUp, match=r"took longer than 0.005 minutes \(minutes_per_molecule\)"),
            within(0.3),
        ):
            time.sleep(600)
    assert time.monotonic() - begin < 60
    with within(0.3):
        pass
    time.sleep(0.5)  # nothing is left that would strike now
    with within(None):
        time.sleep(0.01)


def test_a_library_that_does_not_listen_ends_with_its_process() -> None:
    code = "from helmol.generate.limits import within; from stuck import hang\nwith within(1.0): hang()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_molecules_without_end_and_with_too_much_cost_only_themselves() -> None:
    works = [Stuck(how, (1, 1), (), 0, how) for how in ("sleep", "memory", "nothing")]
    task = Task(HF, False, (), False, memory_mb=800.0, seconds=10.0)
    # The last one has to be labelled within its time, on a busy machine too.
    found = {o.work.id: o for o in outcomes(works, task, workers=1) if o is not None}
    assert "took longer than" in str(found["sleep"].reason)
    assert found["memory"].reason == "out of memory"
    assert found["nothing"].sample is not None


def test_no_limit_is_no_limit() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_memory(None)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
