"""Executors of clusters: whatever runs a Python function elsewhere and returns a future.

The interface is that of ``concurrent.futures``. Only this process writes the store, so that a label which
was made twice, because a worker died in between, is kept once.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import runpy
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from helmol.config import Config
from helmol.errors import InputError
from helmol.generate.plans import Work
from helmol.generate.worker import Outcome, Task, label
from helmol.threads import one_thread

SECONDS_BETWEEN_TICKS = 1.0

_Lost = tuple[Work, str]
"""Work without outcome, and why."""

log = logging.getLogger("helmol.generate")


class ExecutorConfig(Config):
    """Say who does the work."""

    kind: Literal["processes", "dask", "parsl"] = "processes"
    """``processes`` of this machine (``--workers``), or the workers of ``dask`` or ``parsl``."""

    address: str | None = None
    """Address of a running Dask scheduler, ``tcp://host:8786``."""

    cluster: str = "distributed.LocalCluster"
    """Class of the Dask cluster to start where there is no address, ``dask_jobqueue.SLURMCluster``: one of
    ``distributed``, of a package whose name begins with ``dask``, or of ``coiled``, and nothing else."""

    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of that class, ``{cores: 8, memory: 32GB}``; what a job runs first is among them."""

    jobs: int | None = Field(default=None, ge=1, le=100_000)
    """Jobs to ask that cluster for; ``null`` leaves it as it starts."""

    config: str | None = None
    """Python file that sets ``config`` to a ``parsl.Config``, and is run for it; ``null`` starts
    ``--workers`` processes."""

    attempts: int = Field(default=3, ge=1, le=1000)
    """Times a molecule is tried when its worker dies, before it counts as failed."""


@dataclass(frozen=True)
class Workforce:
    """Hold an executor and how many molecules to give it at a time.

    Attributes:
        executor: takes the work.
        capacity: returns the number of workers, which may change.
    """

    executor: Executor
    capacity: Callable[[], int]


@contextmanager
def started(config: ExecutorConfig, *, workers: int) -> Iterator[Workforce]:
    """Provide the workers of a cluster.

    Raises:
        InputError: Dask or Parsl is missing, or what the spec names does not exist.
    """
    with one_thread(), (_dask if config.kind == "dask" else _parsl)(config, workers) as workforce:
        yield workforce


def cluster_outcomes(
    works: Sequence[Work], task: Task, workforce: Workforce, *, attempts: int = 3
) -> Generator[Outcome | None, None, None]:
    """Label structures on a cluster; yield each outcome as it comes, ``None`` now and then.

    Work whose worker died is handed out again when all else is done, ``attempts`` times in all, the last time
    alone: then it is known who kills the workers, and that is a failure. Closing the generator takes back
    what has not begun.
    """
    lost: list[_Lost] = [(work, "") for work in works]
    for attempt in range(1, attempts + 1):
        alone = attempt == attempts > 1
        batches = [[one] for one in lost] if alone else [lost]
        lost = []
        for batch in batches:
            lost += yield from _round(deque(work for work, _ in batch), task, workforce)
        if not lost:
            return
        log.info("%d molecules lost their worker, %s first", len(lost), lost[0][0].id)
    for work, reason in lost:
        yield Outcome(work, None, f"its worker died or failed: {reason}", 0.0)


def _round(
    todo: deque[Work], task: Task, workforce: Workforce
) -> Generator[Outcome | None, None, list[_Lost]]:
    """Hand out work once and return what came back without outcome, with the reasons."""
    running: dict[Future[Outcome], Work] = {}
    lost: list[_Lost] = []
    try:
        while todo or running:
            # Twice as many as there are workers, so that none waits for this process.
            while todo and len(running) < 2 * max(1, workforce.capacity()):
                work = todo.popleft()
                running[workforce.executor.submit(label, work, task)] = work
            done, _ = wait(running, timeout=SECONDS_BETWEEN_TICKS, return_when=FIRST_COMPLETED)
            if not done:
                yield None
            for future in done:
                work = running.pop(future)
                error = _error(future)
                if error is None:
                    yield future.result()
                elif isinstance(error, (BrokenExecutor, CancelledError)):
                    raise InputError(f"the executor is gone ({error}): run the same command again") from error
                else:
                    lost.append((work, _line(error)))
    finally:
        for future in running:
            future.cancel()
    return lost


def _error(future: Future[Outcome]) -> BaseException | None:
    """Return what went wrong, also if the future was cancelled."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _line(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


@contextmanager
def _dask(config: ExecutorConfig, workers: int) -> Iterator[Workforce]:
    """Connect to a Dask cluster, or start one."""
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError("the executor 'dask' needs Dask: pip install 'helmol[dask]'") from error
    if config.address is not None:
        try:
            client = Client(config.address, timeout=20)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise InputError(f"no Dask scheduler answers at {config.address}: {_line(error)}") from error
        with client, _executor(client) as workforce:
            yield workforce
        return
    kind = _cluster_class(config.cluster)
    options = dict(config.options)
    if config.cluster == "distributed.LocalCluster":
        options = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0", **options}
    try:
        started = kind(**options)
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{config.cluster} cannot be started with these options: {_line(error)}") from error
    with started as cluster:
        if config.jobs is not None:
            cluster.scale(jobs=config.jobs)
        with Client(cluster) as client, _executor(client) as workforce:
            yield workforce


CLUSTER_PACKAGES = re.compile(r"(distributed|dask\w*|coiled)(\.\w+)*\.\w+")
"""What a cluster class may be called: importing a module runs it, so not any module is imported."""

FACTORIES = ("distributed.SSHCluster",)
"""Functions that stand for a class."""


def _cluster_class(path: str) -> Any:
    """Return a class of Dask clusters by its name; nothing else is imported, let alone called.

    Raises:
        InputError: there is none of this name.
    """
    from distributed.deploy import Cluster

    if not CLUSTER_PACKAGES.fullmatch(path):
        raise InputError(
            f"no Dask cluster class {path!r}: expected one of distributed, of a package called dask..., or "
            "of coiled; for any other, start it yourself and give its address"
        )
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"no Dask cluster class {path!r}: {error}") from error
    if path not in FACTORIES and not (isinstance(found, type) and issubclass(found, Cluster)):
        raise InputError(f"no Dask cluster class {path!r}: it is a {type(found).__name__}, not such a class")
    return found


@contextmanager
def _executor(client: Any) -> Iterator[Workforce]:
    """Provide the executor of a Dask client; at the end nothing is waited for.

    Not ``pure``: else work that is handed out again would get the old failure back.
    """
    executor = client.get_executor(pure=False)
    try:
        yield Workforce(executor, lambda: sum(client.nthreads().values()))
    finally:
        executor.shutdown(wait=False)


@contextmanager
def _parsl(config: ExecutorConfig, workers: int) -> Iterator[Workforce]:
    """Start Parsl."""
    try:
        import parsl
        from parsl.concurrent import ParslPoolExecutor
    except ImportError as error:
        raise InputError("the executor 'parsl' needs Parsl: pip install 'helmol[parsl]'") from error
    # Parsl starts programs of its own by name; they lie beside this Python, which need not be on the PATH.
    beside = str(Path(sys.executable).parent)
    if beside not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([beside, os.environ.get("PATH", os.defpath)])
    if config.config is not None:
        try:
            settings = runpy.run_path(config.config)["config"]
        except Exception as error:  # It is somebody's program: whatever it raises is said in one line.
            what = f"{config.config} is no Python file that sets 'config'"
            raise InputError(f"{what}: {_line(error)}") from error
        if not isinstance(settings, parsl.Config):
            kind = type(settings).__name__
            raise InputError(f"{config.config} sets 'config' to a {kind}, expected a parsl.Config")
    else:
        local = parsl.executors.HighThroughputExecutor(
            label="helmol", max_workers_per_node=workers, cpu_affinity="none", address="127.0.0.1"
        )
        settings = parsl.Config(
            executors=[local], initialize_logging=False, run_dir=tempfile.mkdtemp(prefix="helmol-parsl-")
        )
    with ParslPoolExecutor(config=settings) as executor:
        yield Workforce(executor, lambda: _parsl_workers(settings, workers))


def _parsl_workers(settings: Any, workers: int) -> int:
    """Return how many workers the blocks of all Parsl executors have at most."""
    total = 0
    for executor in settings.executors:
        blocks = getattr(getattr(executor, "provider", None), "max_blocks", 1)
        total += blocks * getattr(executor, "max_workers_per_node", workers)
    return int(total)
