"""Draw the splits of a store: at random, by molecule, by size, by scaffold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helmol.errors import InputError
from helmol.files import beside
from helmol.progress import Progress
from helmol.store import Store, group_split, random_split
from helmol.store.card import CARD, SPLITS, write_beside
from helmol.structures.scaffold import scaffold

KINDS = ("random", "molecule", "size", "scaffold")
MOLECULE_KEYS = ("smiles", "moses_id")
"""Entries of the provenance that say which molecule a geometry is of."""


def split_store(
    path: Path,
    *,
    by: str = "random",
    sizes: Mapping[str, int] | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Replace the splits of a store.

    * ``random``: every sample on its own.
    * ``molecule``: all geometries of a molecule stay together; molecules are told by the SMILES of
      their provenance, else by formula, charge and spin, so that isomers stay together, too.
    * ``size``: few atoms first, the largest molecules in the last split.
    * ``scaffold``: molecules of one scaffold stay together, common scaffolds first.

    Args:
        path: the store.
        by: one of ``KINDS``.
        sizes: samples per split. Give either ``sizes`` or ``fractions``.
        fractions: share per split.
        seed: of the random kinds.

    Returns:
        ``by``, ``seed``, ``n_groups``, ``splits`` (sizes), ``n_unused``.

    Raises:
        InputError: an unknown kind, impossible sizes, or no SMILES where scaffolds are asked for.
    """
    if by not in KINDS:
        raise InputError(f"unknown kind of split {by!r}: known are {', '.join(KINDS)}")
    with Store.open(path, "a") as store:
        if by == "random":
            splits = random_split(store.ids, sizes=sizes, fractions=fractions, seed=seed)
            n_groups = len(store)
        else:
            groups = _groups(store, by)
            n_groups = len(set(groups.values()))
            order = {"molecule": "random", "size": "ascending", "scaffold": "largest-first"}[by]
            splits = group_split(groups, sizes=sizes, fractions=fractions, order=order, seed=seed)  # type: ignore[arg-type]
        store.set_splits(splits)
        if beside(path, CARD).exists() or beside(path, SPLITS).exists():
            write_beside(store)  # they name the splits
        counts = {name: len(ids) for name, ids in splits.items()}
        return {
            "by": by, "seed": seed, "n_groups": n_groups, "splits": counts,
            "n_unused": len(store) - sum(counts.values()), "n_molecules": len(store),
        }  # fmt: skip


def _groups(store: Store, by: str) -> dict[str, str | int]:
    """Return the group of every sample."""
    if by == "size":
        return {id: int(n) for id, n in zip(store.ids, store.n_atoms, strict=True)}
    find = _molecule if by == "molecule" else _scaffold
    found: dict[str, str | int] = {}
    with Progress("Grouping", total=len(store), unit="molecules") as bar:
        for row, id in enumerate(store.ids):
            found[id] = find(store, row)
            bar.advance()
    return found


def _molecule(store: Store, row: int) -> str:
    origin = store.provenance(row)
    for key in MOLECULE_KEYS:
        if origin.get(key) is not None:
            return f"{key} {origin[key]}"
    molecule = store.molecule(row)
    return f"{molecule.formula} {molecule.charge} {molecule.spin}"


def _scaffold(store: Store, row: int) -> str:
    smiles = store.provenance(row).get("smiles")
    if not isinstance(smiles, str):
        raise InputError(
            f"{store.path} has no SMILES for {store.ids[row]!r}: a split by scaffold needs them in the "
            "provenance; split by molecule instead"
        )
    try:
        return scaffold(smiles)
    except InputError as error:
        raise InputError(f"{store.path}, {store.ids[row]!r}: {error}") from error


def parse_sizes(text: str) -> tuple[dict[str, int] | None, dict[str, float] | None]:
    """Return sizes or fractions from ``train=500,val=100`` or ``train=0.8,val=0.2``.

    Raises:
        InputError: not of this form, or numbers and shares mixed.
    """
    try:
        pairs = [part.split("=") for part in text.split(",")]
        values = {name.strip(): float(value) for name, value in pairs}
        if len(values) < len(pairs) or not all(values) or not np.isfinite(list(values.values())).all():
            raise ValueError
    except ValueError:
        raise InputError(f"sizes {text!r}: expected name=number, e.g. train=0.8,val=0.1,test=0.1") from None
    shares = [not value.strip().lstrip("+-").isdecimal() for _, value in pairs]
    if all(shares):
        return None, values
    if not any(shares):
        return {name: int(value) for name, value in values.items()}, None
    raise InputError(f"sizes {text!r}: give either shares (0.8) or numbers (500), not both")
