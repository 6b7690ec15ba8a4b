"""A store that is being made: under another name until it is whole, and gone on with after a kill."""

from __future__ import annotations

import glob
import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helmol.basis import BasisSet
from helmol.errors import HelmolError, StoreError
from helmol.files import short_name
from helmol.store.journal import journal_path, set_aside
from helmol.store.packed import Store, claimed
from helmol.system import LevelOfTheory

_MARK = re.compile(r"\.[0-9a-f]{12}\.part$")

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
    with claimed(out):
        if out.exists():
            raise StoreError(f"{out} exists already: choose another name")
        name = short_name(out.name)
        part = out.with_name(
            f".{name}.{hashlib.sha256(of.encode(errors='surrogateescape')).hexdigest()[:12]}.part"
        )
        for old in out.parent.glob(f".{glob.escape(name)}.*.part"):
            if old != part and _MARK.search(old.name):
                log.info("%s is of something else and removed", old)
                _remove(old)
        with _begun(part, level=level, basis=basis) as store:
            if len(store):
                log.info("going on after %d samples that are there already", len(store))
            try:
                yield store
            except HelmolError:
                store.close()
                _remove(part)
                raise
            except BaseException:
                log.info("what is done is kept in %s; the same command goes on", part)
                raise
        set_aside(out)
        part.replace(out)


def _begun(part: Path, *, level: LevelOfTheory, basis: BasisSet) -> Store:
    """Open what a killed block left, or begin anew where there is nothing of use."""
    if part.exists():
        try:
            return Store.open(part, "a")
        except StoreError as error:
            log.warning("%s; it is begun anew", error)
            _remove(part)
    return Store.create(part, level=level, basis=basis)


def _remove(part: Path) -> None:
    """Remove an unfinished store, its journal first: that of another file is never left."""
    with claimed(part):
        journal_path(part).unlink(missing_ok=True)
        part.unlink(missing_ok=True)
