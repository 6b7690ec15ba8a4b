"""A store that is being made: under another name until it is whole, and gone on with after a kill."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helmol.basis import BasisSet
from helmol.errors import HelmolError, StoreError
from helmol.store.journal import journal_path
from helmol.store.packed import Store
from helmol.system import LevelOfTheory

log = logging.getLogger("helmol.store")


@contextmanager
def unfinished(out: Path, *, of: str, level: LevelOfTheory, basis: BasisSet) -> Iterator[Store]:
    """Provide a store beside ``out`` that gets its name when the block ends well.

    What a killed block left is provided again, with the samples it has, if it was made of the same; what was
    made of something else is removed. An error in the input leaves nothing, any other end of the block (a
    full disk, Ctrl-C) leaves the samples so far.

    Args:
        out: the store to make.
        of: says what it is made of and how; two that are equal must add the same samples in the same order.
        level: of the store.
        basis: of the store.

    Raises:
        StoreError: ``out`` is there, or another process is making it.
    """
    if out.exists():
        raise StoreError(f"{out} exists already: choose another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.{hashlib.sha256(of.encode()).hexdigest()[:12]}.part")
    for old in out.parent.glob(f".{out.name}.*.part"):
        if old != part:
            log.info("%s is of something else and removed", old)
            _remove(old)
    store = Store.open(part, "a") if part.exists() else Store.create(part, level=level, basis=basis)
    if len(store):
        log.info("going on after %d samples that are there already", len(store))
    try:
        with store:
            yield store
        part.replace(out)
    except HelmolError:
        _remove(part)
        raise
    except BaseException:
        log.info("what is done is kept in %s; the same command goes on", part)
        raise


def _remove(part: Path) -> None:
    """Remove an unfinished store."""
    part.unlink(missing_ok=True)
    journal_path(part).unlink(missing_ok=True)
