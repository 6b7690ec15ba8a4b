"""What one process of the pool does: label one structure, and never raise."""

from __future__ import annotations

import multiprocessing.process
import os
import threading
import time
import warnings
from dataclasses import dataclass

from helmol import dft
from helmol.errors import HelmolError
from helmol.structures import Structure
from helmol.system import Sample


@dataclass(frozen=True)
class Task:
    """Hold what is the same for all structures of a data set."""

    level: dft.LevelConfig
    forces: bool
    references: tuple[str, ...]
    density: bool


@dataclass(frozen=True)
class Outcome:
    """Hold the label of a structure, or the reason why there is none.

    Attributes:
        structure: what was to be labelled.
        sample: the labels, or ``None``.
        reason: why there are none, one line, or ``None``.
        seconds: CPU time.
    """

    structure: Structure
    sample: Sample | None
    reason: str | None
    seconds: float


def label(structure: Structure, task: Task) -> Outcome:
    """Label one structure."""
    begin = time.process_time()
    sample, reason = None, None
    try:
        sample, _ = dft.run(
            structure.molecule,
            task.level,
            id=structure.id,
            forces=task.forces,
            references=task.references,
            density=task.density,
            provenance=structure.provenance,
        )
    except HelmolError as error:
        reason = str(error)
    except MemoryError:
        reason = "out of memory"
    except Exception as error:  # One odd molecule must not end the work on all others.
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return Outcome(structure, sample, reason, time.process_time() - begin)


def start() -> None:
    """Prepare a process of the pool."""
    warnings.simplefilter("ignore")
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A killed parent cannot tell its workers; without this they would wait for ever.
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: multiprocessing.process.BaseProcess) -> None:
    """Wait for the end of the parent, then end this process."""
    parent.join()
    os._exit(1)
