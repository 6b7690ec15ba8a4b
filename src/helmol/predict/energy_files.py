"""Predict energies and forces of everything in a file: a table, and one extended xyz file that ASE reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol import structures
from helmol.errors import DomainError, InputError
from helmol.files import write_text
from helmol.inputs import Item, molecules_at
from helmol.locks import Claim
from helmol.places import PathLike, Places
from helmol.predict.ensemble import EnsembleEnergy, ensemble_energies
from helmol.predict.tables import remove_tables
from helmol.predict.trained import TrainedModel
from helmol.progress import Progress
from helmol.shards import shard_of
from helmol.skipped import Skips
from helmol.system import Molecule
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

COLUMNS = (
    "id",
    "formula",
    "energy_Eh",
    "energy_std_meV",
    "max_force_eV_per_angstrom",
    "force_std_meV_per_angstrom",
)
TABLE, FRAMES = "energies.csv", "energies.extxyz"
MOLECULES_AT_A_TIME = 64


def predict_energies_of_file(
    models: Sequence[TrainedModel],
    path: Places,
    *,
    out: PathLike,
    split: str = "all",
    shard: tuple[int, int] | None = None,
    max_edges: int = 20_000,
    strict: bool = False,
) -> dict[str, Any]:
    """Predict energies, and forces where the models know them, of structure files or stores.

    A molecule that cannot be predicted is left out, named and counted.

    Args:
        models: with energy heads; several are an ensemble, whose mean and spread are written.
        path: anything :func:`helmol.structures.read` reads, a store (``.h5``), or several of these, folders
            and patterns too.
        out: folder for ``energies.csv`` and ``energies.extxyz`` (eV, eV/Å).
        split: split of a store, or ``"all"``.
        shard: ``(i, n)`` takes the i-th of n parts, i from 1 to n.
        max_edges: atom pairs per batch.
        strict: whether the first molecule that cannot be predicted is an error.

    Returns:
        ``n_molecules`` and ``molecules``: rows with the columns of the table, ``None`` where a number is not
        known; ``n_skipped`` and ``skipped`` (:class:`helmol.skipped.Skipped`).
        ``force_std_meV_per_angstrom`` is the largest of a molecule's components.

    Raises:
        DomainError: not one molecule inside the domain of all models.
        InputError: no readable molecule, or models that do not belong together.
        BusyError: another process writes to ``out``.
    """
    out, skips = Path(out), Skips(strict=strict)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder with --out")
    with molecules_at(path, skips, split=split) as found:
        items = [item for item in found if _learnt(models, item, skips)]
    skips.refuse_nothing_left(len(items))
    items = list(shard_of(items, shard))
    with Claim(out, folder=True):
        return _predict_all(models, items, out, skips, max_edges=max_edges)


def remove_energies(out: Path) -> None:
    """Remove the energies that an earlier call left in a folder."""
    for name in (TABLE, FRAMES):
        (out / name).unlink(missing_ok=True)


def _predict_all(
    models: Sequence[TrainedModel], items: Sequence[Item], out: Path, skips: Skips, *, max_edges: int
) -> dict[str, Any]:
    """Predict and write into a folder that is held."""
    forces = all(model.has_forces for model in models)
    rows: list[dict[str, Any]] = []
    frames: list[str] = []
    with Progress("Predict energies", total=len(items), unit="molecules") as bar:
        for start in range(0, len(items), MOLECULES_AT_A_TIME):
            chunk = items[start : start + MOLECULES_AT_A_TIME]
            molecules = [item.molecule for item in chunk]
            found = ensemble_energies(models, molecules, forces=forces, max_edges=max_edges)
            for item, entry in zip(chunk, found, strict=True):
                if not _finite(entry):
                    error = DomainError("the predicted energy or a force is not finite")
                    skips.add(error, item=item.id, file=item.file, row=item.row)
                    continue
                rows.append(_row(item.id, item.molecule, entry))
                frames.append(
                    structures.extxyz_text(item.id, item.molecule, energy=entry.energy, forces=entry.forces)
                )
            bar.advance(len(chunk))
    skips.refuse_nothing_left(len(rows))
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    # Never one of now beside one of before.
    remove_energies(out)
    if not models[0].has_fock:
        remove_tables(out)
    write_text(out / TABLE, table.getvalue())
    write_text(out / FRAMES, "".join(frames))
    return {"n_molecules": len(rows), "molecules": rows, **skips.json()}


def _learnt(models: Sequence[TrainedModel], item: Item, skips: Skips) -> bool:
    """Return whether all models have learnt the energies of such molecules."""
    try:
        for trained in models:
            trained.check_energy(item.molecule)
    except DomainError as error:
        skips.add(error, item=item.id, file=item.file, row=item.row)
        return False
    return True


def _finite(entry: EnsembleEnergy) -> bool:
    """Return whether energy and forces are numbers."""
    forces = 0.0 if entry.forces is None else entry.forces
    return bool(np.isfinite(entry.energy) and np.isfinite(forces).all())


def _row(name: str, molecule: Molecule, entry: EnsembleEnergy) -> dict[str, Any]:
    """Return a row of the table."""
    lengths = None if entry.forces is None else np.linalg.norm(entry.forces, axis=1)
    return {
        "id": name,
        "formula": molecule.formula,
        "energy_Eh": entry.energy,
        "energy_std_meV": None if entry.energy_std is None else 1000 * EV_PER_HARTREE * entry.energy_std,
        "max_force_eV_per_angstrom": None
        if lengths is None
        else EV_PER_ANGSTROM_PER_AU * float(lengths.max()),
        "force_std_meV_per_angstrom": (
            None
            if entry.forces_std is None
            else 1000 * EV_PER_ANGSTROM_PER_AU * float(entry.forces_std.max())
        ),
    }
