"""From a store to prepared molecules, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from helmol.errors import InputError
from helmol.graph import Item, prepare_many
from helmol.model.domain import reference_name
from helmol.store import Store

VALUES_AT_ONCE = 1 << 16
"""Matrix elements of one kind that are worked on together, 0.5 MB of them."""


def stored_items(store: Store, rows: Sequence[int], *, cutoff: float, target: str | None) -> list[Item]:
    """Read and prepare samples of a store; molecules of one composition are done together.

    Args:
        store: open for reading.
        rows: positions in the store, in the order wanted.
        cutoff: largest distance of a pair, bohr.
        target: ``fock`` or ``fock-minus-NAME``; ``None`` reads no matrices.

    Raises:
        InputError: a sample lacks the Fock matrix or the reference of the target.
        StoreError: a checksum does not match.
    """
    groups: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(store.composition(row), []).append(place)
    items: dict[int, Item] = {}
    reference = None if target is None else reference_name(target)
    columns = [] if target is None else ["fock"] + ([] if reference is None else [f"reference_{reference}"])
    for places in _portions(groups.values(), rows, store):
        chosen = [rows[place] for place in places]
        molecules, values = store.read_block(chosen, columns)
        for column, matrix in values.items():
            if not matrix.shape[1]:
                lacks = "a Fock matrix" if column == "fock" else f"the reference {reference!r} of {target!r}"
                raise InputError(f"sample {store.ids[chosen[0]]!r} lacks {lacks}")
        packed = None
        if columns:
            packed = values["fock"]
            if reference is not None:
                packed -= values[columns[1]]
        prepared = prepare_many(molecules, store.basis, cutoff=cutoff, packed=packed)
        items.update(zip(places, prepared, strict=True))
    return [items[place] for place in range(len(rows))]


def _portions(groups: Iterable[list[int]], rows: Sequence[int], store: Store) -> Iterator[list[int]]:
    """Divide groups into portions whose matrices stay in the processor's cache."""
    for places in groups:
        nao = int(store.basis.offsets(store.numbers(rows[places[0]]))[-1])
        n = max(1, VALUES_AT_ONCE // (nao * (nao + 1) // 2))
        for start in range(0, len(places), n):
            yield places[start : start + n]
