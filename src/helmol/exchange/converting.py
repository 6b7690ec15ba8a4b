"""From a store to a container of another kind, and back."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from helmol import dft
from helmol.basis import BasisSet
from helmol.damage import DAMAGE, one_line
from helmol.errors import HelmolError, InputError
from helmol.exchange.arrays import sample_from
from helmol.exchange.check import refuse_other_functions
from helmol.exchange.containers import CONTAINERS, HEADER, NOTE, Container, Folder
from helmol.files import entries
from helmol.letters import text_of
from helmol.locks import Claim
from helmol.places import PathLike
from helmol.progress import Progress
from helmol.repeats import in_one_call
from helmol.skipped import FAULTS, Skips
from helmol.store import Store
from helmol.store.unfinished import unfinished
from helmol.system import LevelOfTheory, Sample

SAMPLES_PER_APPEND = 128
LONGEST_ID = 200
"""Characters of an id in a message."""
FORMAT = "helmol store 1"


@in_one_call()
def export_store(
    path: PathLike, to: str, *, out: PathLike, split: str | None = None, strict: bool = False
) -> dict[str, Any]:
    """Write the samples of a store for other programs; all of it can come back by :func:`import_store`.

    After a kill the same call goes on. A sample that cannot be read or written is left out.

    Args:
        path: the store.
        to: key of ``CONTAINERS``.
        out: folder (``npz``, ``extxyz``) or file (``qh9``), new.
        split: only this split.
        strict: whether the first sample that would be left out is an error.

    Returns:
        ``n_molecules``, ``to``, ``out``, ``n_skipped`` and ``skipped`` (:class:`helmol.skipped.Skipped`).

    Raises:
        InputError: unknown format, ``out`` is there, a basis that PySCF has under another hash, or not one
            sample that can be written.
        BusyError: another process writes ``out``.
    """
    if to not in CONTAINERS:
        raise InputError(f"unknown format {to!r}: known are {', '.join(CONTAINERS)} and store")
    out, skips = Path(out), Skips(strict=strict)
    folder = issubclass(CONTAINERS[to], Folder)
    _refuse_if_there(out, folder)
    with Claim(out, folder=folder), Store.open(path) as store:
        _refuse_if_there(out, folder)
        rows = range(len(store)) if split is None else store.indices(split)
        config = dft.level_from(store.level)
        refuse_other_functions(store, config)
        container = CONTAINERS[to](out)
        if store.level.n_spins == 2 and not container.takes_unrestricted:
            raise InputError(f"{path} is unrestricted: format {to!r} has one Fock matrix per molecule")
        ids = [store.id(row) for row in rows]
        order = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        container.begin(f"{store.content_hash} {order}", ids)
        chosen: set[str] = set()
        try:
            with Progress("Convert", total=len(rows), unit="molecules") as bar:
                for row, id in zip(rows, ids, strict=True):
                    try:
                        container.write(_with_fock(store[row]), store.basis, config)
                        chosen.add(id)
                    except FAULTS as error:
                        skips.add(error, item=id, file=path, row=row)
                    bar.advance()
            skips.refuse_nothing_left(len(chosen))
        except HelmolError:
            container.abandon()
            raise
        splits = {name: [id for id in ids if id in chosen] for name, ids in store.splits.items()}
        container.finish(
            {
                "format": FORMAT,
                "ao_order": "pyscf",
                "level": store.level.to_json(),
                "basis": store.basis.to_json(),
                "splits": {name: ids for name, ids in splits.items() if ids},
            }
        )
    return {"n_molecules": len(chosen), "to": to, "out": out, **skips.json()}


def _refuse_if_there(out: Path, folder: bool) -> None:
    """Raise InputError where something stands that a conversion could overwrite.

    A folder with a note is one that a kill left, one with temporary files alone as well.
    """
    if not out.exists() or (folder and out.is_dir() and ((out / NOTE).exists() or not entries(out))):
        return
    raise InputError(f"{out} is there already: choose another --out")


@in_one_call()
def import_store(path: PathLike, *, out: PathLike, strict: bool = False) -> dict[str, Any]:
    """Make a store of what :func:`export_store` wrote; equal to the first one in every label.

    After a kill the same call goes on. A sample that is missing or damaged is left out.

    Args:
        path: folder or file.
        out: the store, new.
        strict: whether the first sample that would be left out is an error.

    Returns:
        ``n_molecules``, ``content_hash``, ``out``, ``n_skipped`` and ``skipped``
        (:class:`helmol.skipped.Skipped`).

    Raises:
        InputError: not written by :func:`export_store`, damaged as a whole, or not one sample is whole.
    """
    path, out, skips = Path(path), Path(out), Skips(strict=strict)
    container = _container(path)
    header = container.header()
    if header.get("format") != FORMAT:
        raise InputError(f"{path} says its format is {header.get('format')!r}, expected {FORMAT!r}")
    try:
        basis = BasisSet.from_json(header["basis"])
        level = LevelOfTheory.from_json(header["level"])
        splits = {name: list(ids) for name, ids in header["splits"].items()}
    except (HelmolError, *DAMAGE) as error:
        raise InputError(
            f"{path}: the header is damaged ({type(error).__name__}: {one_line(error)})"
        ) from error
    if out.exists():
        raise InputError(f"{out} is there already: choose another --out")
    total = header.get("files")
    of = f"{os.path.realpath(path)!a} {json.dumps(header, sort_keys=True)}"
    with (
        unfinished(out, of=of, level=level, basis=basis) as store,
        Progress("Convert", total=len(total) if isinstance(total, list) else 0, unit="molecules") as bar,
    ):
        waiting: dict[str, Sample] = {}
        for stored in container.samples():
            bar.advance()
            item = text_of(stored.file.name) if stored.row is None else f"row {stored.row}"
            try:
                arrays = stored.read()
                item = str(arrays.get("id", item))[:LONGEST_ID]
                if item in store:
                    continue
                if item in waiting:
                    raise InputError("a sample of this id stands there twice")
                waiting[item] = sample_from(arrays, basis)
            except FAULTS as error:
                skips.add(error, item=item, file=stored.file, row=stored.row)
            if len(waiting) >= SAMPLES_PER_APPEND:
                store.append(list(waiting.values()))
                waiting = {}
        store.append(list(waiting.values()))
        skips.refuse_nothing_left(len(store))
        store.set_splits({name: [id for id in ids if id in store] for name, ids in splits.items()})
        return {
            "n_molecules": len(store), "content_hash": store.content_hash, "out": out, **skips.json(),
        }  # fmt: skip


def _with_fock(sample: Sample) -> Sample:
    """Return the sample; one of energy and forces alone is an error."""
    if not sample.matrices.fock.size:
        raise InputError("it has no Fock matrix: these formats are for samples that have one")
    return sample


def _container(path: Path) -> Container:
    """Tell the kind of a container by its files."""
    if path.is_file():
        return CONTAINERS["qh9"](path)
    if not (path / HEADER).is_file():
        raise InputError(
            f"{path} holds no {HEADER}: not written (to its end) by 'helmol convert'; for published files "
            "see 'helmol import'"
        )
    return CONTAINERS["extxyz" if (path / "structures.extxyz").exists() else "npz"](path)
