"""Predict everything in files and write one ``.npz`` per molecule and a table."""

from __future__ import annotations

import csv
import io
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.damage import read_npz, understood
from helmol.errors import DomainError, HelmolError, InputError
from helmol.files import entries, file_stem, replacing, write_text
from helmol.inputs import Item, molecules_at
from helmol.locks import Claim
from helmol.places import PathLike, Places
from helmol.predict.energy_files import remove_energies
from helmol.predict.prediction import Prediction, state_flags
from helmol.predict.trained import TrainedModel
from helmol.progress import Progress
from helmol.properties import frontier
from helmol.skipped import FAULTS, Skips
from helmol.store import Store
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
    path: Places,
    *,
    out: PathLike,
    residual: bool = False,
    writers: Mapping[str, Writer] | None = None,
    split: str = "all",
    overwrite: bool = False,
    compress: bool = False,
    max_edges: int = 20000,
    strict: bool = False,
) -> dict[str, Any]:
    """Predict all molecules of structure files or stores.

    A molecule whose ``.npz`` is there already, from the same model, geometry, charge and spin, is not
    predicted again, so that an interrupted run continues, and ends in the same bits; its row of the table,
    and other formats that are missing, are made of the file. A molecule that cannot be predicted is left out,
    named and counted.

    Args:
        model: the model.
        path: anything :func:`helmol.structures.read` reads, a store (``.h5``), or several of these, folders
            and patterns too.
        out: folder for ``NAME.npz`` and ``summary.csv``.
        residual: whether to build one Fock matrix per molecule and report ``‖FDS − SDF‖``.
        writers: other formats by suffix (``.molden``): called with a prediction and the file to
            write, which gets its name when it is whole.
        split: split of a store, or ``"all"``.
        overwrite: whether to predict again what is there.
        compress: whether to write compressed arrays, which takes longer than the prediction.
        max_edges: atom pairs per batch.
        strict: whether the first molecule that cannot be predicted is an error.

    Returns:
        ``n_molecules``, ``n_predicted``, ``n_kept``, ``n_flagged``, ``n_others`` (results of earlier calls
        in ``out`` that are not in the table), ``molecules`` (rows of the table), ``n_skipped`` and
        ``skipped`` (:class:`helmol.skipped.Skipped`).

    Raises:
        DomainError: a store of another functional or basis, or not one molecule inside the model's domain.
        InputError: no readable molecule, or a file in ``out`` that is no result of a prediction.
        BusyError: another process writes to ``out``.
    """
    out, skips = Path(out), Skips(strict=strict)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder with --out")
    with molecules_at(path, skips, split=split, accept=lambda store: _accept(model, store)) as found:
        items = [item for item in found if _learnt(model, item, skips)]
        skips.refuse_nothing_left(len(items))
        with Claim(out, folder=True):
            rows, predicted = _predict_all(
                model, items, out, skips, residual=residual, writers=writers or {}, overwrite=overwrite,
                compress=compress, max_edges=max_edges,
            )  # fmt: skip
            skips.refuse_nothing_left(len(rows))
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
        **skips.json(),
    }  # fmt: skip


def _accept(model: TrainedModel, store: Store) -> None:
    """Refuse a store of another level.

    Its reference matrices are taken as they are: another functional has others.
    """
    model.domain.check_data(store.level, store.basis.part(model.domain.basis.elements))


def _learnt(model: TrainedModel, item: Item, skips: Skips) -> bool:
    """Return whether the model has learnt such molecules."""
    try:
        model.domain.check(item.molecule)
    except DomainError as error:
        skips.add(error, item=item.id, file=item.file, row=item.row)
        return False
    return True


def _predict_all(
    model: TrainedModel,
    items: Sequence[Item],
    out: Path,
    skips: Skips,
    *,
    residual: bool,
    writers: Mapping[str, Writer],
    overwrite: bool,
    compress: bool,
    max_edges: int,
) -> tuple[list[dict[str, Any]], int]:
    """Predict what is missing; return the rows of the table and how many results are new."""
    rows: list[dict[str, Any]] = []
    predicted, fingerprint = 0, model.fingerprint
    seen: set[str] = set()
    named = iter([(item, out / f"{_unique(item.id, seen)}.npz") for item in items])
    with Progress("Predict", total=len(items), unit="molecules") as bar:
        while chunk := list(itertools.islice(named, MOLECULES_AT_A_TIME)):
            todo = {
                file
                for item, file in chunk
                if overwrite or not _usable(item.molecule, file, model, residual=residual)
            }
            if todo and not predicted:
                (out / TABLE).unlink(missing_ok=True)  # of before; it is written when all is there
            done = chunk
            if todo:
                # All of them, as the first time: the last bits depend on what else is in a batch.
                results = list(_predictions(model, chunk, skips, residual=residual, max_edges=max_edges))
                for _, file, prediction in results:
                    if file in todo:
                        where = _cleared(file, writers)
                        prediction.save(where, model=fingerprint, compress=compress)
                        predicted += 1
                done = [(item, file) for item, file, _ in results]
            for item, file in done:
                try:
                    _write_missing(file, writers)
                except FAULTS as error:
                    skips.add(error, item=item.id, file=item.file, row=item.row)
                rows.append(_row(item.id, item.molecule, file))
            bar.advance(len(chunk))
    return rows, predicted


def _predictions(
    model: TrainedModel, chunk: Sequence[tuple[Item, Path]], skips: Skips, *, residual: bool, max_edges: int
) -> Iterator[tuple[Item, Path, Prediction]]:
    """Read and predict molecules together and yield those that can be predicted."""
    read: list[tuple[Item, Path, Any]] = []
    for item, file in chunk:
        try:
            read.append((item, file, item.read()))
        except FAULTS as error:
            skips.add(error, item=item.id, file=item.file, row=item.row)
    found = model.predict_each([content for *_, content in read], residual=residual, max_edges=max_edges)
    for (item, file, _), prediction in zip(read, found, strict=True):
        if isinstance(prediction, HelmolError):
            skips.add(prediction, item=item.id, file=item.file, row=item.row)
        else:
            yield item, file, prediction


def _cleared(file: Path, writers: Mapping[str, Writer]) -> Path:
    """Return the file of a result after removing what was made of an earlier one."""
    for suffix in {*OTHERS, *writers}:
        file.with_name(f"{file.stem}{suffix}").unlink(missing_ok=True)
    return file


def _write_missing(file: Path, writers: Mapping[str, Writer]) -> None:
    """Write in other formats what only the ``.npz`` has, of this call or an earlier one."""
    paths = {suffix: file.with_name(f"{file.stem}{suffix}") for suffix in writers}
    missing = {suffix: path for suffix, path in paths.items() if not path.exists()}
    if missing:
        prediction = Prediction.load(file)
        for suffix, path in missing.items():
            with replacing(path) as temporary:
                writers[suffix](prediction, temporary)


def _unique(name: str, seen: set[str]) -> str:
    """Return a file name made of ``name``, different from all before."""
    plain = stem = file_stem(name)
    number = 1
    while plain in seen:
        number += 1
        plain = f"{stem}-{number}"
    seen.add(plain)
    return plain


def _usable(molecule: Molecule, file: Path, model: TrainedModel, *, residual: bool) -> bool:
    """Return whether a finished result of this model for this molecule is there.

    Raises:
        InputError: a file of that name is no result of a prediction; it is left alone.
    """
    if not file.is_file():
        return False
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
