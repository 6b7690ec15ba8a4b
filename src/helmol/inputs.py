"""Molecules by name, from whatever a user points at: a store, or a file of structures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from helmol import structures
from helmol.store import Store, split_indices
from helmol.structures import Structure
from helmol.system import Molecule, Sample

STORE_SUFFIXES = (".h5", ".hdf5")
"""How the name of a store ends; everything else is a file of structures."""


@dataclass(frozen=True)
class Inputs:
    """Hold what a path leads to.

    Attributes:
        items: names with samples of a store (read one by one) or structures of a file.
        total: their number.
        store: where they are, if it is one.
    """

    items: Iterator[tuple[str, Sample | Structure]]
    total: int
    store: Store | None


def is_store(path: Path) -> bool:
    """Return whether a path is taken for a store."""
    return path.suffix.lower() in STORE_SUFFIXES


@contextmanager
def open_inputs(path: Path, *, split: str = "all") -> Iterator[Inputs]:
    """Open a store or a file of structures.

    Args:
        path: anything :func:`helmol.structures.read` reads, or a store.
        split: split of a store, or ``"all"``.

    Raises:
        InputError: an unreadable file, or no such split.
    """
    if is_store(path):
        with Store.open(path) as store:
            chosen = split_indices(store, split)
            yield Inputs(((store.ids[i], store[i]) for i in chosen), len(chosen), store)
    else:
        found = structures.read(path)
        yield Inputs(((structure.id, structure) for structure in found), len(found), None)


def read_molecules(path: Path, *, split: str = "all") -> list[tuple[str, Molecule]]:
    """Read names and molecules of a store or a file of structures; matrices are left alone.

    Args:
        path: as for :func:`open_inputs`.
        split: as for :func:`open_inputs`.

    Raises:
        InputError: an unreadable file, or no such split.
    """
    if is_store(path):
        with Store.open(path) as store:
            return [(store.ids[i], store.molecule(i)) for i in split_indices(store, split)]
    return [(structure.id, structure.molecule) for structure in structures.read(path)]
