"""Predict everything in a file and write one ``.npz`` per molecule and a table."""

from __future__ import annotations

import csv
import io
import itertools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helmol.damage import read_npz, understood
from helmol.errors import DomainError, InputError
from helmol.files import entries, file_stem, write_text
from helmol.inputs import Inputs, open_inputs
from helmol.locks import Claim
from helmol.predict.energy_files import remove_energies
from helmol.predict.prediction import Prediction, state_flags
from helmol.predict.trained import TrainedModel
from helmol.progress import Progress
from helmol.properties import frontier
from helmol.system import Molecule
from helmol.units import EV_PER_HARTREE

log = logging.getLogger("helmol.predict")

COLUMNS = (
    "id", "formula", "file", "homo_Eh", "lumo_Eh", "gap_Eh", "gap_eV", "dipole_debye", "residual_Eh", "moved",
    "flags",
)  # fmt: skip
"""``moved``: electrons that the first SCF step moves, beside ``residual_Eh``; ``flags``: what is odd."""
MOLECULES_AT_A_TIME = 64
TABLE = "summary.csv"

Writer = Callable[[Prediction, Path], None]
OTHERS = (".molden",)
"""What may stand beside a ``.npz`` of the same molecule."""


def predict_file(
    model: TrainedModel,
    path: Path,
    *,
    out: Path,
    residual: bool = False,
    writers: Mapping[str, Writer] | None = None,
    split: str = "all",
    overwrite: bool = False,
    max_edges: int = 20000,
) -> dict[str, Any]:
    """Predict all molecules of a structure file or store.

    A molecule whose ``.npz`` is there already, from the same model, geometry, charge and spin, is not
    predicted again, so that an interrupted run continues, and ends in the same bits; its row of the table,
    and other formats that are missing, are made of the file.

    Args:
        model: the model.
        path: anything :func:`helmol.structures.read` reads, or a store (``.h5``).
        out: folder for ``NAME.npz`` and ``summary.csv``.
        residual: whether to build one Fock matrix per molecule and report ``‖FDS − SDF‖``.
        writers: other formats by suffix (``.molden``): called with a prediction and the file to write.
        split: split of a store, or ``"all"``.
        overwrite: whether to predict again what is there.
        max_edges: atom pairs per batch.

    Returns:
        ``n_molecules``, ``n_predicted``, ``n_kept``, ``n_flagged``, ``n_others`` (results of earlier calls
        in ``out`` that are not in the table), ``molecules`` (rows of the table).

    Raises:
        DomainError: a store of another functional or basis, or a molecule outside the model's domain (named);
            what came before is kept.
        InputError: an unreadable file, or one in ``out`` that is no result of a prediction.
        BusyError: another process writes to ``out``.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder with --out")
    with Claim(out, folder=True), open_inputs(path, split=split) as inputs:
        if (store := inputs.store) is not None:
            # The store's reference matrices are taken as they are: another functional has others.
            model.domain.check_data(store.level, store.basis.part(model.domain.basis.elements))
        rows, predicted = _predict_all(
            model, inputs, out, residual=residual, writers=writers or {}, overwrite=overwrite,
            max_edges=max_edges,
        )  # fmt: skip
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
        write_text(out / TABLE, table.getvalue())
        if not model.has_energy:
            # Of another model, and nothing says so.
            remove_energies(out)
    others = {path.name for path in entries(out) if path.suffix == ".npz"} - {row["file"] for row in rows}
    return {
        "n_molecules": len(rows), "n_predicted": predicted, "n_kept": len(rows) - predicted,
        "n_flagged": sum(bool(row["flags"]) for row in rows), "n_others": len(others), "molecules": rows,
    }  # fmt: skip


def _predict_all(
    model: TrainedModel,
    inputs: Inputs,
    out: Path,
    *,
    residual: bool,
    writers: Mapping[str, Writer],
    overwrite: bool,
    max_edges: int,
) -> tuple[list[dict[str, Any]], int]:
    """Predict what is missing; return the rows of the table and how many results are new."""
    rows: list[dict[str, Any]] = []
    predicted = 0
    seen: set[str] = set()
    named = ((name, item, out / f"{_unique(name, seen)}.npz") for name, item in inputs.items)
    with Progress("Predict", total=inputs.total, unit="molecules") as bar:
        while chunk := list(itertools.islice(named, MOLECULES_AT_A_TIME)):
            todo = [
                entry for entry in chunk if overwrite or not _usable(*entry[1:], model, residual=residual)
            ]
            for name, item, _ in chunk if todo else ():
                _check(model, name, item.molecule)
            if todo and not predicted:
                (out / TABLE).unlink(missing_ok=True)  # of before; it is written when all is there
            if todo:
                # All of them, as the first time: the last bits depend on what else is in a batch.
                found = model.predict([item for _, item, _ in chunk], residual=residual, max_edges=max_edges)
                new = {file for _, _, file in todo}
                for (_, _, file), prediction in zip(chunk, found, strict=True):
                    if file in new:
                        _save(prediction, file, model, writers)
            for _, _, file in chunk:
                _write_missing(file, writers)
            rows += [_row(name, item.molecule, file) for name, item, file in chunk]
            predicted += len(todo)
            bar.advance(len(chunk))
    return rows, predicted


def _save(prediction: Prediction, file: Path, model: TrainedModel, writers: Mapping[str, Writer]) -> None:
    """Write a result and what is made of it; nothing of an earlier one stays beside it."""
    for suffix in {*OTHERS, *writers}:
        file.with_name(f"{file.stem}{suffix}").unlink(missing_ok=True)
    prediction.save(file, model=model.fingerprint)
    for suffix, write in writers.items():
        write(prediction, file.with_name(f"{file.stem}{suffix}"))


def _write_missing(file: Path, writers: Mapping[str, Writer]) -> None:
    """Write in other formats what only the ``.npz`` of an earlier call has."""
    paths = {suffix: file.with_name(f"{file.stem}{suffix}") for suffix in writers}
    missing = {suffix: path for suffix, path in paths.items() if not path.exists()}
    if missing:
        prediction = Prediction.load(file)
        for suffix, path in missing.items():
            writers[suffix](prediction, path)


def _unique(name: str, seen: set[str]) -> str:
    """Return a file name made of ``name``, different from all before."""
    plain = stem = file_stem(name)
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
    wanted: dict[str, Any] = {
        "numbers": molecule.numbers, "positions": molecule.positions,
        "charge": molecule.charge, "spin": molecule.spin,
    }  # fmt: skip
    try:
        # All of it: what is damaged is not kept.
        data = read_npz(file)
    except InputError as error:
        raise InputError(
            f"{file} is no result of 'helmol predict': choose another --out, or --overwrite it ({error})"
        ) from error
    if "model" not in data:
        raise InputError(f"{file} is no result of 'helmol predict': choose another --out, or --overwrite it")
    # Earlier results have no charge and spin.
    same = str(data["model"]) == model.fingerprint and {*wanted} <= {*data}
    same = same and all(np.array_equal(data[key], value) for key, value in wanted.items())
    return same and (not residual or "residual" in data)


def _row(name: str, molecule: Molecule, file: Path) -> dict[str, Any]:
    """Read a result back as a row of the table."""
    data = read_npz(file, names=("mo_energy", "mo_occ", "dipole", "residual", "moved"))
    with understood(str(file)):
        homo, lumo = frontier(data["mo_energy"], data["mo_occ"])
        moved = float(data["moved"]) if "moved" in data else None
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
            "moved": moved,
            "flags": "; ".join(state_flags(lumo - homo, moved, float(data["mo_occ"].sum()))),
        }
