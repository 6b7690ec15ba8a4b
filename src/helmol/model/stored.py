"""From a store to prepared molecules, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from helmol.errors import InputError
from helmol.graph import Item, prepare_many
from helmol.model.domain import reference_name
from helmol.store import Store

VALUES_AT_ONCE = 1 << 16
"""Matrix elements of one kind that are worked on together, 0.5 MB of them."""


def stored_items(
    store: Store, rows: Sequence[int], *, cutoff: float, target: str | None, inputs: Sequence[str] = ()
) -> list[Item]:
    """Read and prepare samples of a store; molecules of one composition are done together.

    Args:
        store: open for reading.
        rows: positions in the store, in the order wanted.
        cutoff: largest distance of a pair, bohr.
        target: ``fock`` or ``fock-minus-NAME``; ``None`` reads no matrices.
        inputs: matrices that the network reads, of ``reference`` and ``overlap``.

    Raises:
        InputError: a sample lacks the Fock matrix, the reference of the target, or the overlap.
        StoreError: a checksum does not match.
    """
    groups: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(store.composition(row), []).append(place)
    items: dict[int, Item] = {}
    reference = None if target is None else reference_name(target)
    columns = [] if target is None else ["fock"] + ([] if reference is None else [f"reference_{reference}"])
    given = (
        []
        if target is None
        else [f"reference_{reference}" if name == "reference" else name for name in inputs]
    )
    if reference is None and "reference" in inputs and given:
        raise InputError(f"inputs: target {target!r} has no reference; take a delta target")
    for places in _portions(groups.values(), rows, store):
        chosen = [rows[place] for place in places]
        molecules, values = store.read_block(chosen, list(dict.fromkeys([*columns, *given])))
        for column, matrix in values.items():
            if not matrix.shape[1]:
                lacks = {"fock": "a Fock matrix", "overlap": "the overlap matrix"}.get(
                    column, f"the reference {reference!r} of {target!r}"
                )
                raise InputError(f"sample {store.ids[chosen[0]]!r} lacks {lacks}")
        packed, n_given = None, 0
        if columns:
            packed = values["fock"]
            if reference is not None:
                packed -= values[columns[1]]
            read = [values[column] for column in given]
            nao = int(store.basis.offsets(molecules[0].numbers)[-1])
            n_given = sum(matrix.shape[1] for matrix in read) // (nao * (nao + 1) // 2)
            packed = np.concatenate([packed, *read], axis=1) if read else packed
        prepared = prepare_many(molecules, store.basis, cutoff=cutoff, packed=packed, n_given=n_given)
        items.update(zip(places, prepared, strict=True))
    return [items[place] for place in range(len(rows))]


def _portions(groups: Iterable[list[int]], rows: Sequence[int], store: Store) -> Iterator[list[int]]:
    """Divide groups into portions whose matrices stay in the processor's cache."""
    for places in groups:
        nao = int(store.basis.offsets(store.numbers(rows[places[0]]))[-1])
        n = max(1, VALUES_AT_ONCE // (nao * (nao + 1) // 2))
        for start in range(0, len(places), n):
            yield places[start : start + n]
