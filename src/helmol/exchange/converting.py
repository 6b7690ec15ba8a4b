"""From a store to a container of another kind, and back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from helmol import dft
from helmol.basis import BasisSet
from helmol.damage import DAMAGE, one_line
from helmol.errors import HelmolError, InputError
from helmol.exchange.arrays import sample_from
from helmol.exchange.containers import CONTAINERS, HEADER, NOTE, Container, Folder
from helmol.files import entries
from helmol.locks import Claim
from helmol.progress import Progress
from helmol.store import Store
from helmol.store.unfinished import unfinished
from helmol.system import LevelOfTheory, Sample

SAMPLES_PER_APPEND = 128
FORMAT = "helmol store 1"


def export_store(path: Path, to: str, *, out: Path, split: str | None = None) -> dict[str, Any]:
    """Write the samples of a store for other programs; all of it can come back by :func:`import_store`.

    After a kill the same call goes on.

    Args:
        path: the store.
        to: key of ``CONTAINERS``.
        out: folder (``npz``, ``extxyz``) or file (``qh9``), new.
        split: only this split.

    Returns:
        ``n_molecules``, ``to``, ``out``.

    Raises:
        InputError: unknown format, ``out`` is there, or a basis that PySCF has under another hash.
        BusyError: another process writes ``out``.
    """
    if to not in CONTAINERS:
        raise InputError(f"unknown format {to!r}: known are {', '.join(CONTAINERS)} and store")
    folder = issubclass(CONTAINERS[to], Folder)
    _refuse_if_there(out, folder)
    with Claim(out, folder=folder), Store.open(path) as store:
        _refuse_if_there(out, folder)
        rows = range(len(store)) if split is None else store.indices(split)
        config = dft.level_from(store.level)
        if (
            store.basis.elements
            and dft.basis_set(config, store.basis.elements).elements != store.basis.elements
        ):
            raise InputError(f"{path}: PySCF has other functions under the name {store.basis.name!r}")
        container = CONTAINERS[to](out)
        ids = [store.ids[row] for row in rows]
        order = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        container.begin(f"{store.content_hash} {order}")
        with Progress("Convert", total=len(rows), unit="molecules") as bar:
            for row in rows:
                try:
                    container.write(_with_fock(store[row]), store.basis, config)
                except HelmolError:
                    container.abandon()
                    raise
                bar.advance()
        chosen = set(ids)
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
    return {"n_molecules": len(rows), "to": to, "out": out}


def _refuse_if_there(out: Path, folder: bool) -> None:
    """Raise InputError where something stands that a conversion could overwrite.

    A folder with a note is one that a kill left, one with temporary files alone as well.
    """
    if not out.exists() or (folder and out.is_dir() and ((out / NOTE).exists() or not entries(out))):
        return
    raise InputError(f"{out} is there already: choose another --out")


def import_store(path: Path, *, out: Path) -> dict[str, Any]:
    """Make a store of what :func:`export_store` wrote; equal to the first one in every label.

    After a kill the same call goes on.

    Returns:
        ``n_molecules``, ``content_hash``, ``out``.

    Raises:
        InputError: not written by :func:`export_store`, or damaged.
    """
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
        bar.advance(len(store))
        waiting: list[Sample] = []
        for arrays in container.samples(len(store)):
            waiting.append(_sample(arrays, basis, path))
            bar.advance()
            if len(waiting) >= SAMPLES_PER_APPEND:
                store.append(waiting)
                waiting = []
        store.append(waiting)
        store.set_splits(splits)
        return {"n_molecules": len(store), "content_hash": store.content_hash, "out": out}


def _with_fock(sample: Sample) -> Sample:
    """Return the sample; one of energy and forces alone is an error."""
    if not sample.matrices.fock.size:
        raise InputError(f"{sample.id!r} has no Fock matrix: these formats are for samples that have one")
    return sample


def _sample(arrays: Mapping[str, Any], basis: BasisSet, path: Path) -> Sample:
    """Return a sample; an error names it."""
    try:
        return sample_from(arrays, basis)
    except (HelmolError, *DAMAGE) as error:
        raise InputError(f"{path}, sample {str(arrays.get('id', '?'))[:100]!r}: {one_line(error)}") from error


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
