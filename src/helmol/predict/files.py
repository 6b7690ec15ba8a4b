"""Predict everything in a file and write one ``.npz`` per molecule and a table."""

from __future__ import annotations

import csv
import io
import itertools
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.errors import DomainError, InputError
from helmol.files import write_text
from helmol.predict.prediction import Prediction
from helmol.predict.trained import TrainedModel
from helmol.progress import Progress
from helmol.properties import frontier
from helmol.store import Store
from helmol.system import Molecule
from helmol.units import EV_PER_HARTREE

log = logging.getLogger("helmol.predict")

COLUMNS = ("id", "formula", "file", "homo_Eh", "lumo_Eh", "gap_Eh", "gap_eV", "dipole_debye", "residual_Eh")
MOLECULES_AT_A_TIME = 64


def predict_file(
    model: TrainedModel,
    path: Path,
    *,
    out: Path,
    residual: bool = False,
    writers: Sequence[Callable[[Prediction, Path], None]] = (),
    split: str = "all",
    overwrite: bool = False,
    max_edges: int = 20000,
) -> dict[str, Any]:
    """Predict all molecules of a structure file or store.

    A molecule whose ``.npz`` is there already, from the same model, geometry, charge and spin, is not
    predicted again, so that an interrupted run continues; its row of the table is read back from the file.

    Args:
        model: the model.
        path: anything :func:`helmol.structures.read` reads, or a store (``.h5``).
        out: folder for ``NAME.npz`` and ``summary.csv``.
        residual: whether to build one Fock matrix per molecule and report ``‖FDS − SDF‖``.
        writers: called with every new prediction and its ``.npz`` path, to write other formats.
        split: split of a store, or ``"all"``.
        overwrite: whether to predict again what is there.
        max_edges: atom pairs per batch.

    Returns:
        ``n_molecules``, ``n_predicted``, ``n_kept``, ``molecules`` (rows of the table).

    Raises:
        DomainError: a store of another functional or basis, or a molecule outside the model's domain (named);
            what came before is kept.
        InputError: an unreadable file, or one in ``out`` that is no result of a prediction.
    """
    rows: list[dict[str, Any]] = []
    predicted = 0
    with (
        _open(model, path, split) as (items, total),
        Progress("Predict", total=total, unit="molecules") as bar,
    ):
        seen: set[str] = set()
        named = ((name, item, out / f"{_unique(name, seen)}.npz") for name, item in items)
        while chunk := list(itertools.islice(named, MOLECULES_AT_A_TIME)):
            todo = [
                entry for entry in chunk if overwrite or not _usable(*entry[1:], model, residual=residual)
            ]
            for name, item, _ in todo:
                _check(model, name, item.molecule)
            predictions = model.predict([i for _, i, _ in todo], residual=residual, max_edges=max_edges)
            for (_, _, file), prediction in zip(todo, predictions, strict=True):
                prediction.save(file, model=model.fingerprint)
                for write in writers:
                    write(prediction, file)
            rows += [_row(name, item.molecule, file) for name, item, file in chunk]
            predicted += len(todo)
            bar.advance(len(chunk))
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    write_text(out / "summary.csv", table.getvalue())
    kept = len(rows) - predicted
    return {"n_molecules": len(rows), "n_predicted": predicted, "n_kept": kept, "molecules": rows}


class _open:
    """Open a store or a structure file as named items; a context manager."""

    def __init__(self, model: TrainedModel, path: Path, split: str) -> None:
        self._model, self._path, self._split = model, path, split
        self._store: Store | None = None

    def __enter__(self) -> tuple[Iterator[tuple[str, Any]], int]:
        if self._path.suffix in (".h5", ".hdf5"):
            from helmol.evaluate.run import split_indices

            self._store = store = Store.open(self._path)
            domain = self._model.domain
            # The store's reference matrices are taken as they are: another functional has others.
            domain.check_data(store.level, store.basis.part(domain.basis.elements))
            chosen = split_indices(store, self._split)
            return ((store.ids[i], store[i]) for i in chosen), len(chosen)
        from helmol import structures

        found = structures.read(self._path)
        return ((structure.id, structure) for structure in found), len(found)

    def __exit__(self, *_: object) -> None:
        if self._store is not None:
            self._store.close()


def _unique(name: str, seen: set[str]) -> str:
    """Return a file name made of ``name``, different from all before."""
    plain = stem = re.sub(r"[^\w.+-]+", "_", name).strip("._") or "molecule"
    number = 1
    while plain in seen:
        number += 1
        plain = f"{stem}-{number}"
    seen.add(plain)
    return plain


def _check(model: TrainedModel, name: str, molecule: Molecule) -> None:
    """Refuse a molecule outside the domain, with its name."""
    try:
        model.domain.check(molecule)
    except DomainError as error:
        raise DomainError(f"{name} ({molecule.formula}): {error}") from error


def _usable(item: Any, file: Path, model: TrainedModel, *, residual: bool) -> bool:
    """Return whether a finished result of this model for this molecule is there.

    Raises:
        InputError: a file of that name is no result of a prediction; it is left alone.
    """
    if not file.is_file():
        return False
    molecule: Molecule = item.molecule
    wanted = {
        "numbers": molecule.numbers, "positions": molecule.positions,
        "charge": molecule.charge, "spin": molecule.spin,
    }  # fmt: skip
    try:
        with np.load(file) as data:
            # Earlier results have no charge and spin.
            same = str(data["model"]) == model.fingerprint and {*wanted} <= {*data}
            same = same and all(np.array_equal(data[key], value) for key, value in wanted.items())
            return same and (not residual or "residual" in data)
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{file} is no result of 'helmol predict': choose another --out, or --overwrite it"
        ) from error


def _row(name: str, molecule: Molecule, file: Path) -> dict[str, Any]:
    """Read a result back as a row of the table."""
    with np.load(file) as data:
        homo, lumo = frontier(data["mo_energy"], data["mo_occ"])
        return {
            "id": name,
            "formula": molecule.formula,
            "file": file.name,
            "homo_Eh": homo,
            "lumo_Eh": lumo,
            "gap_Eh": lumo - homo,
            "gap_eV": (lumo - homo) * EV_PER_HARTREE,
            "dipole_debye": float(np.linalg.norm(data["dipole"])) if "dipole" in data else None,
            "residual_Eh": float(data["residual"]) if "residual" in data else None,
        }
