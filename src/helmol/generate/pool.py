"""A pool of single-threaded processes that survives the death of any of them."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from helmol.errors import InputError
from helmol.generate.plans import Work
from helmol.generate.worker import Outcome, Task, label, start
from helmol.threads import one_thread

SECONDS_BETWEEN_TICKS = 1.0
CAUSES = "out of memory, or a crash in PySCF"
CAUSES_WITH_LIMIT = "out of memory, a crash in PySCF, or no end in minutes_per_molecule"
SECONDS_TO_DIE = 10.0
"""A killed process is waited for so long; on a busy machine it does not end at once."""


def outcomes(
    structures: Sequence[Work], task: Task, *, workers: int
) -> Generator[Outcome | None, None, None]:
    """Label structures in processes; yield each outcome as it comes, ``None`` now and then.

    When a process dies (killed for memory, a crash inside a library), what was being worked on is
    tried again, one structure alone in a fresh process; one that dies again becomes a failure.
    Closing the generator kills the processes.
    """
    todo, checked = deque(structures), False
    while todo:
        suspects = yield from _work(todo, task, workers)
        if suspects and not checked:
            _check_that_processes_start()
            checked = True
        for suspect in suspects:
            alone = deque([suspect])
            if (yield from _work(alone, task, 1)):
                reason = f"the process died twice ({CAUSES if task.seconds is None else CAUSES_WITH_LIMIT})"
                yield Outcome(suspect, None, reason, 0.0)


def _check_that_processes_start() -> None:
    """Tell a molecule that kills its process from processes that cannot even start.

    Raises:
        InputError: no worker process can be started.
    """
    try:
        with _pool(1, None) as pool, one_thread():
            pool.submit(int).result()
    except BrokenProcessPool as error:
        raise InputError(
            "worker processes die before they begin: a script that generates must be a file, with its calls "
            "under `if __name__ == '__main__':`"
        ) from error


def _work(todo: deque[Work], task: Task, workers: int) -> Generator[Outcome | None, None, list[Work]]:
    """Empty ``todo``, or stop at the death of a process and return what was in flight."""
    running: dict[Future[Outcome], Work] = {}
    with _pool(min(workers, len(todo)), task.memory_mb) as pool:
        while todo or running:
            suspects: list[Work] = []
            # One more than there are processes, so that none waits for this one.
            while todo and not suspects and len(running) <= workers:
                try:
                    with one_thread(), _interrupts_held():
                        running[pool.submit(label, todo[0], task)] = todo[0]
                    todo.popleft()
                except BrokenProcessPool:
                    suspects = list(running.values())
                    running.clear()
            done, _ = wait(running, timeout=SECONDS_BETWEEN_TICKS, return_when=FIRST_COMPLETED)
            if not done:
                yield None
            for future in done:
                structure = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    suspects.append(structure)
                else:
                    yield outcome
            if suspects:
                return suspects + list(running.values())
    return []


@contextmanager
def _pool(workers: int, memory_mb: float | None) -> Iterator[ProcessPoolExecutor]:
    """Provide processes, each with its share of memory, and leave none behind, whatever happens."""
    before = set(multiprocessing.active_children())
    # Not forked: a fork copies threads' locks, and this process may hold a GPU.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start, initargs=(memory_mb,))
    try:
        yield pool
        pool.shutdown()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        children = set(multiprocessing.active_children()) - before
        for child in children:
            child.kill()
        for child in children:
            child.join(SECONDS_TO_DIE)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; processes started meanwhile never see it.

    A terminal sends Ctrl-C to all processes, but only this one may decide what to do about it.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
