"""The rate at which training data come out of a store."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from helmol.bench.cases import Case, domain, molecules
from helmol.errors import InputError
from helmol.graph import collate
from helmol.store import Store
from helmol.system import Matrices, Sample
from helmol.target import stored_items
from helmol.target.matrix import DEFAULT_TARGET

BATCH = 64
MOST_SAMPLES = 1024
MOST_VALUES = 4_000_000
"""Matrix elements in the store that is made for the measurement."""


def data_rate(case: Case, *, cutoff: float, repeats: int = 5) -> dict[str, Any]:
    """Measure reading, checking, preparing and joining samples of a case, on one core.

    A store of random matrices is written first; what is timed begins with its file (which the
    operating system has in memory) and ends with the batch: random rows, checksums compared,
    ``F − H₀``, irreps of every block, :func:`helmol.graph.collate`. Nothing is kept between samples.
    """
    with tempfile.TemporaryDirectory(prefix="helmol-bench-") as folder:
        path = _write(Path(folder) / "case.h5", case)
        return store_rate(path, target=DEFAULT_TARGET, cutoff=cutoff, repeats=repeats)


def store_rate(path: Path, *, target: str, cutoff: float, repeats: int = 5) -> dict[str, Any]:
    """Measure :func:`data_rate` on a store of the user.

    Returns:
        ``samples_per_second`` and ``microseconds_per_sample`` (wall time) of the best repeat,
        ``samples_per_cpu_second``, which other processes disturb less, ``n_samples``,
        ``megabytes_per_second`` of Fock matrices, ``target``, ``batch``.
    """
    best = best_cpu = float("inf")
    for repeat in range(repeats):
        with Store.open(path) as store:
            order = np.random.default_rng(repeat).permutation(len(store)).tolist()[:MOST_SAMPLES]
            start, start_cpu = time.perf_counter(), time.process_time()
            for first in range(0, len(order), BATCH):
                collate(stored_items(store, order[first : first + BATCH], cutoff=cutoff, target=target))
            seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
            n_ao = [int(store.basis.offsets(store.numbers(row))[-1]) for row in order]
        best, best_cpu = min(best, seconds / len(order)), min(best_cpu, cpu / len(order))
    return {
        "samples_per_second": 1 / best,
        "samples_per_cpu_second": 1 / best_cpu,
        "microseconds_per_sample": 1e6 * best,
        "megabytes_per_second": 8e-6 * float(np.mean([n * (n + 1) / 2 for n in n_ao])) / best,
        "n_samples": len(order),
        "target": target,
        "batch": BATCH,
    }


def usual_target(path: Path) -> str:
    """Return the target that a training on a store would have: with a reference where there is one.

    Raises:
        InputError: the store is empty.
    """
    with Store.open(path) as store:
        if not len(store):
            raise InputError(f"{path} is empty: there is nothing to read")
        return next((f"fock-minus-{name}" for name in store.references), "fock")


def _write(path: Path, case: Case) -> Path:
    """Write a store of random matrices."""
    own = domain(case)
    n_ao = int(own.basis.offsets(case.numbers)[-1])
    n = max(1, min(MOST_SAMPLES, 2 * MOST_VALUES // (n_ao * n_ao)))
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(n_ao, n_ao))
    fock, reference = matrix + matrix.T, matrix * matrix.T
    name = DEFAULT_TARGET.removeprefix("fock-minus-")
    made = molecules(Case(case.numbers, n, case.shells), seed=1)
    with Store.create(path, level=own.level, basis=own.basis) as store:
        store.append([Sample(str(k), m, Matrices(fock, None, {name: reference})) for k, m in enumerate(made)])
    return path
