"""Generation on a cluster: workers may be killed; each molecule is done once, or listed with a reason."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import distributed
import pytest

from helmol import generate
from helmol.dft import LevelConfig
from helmol.errors import InputError
from helmol.generate import ExecutorConfig, GenerateConfig, StructuresConfig
from helmol.generate.cluster import Workforce, cluster_outcomes
from helmol.generate.records import Records
from helmol.generate.worker import Outcome, Task, label
from helmol.store import Store
from helmol.structures import Structure
from helmol.system import Molecule

HF = LevelConfig(xc="hf", basis="sto-3g", grid_level=0)
N = 40


def hydrogen(k: int) -> Molecule:
    return Molecule.from_angstrom([1, 1], [[0, 0, 0], [0, 0, 0.6 + 0.005 * k]])


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two worker processes; a piece of work may cost two of them at a time."""
    quiet = {"distributed.scheduler.allowed-failures": 1, "distributed.admin.log-length": 0}
    with (
        dask.config.set(quiet),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as found,
    ):
        yield found


@pytest.fixture
def spec(tmp_path: Path, cluster: Any) -> GenerateConfig:
    frames = (f"2\n\nH 0 0 0\nH 0 0 {0.6 + 0.005 * k:.4f}\n" for k in range(N))
    (tmp_path / "h2.xyz").write_text("".join(frames))
    return GenerateConfig(
        structures=StructuresConfig(files=(str(tmp_path / "h2.xyz"),)),
        level=HF,
        references=(),
        executor=ExecutorConfig(kind="dask", address=cluster.scheduler_address),
    )


def kill_one_worker(cluster: Any, out: Path, pids: list[int]) -> None:
    """Kill a worker process as soon as the store has been begun."""
    deadline = time.monotonic() + 60
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    worker = next(iter(cluster.workers.values()))
    pids.append(worker.pid)
    os.kill(worker.pid, signal.SIGKILL)


def test_with_a_worker_killed_each_molecule_is_done_once(
    spec: GenerateConfig, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, pids, seen = tmp_path / "x.h5", list[int](), list[str]()
    add = Records.add

    def counted(self: Records, outcome: Outcome) -> None:
        seen.append(outcome.work.id)
        time.sleep(0.05)
        add(self, outcome)

    killer = threading.Thread(target=kill_one_worker, args=(cluster, out, pids))
    with monkeypatch.context() as patch:
        patch.setattr(Records, "add", counted)
        killer.start()
        result = generate.run(spec, out=out)
        killer.join()
    assert pids
    assert sorted(seen) == [f"h2-{k:05d}" for k in range(N)]
    assert (result["n_labelled"], result["n_failed"]) == (N, 0)
    with Store.open(out) as store:
        assert sorted(store.ids) == sorted(seen)
        assert store.verify() == []
    assert "Data card" in Path(f"{out}.card.md").read_text()
    assert json.loads(Path(f"{out}.splits.json").read_text()) == {}


def test_interrupted_on_a_cluster_a_rerun_completes(
    spec: GenerateConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, add, count = tmp_path / "x.h5", Records.add, list[int]()

    def interrupted(self: Records, outcome: Outcome) -> None:
        add(self, outcome)
        count.append(1)
        if len(count) == 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Records, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate.run(spec, out=out)
    # Another executor may go on: it decides who makes the labels, not what they are.
    here = spec.model_copy(update={"executor": ExecutorConfig()})
    result = generate.run(here, out=out, workers=1)
    assert (result["n_labelled"], result["n_new"]) == (N, N - 10)


def test_what_kills_its_workers_is_listed(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(work: Structure, task: Task) -> Outcome:
        if work.id == "m1":
            os._exit(3)
        return label(work, task)

    monkeypatch.setattr("helmol.generate.cluster.label", deadly)
    works = [Structure(f"m{k}", hydrogen(k)) for k in range(4)]
    with distributed.Client(cluster) as client, client.get_executor(pure=False) as executor:
        workforce = Workforce(executor, lambda: 2)
        task = Task(HF, False, (), False)
        found = [o for o in cluster_outcomes(works, task, workforce, attempts=2) if o is not None]
    assert sorted(o.work.id for o in found) == ["m0", "m1", "m2", "m3"]
    (failed,) = [o for o in found if o.sample is None]
    assert failed.work.id == "m1"
    assert "worker died" in failed.reason
    assert "KilledWorker" in failed.reason


class Forgetful(Executor):
    """Loses its first two pieces of work, as a batch system does."""

    def __init__(self) -> None:
        self.lost, self.threads = 0, ThreadPoolExecutor(1)

    def submit(self, *args: Any, **keys: Any) -> Future[Any]:
        if self.lost < 2:
            self.lost += 1
            future: Future[Any] = Future()
            future.set_exception(OSError("node gone"))
            return future
        return self.threads.submit(*args, **keys)


@pytest.mark.parametrize(("attempts", "n_failed"), [(3, 0), (1, 2)])
def test_lost_work_is_tried_again(attempts: int, n_failed: int) -> None:
    works, executor = [Structure(f"m{k}", hydrogen(k)) for k in range(3)], Forgetful()
    with executor.threads:
        task, workforce = Task(HF, False, (), False), Workforce(executor, lambda: 1)
        found = [o for o in cluster_outcomes(works, task, workforce, attempts=attempts) if o is not None]
    assert sorted(o.work.id for o in found) == ["m0", "m1", "m2"]
    assert [o.reason for o in found if o.reason] == [
        "its worker died or failed: OSError: node gone"
    ] * n_failed


def test_an_executor_that_is_not_there_is_named(spec: GenerateConfig, tmp_path: Path) -> None:
    executor = ExecutorConfig(kind="dask", cluster="distributed.NoSuchCluster")
    with pytest.raises(InputError, match="no Dask cluster class"):
        generate.run(spec.model_copy(update={"executor": executor}), out=tmp_path / "y.h5")
