"""Checkpoints as folders that are replaced whole: safetensors and JSON, nothing executable.

``last`` holds ``model.safetensors`` and ``model.json`` (the averaged weights, a model like any other),
``state.safetensors`` (weights, optimizers, random state) and ``state.json`` (counters, digests of the
tensors and of itself). ``best`` holds the model and ``validation.json``. ``last-1``, ``last-2`` … are those
that ``last`` was before.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from helmol.damage import understood
from helmol.digests import read_described, write_described
from helmol.errors import HelmolError, TrainingError

NEW, OLD = ".new", ".old"
DAMAGED = "damaged"
"""Name of a checkpoint that could not be read when a run went on from an earlier one."""

log = logging.getLogger("helmol.train")


@contextmanager
def replacing_folder(folder: Path, *, n_earlier: int = 0) -> Iterator[Path]:
    """Yield an empty folder beside ``folder`` that takes its place when the block ends well.

    The old one becomes ``NAME-1``, that ``NAME-2`` and so on, as many as ``n_earlier``.

    At every moment either the old or the new folder is complete on the disk; :func:`recover` puts it in
    place after a crash between the two renames. On an error (a full disk, Ctrl-C) the old one stays.

    Raises:
        TrainingError: the folder cannot be written.
    """
    new, old = folder.with_name(folder.name + NEW), folder.with_name(folder.name + OLD)
    recover(folder)
    try:
        new.mkdir(parents=True)
        yield new
        for path in [*sorted(new.iterdir()), new]:
            _sync(path)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        _sync(folder.parent)
    except (OSError, SafetensorError) as error:
        recover(folder)
        kept = "the checkpoint before it is intact" if folder.exists() else "there is no earlier one"
        raise TrainingError(
            f"cannot write the checkpoint {folder}: {_reason(error)}; {kept}; "
            "make room and run the same command again"
        ) from error
    except BaseException:
        recover(folder)
        raise
    # The new one is in place: what fails now costs an earlier one at most.
    with suppress(OSError):
        _push(old, [folder.with_name(f"{folder.name}-{k}") for k in range(1, n_earlier + 1)])
    shutil.rmtree(old, ignore_errors=True)


def _push(newest: Path, places: list[Path]) -> None:
    """Rename a folder to the first of some places, what is there to the second, and so on."""
    if not places or not newest.exists():
        return
    shutil.rmtree(places[-1], ignore_errors=True)
    for path, further in reversed(list(itertools.pairwise(places))):
        if path.exists():
            path.rename(further)
    newest.rename(places[0])


def earlier(folder: Path) -> list[Path]:
    """Return what a checkpoint was before, the latest first."""
    pattern = re.compile(re.escape(folder.name) + r"-(\d+)")
    found = {
        int(match[1]): path
        for path in (folder.parent.iterdir() if folder.parent.is_dir() else ())
        if (match := pattern.fullmatch(path.name))
    }
    return [found[k] for k in sorted(found)]


def settle(folder: Path, check: Callable[[Path], object]) -> None:
    """Put the latest checkpoint that can be read in the place of one that cannot; say so.

    The damaged one is kept beside it. Where none can be read everything stays as it is.

    Args:
        folder: the checkpoint.
        check: raises a :class:`helmol.errors.HelmolError` if one cannot be read.
    """
    before = earlier(folder)
    if not before:
        return
    unreadable: list[tuple[Path, str]] = []
    for path in [folder, *before] if folder.exists() else before:
        try:
            check(path)
        except HelmolError as error:
            unreadable.append((path, " ".join(str(error).split())))
            continue
        if path == folder:
            return
        aside = folder.with_name(DAMAGED)
        for number, (damaged, reason) in enumerate(unreadable):
            log.warning("the checkpoint %s is skipped: %s", damaged, reason)
            if number == 0:
                shutil.rmtree(aside, ignore_errors=True)
                damaged.rename(aside)
                log.warning("it is kept as %s", aside)
            else:
                shutil.rmtree(damaged, ignore_errors=True)
        path.rename(folder)
        log.warning("the run goes on from the checkpoint before it, %s", path.name)
        return


def recover(folder: Path) -> None:
    """Finish or undo a replacement that was cut short; afterwards only ``folder`` is left, or nothing."""
    new, old = folder.with_name(folder.name + NEW), folder.with_name(folder.name + OLD)
    if not folder.exists() and old.exists():
        # The old folder moves away only when the new one is complete.
        (new if new.exists() else old).rename(folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def write_state(folder: Path, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
    """Write tensors and counters into a folder; floats come back to the last bit."""
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_described(folder, "state", save(copies), counters)


def read_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read back :func:`write_state`.

    Raises:
        TrainingError: a file is missing, damaged, or not what was written.
    """
    try:
        data, counters = read_described(folder, "state", error=TrainingError)
        with understood(str(folder / "state.safetensors"), TrainingError):
            return load(data), counters
    except TrainingError as error:
        raise TrainingError(
            f"the training state in {folder} cannot be read ({error}): start again with another --out"
        ) from error


def _sync(path: Path) -> None:
    """Force a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    """Return why a write failed; safetensors wraps the system's error number in text."""
    if getattr(error, "errno", None) == errno.ENOSPC or "code: 28" in str(error):
        return "no space left on the disk"
    return " ".join(str(error).split())
