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
from helmol.inputs import read_molecules
from helmol.locks import Claim
from helmol.predict.ensemble import EnsembleEnergy, ensemble_energies
from helmol.predict.trained import TrainedModel
from helmol.progress import Progress
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
    models: Sequence[TrainedModel], path: Path, *, out: Path, split: str = "all", max_edges: int = 20_000
) -> dict[str, Any]:
    """Predict energies, and forces where the models know them, of a structure file or store.

    Args:
        models: with energy heads; several are an ensemble, whose mean and spread are written.
        path: anything :func:`helmol.structures.read` reads, or a store (``.h5``).
        out: folder for ``energies.csv`` and ``energies.extxyz`` (eV, eV/Å).
        split: split of a store, or ``"all"``.
        max_edges: atom pairs per batch.

    Returns:
        ``n_molecules`` and ``molecules``: rows with the columns of the table, ``None`` where a number is not
        known. ``force_std_meV_per_angstrom`` is the largest of a molecule's components.

    Raises:
        DomainError: a molecule outside the domain of a model (named).
        InputError: an unreadable file, or models that do not belong together.
        BusyError: another process writes to ``out``.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder with --out")
    with Claim(out, folder=True):
        return _predict_all(models, read_molecules(path, split=split), out, max_edges=max_edges)


def remove_energies(out: Path) -> None:
    """Remove the energies that an earlier call left in a folder."""
    for name in (TABLE, FRAMES):
        (out / name).unlink(missing_ok=True)


def _predict_all(
    models: Sequence[TrainedModel], named: Sequence[tuple[str, Molecule]], out: Path, *, max_edges: int
) -> dict[str, Any]:
    """Predict and write into a folder that is held."""
    forces = all(model.has_forces for model in models)
    rows: list[dict[str, Any]] = []
    frames: list[str] = []
    for name, molecule in named:
        _check(models, name, molecule)
    with Progress("Predict energies", total=len(named), unit="molecules") as bar:
        for start in range(0, len(named), MOLECULES_AT_A_TIME):
            chunk = named[start : start + MOLECULES_AT_A_TIME]
            found = ensemble_energies(models, [m for _, m in chunk], forces=forces, max_edges=max_edges)
            for (name, molecule), entry in zip(chunk, found, strict=True):
                rows.append(_row(name, molecule, entry))
                frames.append(
                    structures.extxyz_text(name, molecule, energy=entry.energy, forces=entry.forces)
                )
            bar.advance(len(chunk))
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    # Never one of now beside one of before.
    remove_energies(out)
    if "fock" not in models[0].network.heads:
        (out / "summary.csv").unlink(missing_ok=True)
    write_text(out / TABLE, table.getvalue())
    write_text(out / FRAMES, "".join(frames))
    return {"n_molecules": len(rows), "molecules": rows}


def _check(models: Sequence[TrainedModel], name: str, molecule: Molecule) -> None:
    """Refuse a molecule outside the domain, with its name."""
    for model in models:
        try:
            model.domain.check(molecule)
            model.network.energy_target.check(molecule)
        except DomainError as error:
            raise DomainError(f"{name} ({molecule.formula}): {error}") from error


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
