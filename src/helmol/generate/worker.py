"""What a worker does: make one structure if need be, label it, and never raise."""

from __future__ import annotations

import multiprocessing.process
import os
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Literal

from helmol import dft
from helmol.errors import HelmolError, InputError
from helmol.generate.limits import limit_memory, within
from helmol.generate.plans import Plan, Work
from helmol.repeats import collected
from helmol.system import Molecule, Sample

SMALLEST_MEMORY_MB = 100
"""PySCF is never told to use less."""


@dataclass(frozen=True)
class Task:
    """Hold what is the same for all structures of a data set.

    Attributes:
        level: level of theory.
        forces: whether to compute forces.
        references: cheap Fock matrices to keep.
        density: whether to keep density matrices.
        dipole: whether to compute dipole moments.
        memory_mb: what one worker may use; ``None`` is not checked.
        engine: what computes; ``auto`` is decided where the worker runs.
        seconds: wall time for one molecule; ``None``: as long as it takes.
    """

    level: dft.LevelConfig
    forces: bool
    references: tuple[str, ...]
    density: bool
    dipole: bool = True
    memory_mb: float | None = None
    engine: Literal["auto", "cpu", "gpu"] = "cpu"
    seconds: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Hold the label of a structure, or the reason why there is none.

    Attributes:
        work: what was to be labelled.
        sample: the labels, or ``None``.
        reason: why there are none, one line, or ``None``.
        seconds: CPU time.
        warned: what was warned of meanwhile.
    """

    work: Work
    sample: Sample | None
    reason: str | None
    seconds: float
    warned: tuple[str, ...] = ()


def label(work: Work, task: Task) -> Outcome:
    """Make and label one structure."""
    begin = time.process_time()
    with collected() as warned:
        sample, reason = _labelled(work, task)
    return Outcome(work, sample, reason, time.process_time() - begin, tuple(warned))


def _labelled(work: Work, task: Task) -> tuple[Sample | None, str | None]:
    """Return the labels, or why there are none."""
    try:
        with within(task.seconds):
            structure = work.make() if isinstance(work, Plan) else work
            sample, _ = dft.run(
                structure.molecule,
                _fitting(structure.molecule, task),
                id=structure.id,
                forces=task.forces,
                references=task.references,
                density=task.density,
                dipole=task.dipole,
                engine=dft.choose_engine(task.engine, task.level),
                provenance=structure.provenance,
            )
        return sample, None
    except HelmolError as error:
        return None, str(error)
    except MemoryError:
        return None, "out of memory"
    except Exception as error:  # One odd molecule must not end the work on all others.
        return None, f"{type(error).__name__}: {' '.join(str(error).split())}"


def _fitting(molecule: Molecule, task: Task) -> dft.LevelConfig:
    """Return the level with as much memory for integrals as the worker has left.

    Raises:
        InputError: the molecule would not fit at all.
    """
    if task.memory_mb is None:
        return task.level
    needed = dft.needed_mb(molecule, task.level)
    if needed > task.memory_mb:
        raise InputError(
            f"skipped: {molecule.formula} needs about {needed:.0f} MB, a worker has {task.memory_mb:.0f} MB "
            "(memory_per_worker_mb)"
        )
    allowed = max(SMALLEST_MEMORY_MB, min(task.level.max_memory_mb, int(task.memory_mb)))
    return task.level.model_copy(update={"max_memory_mb": allowed})


def start(memory_mb: float | None = None) -> None:
    """Prepare a process of the pool, which is to hold so much memory."""
    warnings.simplefilter("ignore")
    limit_memory(memory_mb)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A killed parent cannot tell its workers; without this they would wait for ever.
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the end of the parent, then end this process."""
    parent.join()
    os._exit(1)
