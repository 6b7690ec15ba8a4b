"""Published errors of other models, where the set of molecules and the level of theory are the same.

The figures stand in ``published.csv``: one error of one model a row, with the number of training molecules,
what was learnt (empty where that is not known) and the source.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

from helmol.store import Store

MD17 = {"H2O": "water", "C2H6O": "ethanol", "C3H4O2": "malondialdehyde", "C4H4N2O2": "uracil"}
RMD17 = {"C7H6O3": "salicylic acid", "C9H8O4": "aspirin"}

LARGE = 23
"""Atoms of the molecules in the test set ``ood`` of QH9 stable at least."""


@cache
def published() -> tuple[dict[str, Any], ...]:
    """Return the rows of the table: ``set xc basis n_train model target metric value source``."""
    text = resources.files("helmol.evaluate").joinpath("published.csv").read_text(encoding="utf-8")
    rows: list[dict[str, Any]] = []
    for row in csv.DictReader(text.splitlines()):
        n_train = int(row["n_train"]) if row["n_train"] else None
        rows.append({**row, "n_train": n_train, "value": float(row["value"])})
    return tuple(rows)


def comparable(name: str | None, *, xc: str, basis: str) -> list[dict[str, Any]]:
    """Return the published errors on a set of molecules at a level of theory.

    Args:
        name: of the set, see :func:`set_name`.
        xc: functional of the labels.
        basis: of the labels.
    """
    same = (name, xc.lower(), basis.lower())
    return [row for row in published() if (row["set"], row["xc"], row["basis"]) == same]


def set_name(store: Store, split: str, rows: Sequence[int]) -> str | None:
    """Return the name of the published test set that some molecules of a store belong to.

    Only imported data are known by name, and what is not the test set is no published one.

    Args:
        store: where they are.
        split: of the store.
        rows: of the molecules.
    """
    if split != "test" or not rows:
        return None
    molecules = [store.molecule(row) for row in rows]
    formulas = {molecule.formula for molecule in molecules}
    source = str(store.provenance(rows[0]).get("source", ""))
    code = store.level.code
    if code.startswith("orca (SchNOrb"):
        return f"MD17 {MD17[formulas.pop()]}" if len(formulas) == 1 and formulas <= MD17.keys() else None
    if code.startswith("pyscf (QH9"):
        return _qh9(store, rows, n_atoms=min(molecule.n_atoms for molecule in molecules))
    if code.startswith("psi4 (nablaDFT"):
        found = re.search(r"test_(\d+k)_conformers", source)
        return f"∇²DFT {found[1]} conformers" if found else None
    if "rmd17" in source.lower() and len(formulas) == 1 and formulas <= RMD17.keys():
        return f"rMD17 {RMD17[formulas.pop()]}"
    return None


def _qh9(store: Store, rows: Sequence[int], *, n_atoms: int) -> str | None:
    """Return which of the test sets of QH9: of large molecules, of other geometries, of other molecules."""
    ids = store.ids
    first = ids[rows[0]].split("-")
    if first[0] == "qh9":
        return "QH9 stable ood" if n_atoms >= LARGE else "QH9 stable id"
    if first[0] != "qh9d":
        return None
    seen = {id.split("-")[1] for id in store.splits.get("train", ())}
    known = sum(ids[row].split("-")[1] in seen for row in rows)
    if not seen or 0 < known < len(rows):
        return None
    return "QH9 dynamic geo" if known else "QH9 dynamic mol"
