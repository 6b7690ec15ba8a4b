"""Several processes of one machine, started and watched by torch's own launcher (what ``torchrun`` is)."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from helmol.errors import ConfigError
from helmol.train.ranks import n_processes

SECONDS_TO_SAVE = 600
"""For the processes to finish a step and save it when they are asked to stop, before they are killed; older
torch (2.11) has 30."""


@dataclass(frozen=True)
class Outcome:
    """Hold how the processes ended.

    Attributes:
        signal: that stopped all, 0 if none did.
        codes: exit codes of those that failed by rank, minus the signal's number for one that was killed.
    """

    signal: int
    codes: dict[int, int]

    @property
    def killed(self) -> str | None:
        """Which process somebody has killed, in words."""
        if self.signal:
            return None
        # The launcher itself sends SIGTERM to the others.
        for rank, code in self.codes.items():
            if code < 0 and -code != signal.SIGTERM:
                return f"process {rank} was killed ({signal.Signals(-code).name})"
        return None


def start(n: int, arguments: Sequence[str]) -> Outcome:
    """Run ``python -m helmol ARGUMENTS`` in several processes, which :func:`joined` makes one run of.

    SIGINT, SIGTERM and SIGUSR1 are passed on; the processes then save what they have.

    Args:
        n: processes.
        arguments: verb and options.

    Raises:
        ConfigError: this is one of several processes already.
    """
    if n_processes() > 1:
        raise ConfigError("--processes starts processes by itself: leave it out under torchrun")
    # A second and more to import, which one process has no use for.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with _environment(n), tempfile.TemporaryDirectory(prefix="helmol-") as logs, _usr1_as_term():
        config = LaunchConfig(
            min_nodes=1, max_nodes=1, nproc_per_node=n, max_restarts=0, run_id=uuid.uuid4().hex,
            rdzv_backend="c10d", rdzv_endpoint="localhost:0", local_addr="localhost",
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )  # fmt: skip
        logging.disable(logging.CRITICAL)
        try:
            elastic_launch(config, sys.executable)("-m", "helmol", *arguments)
        except SignalException as error:
            return Outcome(int(error.sigval), {})
        except ChildFailedError as error:
            return Outcome(0, {rank: failure.exitcode for rank, failure in error.failures.items()})
        finally:
            logging.disable(logging.NOTSET)
    return Outcome(0, {})


@contextmanager
def _environment(n: int) -> Iterator[None]:
    """Set what the processes inherit unless the user has set it: threads for each, no chatter."""
    cores = len(os.sched_getaffinity(0))
    wanted = {
        "OMP_NUM_THREADS": str(max(1, cores // n)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SECONDS_TO_SAVE),
    }
    new = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in new})
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


@contextmanager
def _usr1_as_term() -> Iterator[None]:
    """Take SIGUSR1, of which torch's launcher knows nothing, as SIGTERM."""

    def handle(number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)
