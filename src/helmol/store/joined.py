"""Several stores read as one, without a copy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from helmol.errors import StoreError
from helmol.places import PathLike
from helmol.store.packed import Store
from helmol.store.split import split_indices
from helmol.system import LevelOfTheory, Molecule, Sample


class Stores:
    """Read stores one after the other under one numbering; a context manager that closes them.

    Whether their levels of theory and bases belong together is the caller's question.

    Args:
        paths: of the stores.

    Raises:
        StoreError: one of them cannot be opened, or there is none.
    """

    def __init__(self, paths: Sequence[PathLike]) -> None:
        if not paths:
            raise StoreError("no store was named")
        self.stores: list[Store] = []
        try:
            for path in paths:
                self.stores.append(Store.open(path))
        except BaseException:
            self.close()
            raise
        self._starts = [0, *accumulate(len(store) for store in self.stores)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        """Return a sample; raises StoreError where its bytes are damaged."""
        store, row = self.place(index)
        return store[row]

    def place(self, index: int) -> tuple[Store, int]:
        """Return the store of a sample and its row there."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.stores[number], index - self._starts[number]

    def id(self, index: int) -> str:
        """Return the id of a sample; samples of different stores may have the same."""
        store, row = self.place(index)
        return store.id(row)

    def molecule(self, index: int) -> Molecule:
        """Return a molecule without its matrices; raises StoreError where its bytes are damaged."""
        store, row = self.place(index)
        return store.molecule(row)

    def values(self, column: str, index: int) -> npt.NDArray[Any]:
        """Return the raw values of one label, empty where it is missing; raises StoreError at damage."""
        store, row = self.place(index)
        return store.values(column, row)

    def has(self, column: str) -> npt.NDArray[np.bool_]:
        """Return which samples have a label, see :meth:`helmol.store.Store.has`."""
        return np.concatenate([store.has(column) for store in self.stores])

    def have_split(self, name: str) -> bool:
        """Return whether every store has a split of this name."""
        return all(name in store.splits for store in self.stores)

    def indices(self, split: str, *, seen: Collection[str] = ()) -> list[int]:
        """Return the samples of a split of all stores, see :func:`helmol.store.split_indices`.

        Raises:
            InputError: a store without this split, or with nothing in it.
        """
        return [
            start + row
            for start, store in zip(self._starts, self.stores, strict=False)
            for row in split_indices(store, split, seen=seen)
        ]

    @property
    def level(self) -> LevelOfTheory:
        """Level of theory of the first of them."""
        return self.stores[0].level

    @property
    def names(self) -> str:
        """Paths of the stores, for messages."""
        paths = [str(store.path) for store in self.stores]
        return ", ".join(paths if len(paths) < 4 else [*paths[:2], f"{len(paths) - 2} more"])

    def close(self) -> None:
        """Close all of them; twice is harmless."""
        for store in self.stores:
            store.close()

    def __enter__(self) -> Stores:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
