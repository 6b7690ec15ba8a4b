"""Join stores of one level of theory."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helmol.basis import BasisSet
from helmol.errors import InputError, StoreError
from helmol.letters import text_of
from helmol.progress import Progress
from helmol.store.packed import Store
from helmol.store.unfinished import unfinished
from helmol.system import LevelOfTheory, Sample

SAMPLES_PER_APPEND = 256
MUST_AGREE = ("method", "xc_resolved", "grid_level", "density_fit", "auxbasis", "dispersion")
"""Parts of a level of theory that decide whether labels belong together; so do the bases. ``None`` of an
auxiliary basis that was not written down is another one than any."""

log = logging.getLogger("helmol.store")


def merge(paths: Sequence[Path], out: Path, *, rename: bool = False) -> dict[str, Any]:
    """Write all samples of some stores into a new one, which gets its name when it is whole.

    A sample that stands twice, the same to the last bit, is kept once. A label that some samples lack, such
    as forces, stays missing there. Splits are joined by name. SCF thresholds and programs may differ: the
    loosest threshold and all programs are noted. After a kill the same call goes on; an error in the stores
    leaves nothing.

    Args:
        paths: the stores.
        out: the new store.
        rename: whether to put the name of its store before an id that stands for different samples.

    Returns:
        ``n_molecules``, ``n_twice`` (kept once), ``n_renamed``, ``splits`` (sizes), ``content_hash``.

    Raises:
        InputError: fewer than two stores.
        StoreError: levels or bases differ, different samples of one id, ``out`` exists.
    """
    if len(paths) < 2 or len({os.path.realpath(path) for path in paths}) < len(paths):
        raise InputError("two or more different stores are needed to merge")
    level, basis, total, of = _joined(paths)
    splits: dict[str, dict[str, None]] = {}
    twice = renamed = 0
    with (
        unfinished(out, of=f"{of} {rename}", level=level, basis=basis) as target,
        Progress("Merge", total=total, unit="molecules") as bar,
    ):
        arrivals = _Arrivals(target)
        for path in paths:
            names, same = _copy(path, arrivals, rename=rename, bar=bar)
            twice, renamed = twice + same, renamed + sum(new != old for old, new in names.items())
            with Store.open(path) as store:
                for name, ids in store.splits.items():
                    # A dictionary as an ordered set: what stood in both stores counts once.
                    splits.setdefault(name, {}).update(dict.fromkeys(names[id] for id in ids))
        sizes = _set_splits(target, splits)
        return {
            "store": out, "n_molecules": len(target), "n_twice": twice, "n_renamed": renamed,
            "splits": sizes, "content_hash": target.content_hash,
        }  # fmt: skip


class _Arrivals:
    """Add samples in order; those that an earlier, interrupted merge added already are passed by.

    Args:
        target: the store to fill, perhaps begun.
    """

    def __init__(self, target: Store) -> None:
        self._target, self._waiting, self._n_before = target, list[Sample](), len(target)
        self._rows: dict[str, int] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._rows

    def digest(self, id: str) -> bytes:
        """Return the digest of a sample that has arrived."""
        self.flush()
        return bytes(self._target.values("digest", self._rows[id]).tobytes())

    def add(self, id: str, read: Callable[[], Sample]) -> None:
        """Add a sample under an id; it is read only if it is not there."""
        row = len(self._rows)
        self._rows[id] = row
        if row < self._n_before:
            if self._target.ids[row] != id:
                raise StoreError(f"the interrupted merge has {self._target.ids[row]!r} where {id!r} belongs")
            return
        self._waiting.append(replace(read(), id=id))
        if len(self._waiting) >= SAMPLES_PER_APPEND:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self._target.append(self._waiting)
        self._waiting = []


def _joined(paths: Sequence[Path]) -> tuple[LevelOfTheory, BasisSet, int, str]:
    """Return level, basis and number of samples of all stores together, and what tells them from others."""
    with Store.open(paths[0]) as first:
        level, basis, total = first.level, first.basis, len(first)
        contents = [_content(first)]
    codes = [level.code]
    for path in paths[1:]:
        with Store.open(path) as store:
            for name in MUST_AGREE:
                if (mine := getattr(store.level, name)) != (theirs := getattr(level, name)):
                    raise StoreError(
                        f"{path} has {name} = {mine}, {paths[0]} has {theirs}: labels of different levels "
                        "of theory do not go into one store"
                    )
            try:
                basis = basis.merged(store.basis)
            except InputError as error:
                raise StoreError(f"{path} and {paths[0]}: {error}") from error
            level = replace(level, conv_tol=max(level.conv_tol, store.level.conv_tol))
            codes += [store.level.code] if store.level.code not in codes else []
            total += len(store)
            contents.append(_content(store))
    return replace(level, code="; ".join(codes)), basis, total, " ".join(contents)


def _content(store: Store) -> str:
    """Return what decides which samples a store adds, in which order and under which ids."""
    order = hashlib.sha256("\n".join(store.ids).encode()).hexdigest()
    return f"{store.path.stem} {store.content_hash} {order}"


def _copy(path: Path, target: _Arrivals, *, rename: bool, bar: Progress) -> tuple[dict[str, str], int]:
    """Copy one store; return the new id of every old one, and how many were there already."""
    names: dict[str, str] = {}
    same = 0
    with Store.open(path) as store:
        for row, id in enumerate(store.ids):
            bar.advance()
            names[id] = id
            if id in target:
                if target.digest(id) == store.values("digest", row).tobytes():
                    same += 1
                    continue
                if not rename:
                    raise StoreError(
                        f"{path} and a store before it have different samples called {id!r}: "
                        "--rename puts the store's name before such ids"
                    )
                names[id] = f"{text_of(path.stem)}/{id}"
            target.add(names[id], functools.partial(store.read, row))
        target.flush()
    return names, same


def _set_splits(target: Store, splits: Mapping[str, Mapping[str, None]]) -> dict[str, int]:
    """Write the joined splits, unless a sample would be in two of them."""
    owners = [id for ids in splits.values() for id in ids]
    if len(set(owners)) < len(owners):
        log.warning("some samples are in different splits of the stores: no split is kept; see helmol split")
        return {}
    target.set_splits({name: list(ids) for name, ids in splits.items()})
    return {name: len(ids) for name, ids in splits.items()}
