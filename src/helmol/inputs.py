"""Molecules from whatever a user points at (structure files and stores), each with its place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from helmol import structures
from helmol.errors import InputError
from helmol.letters import text_of
from helmol.places import Places, files_at
from helmol.skipped import FAULTS, Skips
from helmol.store import Store, split_indices
from helmol.structures import FrameError, Structure
from helmol.system import Molecule, Sample

STORE_SUFFIXES = (".h5", ".hdf5")
"""How the name of a store ends; everything else is a file of structures."""


@dataclass(frozen=True)
class Item:
    """Hold one molecule of a file.

    Attributes:
        id: its name.
        molecule: nuclei, charge, spin.
        file: where it stands.
        row: frame from 1 of a structure file, row from 0 of a store.
        source: the structure, or the open store.
    """

    id: str
    molecule: Molecule
    file: Path
    row: int
    source: Structure | Store

    def read(self) -> Structure | Sample:
        """Return the structure, or the sample with its matrices.

        Raises:
            StoreError: the sample is damaged.
        """
        return self.source if isinstance(self.source, Structure) else self.source[self.row]


@contextmanager
def molecules_at(
    places: Places, skips: Skips, *, split: str = "all", accept: Callable[[Store], None] = lambda store: None
) -> Iterator[list[Item]]:
    """Provide the molecules of files, folders and patterns; stores stay open as long as the block.

    Args:
        places: structure files and stores (``.h5``), see :func:`helmol.places.files_at`.
        skips: takes files, frames and rows that cannot be read.
        split: split of the stores, or ``"all"``.
        accept: raises where a store as a whole is of no use.

    Raises:
        InputError: a name that does not exist, or ``split`` without a store.
        HelmolError: not one molecule can be read: the first reason.
    """
    files = files_at(places, suffixes=(*structures.SUFFIXES, *STORE_SUFFIXES))
    if split != "all" and not any(is_store(file) for file in files):
        raise InputError(f"split {split!r} is of a store: {text_of(files[0])} is a structure file")
    with ExitStack() as stack:
        items: list[Item] = []
        for file in files:
            try:
                if is_store(file):
                    store = stack.enter_context(Store.open(file))
                    accept(store)
                    items += _of_store(store, split, skips)
                else:
                    items += _of_structures(file, skips)
            except FAULTS as error:
                skips.add(error, item=text_of(file.name), file=file)
        skips.refuse_nothing_left(len(items))
        yield items


def is_store(path: Path) -> bool:
    """Return whether a file is a store by its name."""
    return path.suffix.lower() in STORE_SUFFIXES


def _of_structures(file: Path, skips: Skips) -> Iterator[Item]:
    """Yield the frames of a structure file that are molecules."""
    for number, found in enumerate(structures.each(file), start=1):
        if isinstance(found, FrameError):
            skips.add(found, item=found.id, file=file, row=found.frame)
        else:
            yield Item(found.id, found.molecule, file, number, found)


def _of_store(store: Store, split: str, skips: Skips) -> Iterator[Item]:
    """Yield the molecules of a store, without their matrices."""
    for row in split_indices(store, split):
        try:
            yield Item(store.id(row), store.molecule(row), store.path, row, store)
        except FAULTS as error:
            skips.add(error, item=store.id(row), file=store.path, row=row)
