"""``metrics.csv``: one row per validation."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from helmol.files import replacing

COLUMNS = (
    "step",
    "epoch",
    "lr",
    "loss",
    "val_h_mae_uEh",
    "val_eps_occ_mae_uEh",
    "val_gap_mae_uEh",
    "seconds",
    "grad_norm",
    "val_energy_mae_meV",
    "val_force_mae_meV_per_angstrom",
)
"""Finished steps; passes through the training set; AdamW's learning rate in the last step; mean training
loss since the row before; validation errors of the averaged weights; seconds of training so far; mean
norm of the gradient before clipping since the row before. What could not be computed is empty."""


def start(path: Path, *, up_to_step: int) -> None:
    """Write the header, keeping the rows of an earlier start up to a step (and nothing half-written)."""
    _write(path, [row for row in read(path) if row["step"] <= up_to_step] if path.exists() else [])


def _write(path: Path, rows: Iterable[Mapping[str, float]]) -> None:
    """Write header and rows, whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([{key: _text(row.get(key)) for key in COLUMNS} for row in rows])


def append(path: Path, row: Mapping[str, float | None]) -> None:
    """Add one row and force it to the disk."""
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.DictWriter(file, COLUMNS).writerow({key: _text(row.get(key)) for key in COLUMNS})
        file.flush()
        os.fsync(file.fileno())


def correct(path: Path, tables: Iterable[Mapping[str, Any]]) -> None:
    """Put the errors of validations that were made again into the rows of their steps.

    Args:
        path: of the rows.
        tables: validation tables with ``step``.
    """
    rows = read(path)
    for table in tables:
        for row in rows:
            if row["step"] == table.get("step"):
                known = {name: table.get(name.removeprefix("val_")) for name in COLUMNS if name[:4] == "val_"}
                row.update({name: float(value) for name, value in known.items() if value is not None})
    _write(path, rows)


def read(path: Path) -> list[dict[str, float]]:
    """Return the complete rows; empty cells are left out, ``step`` is always there."""
    rows = []
    # What a killed process left half-written is no row, whatever bytes are in it.
    with path.open(newline="", encoding="utf-8", errors="replace") as file, suppress(csv.Error):
        for record in csv.DictReader(file):
            try:
                row = {
                    key: float(text)
                    for key, text in record.items()
                    if key in COLUMNS and text not in ("", None)
                }
            except (TypeError, ValueError):
                continue
            if "step" in row and None not in record.values():
                rows.append(row)
    return rows


def _text(value: float | None) -> str:
    """Return a number so that it reads back to the last bit."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
