"""From a store to prepared molecules, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from helmol.errors import InputError
from helmol.graph import Item, prepare_many
from helmol.store import Store
from helmol.store.columns import REFERENCE, pack_triangle, unpack_triangle
from helmol.target.matrix import input_matrices, needed_references, needs_overlap, reference_name

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
        inputs: names of matrices that the network reads, see :class:`helmol.model.ModelConfig`.

    Raises:
        ConfigError: inputs that do not go with the target.
        InputError: a sample lacks the Fock matrix, the reference of the target, or the overlap.
        StoreError: a checksum does not match.
    """
    groups: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(store.composition(row), []).append(place)
    items: dict[int, Item] = {}
    reference = None if target is None else reference_name(target)
    columns = [] if target is None else ["fock"] + ([] if reference is None else [f"{REFERENCE}{reference}"])
    inputs = () if target is None else inputs
    names = () if target is None else needed_references(target, inputs)
    read = [f"{REFERENCE}{name}" for name in names] if inputs else []
    read += ["overlap"] if needs_overlap(inputs) else []
    for places in _portions(groups.values(), rows, store):
        chosen = [rows[place] for place in places]
        molecules, values = store.read_block(chosen, list(dict.fromkeys([*columns, *read])))
        for column, matrix in values.items():
            if not matrix.shape[1]:
                lacks = {"fock": "a Fock matrix", "overlap": "the overlap matrix"}.get(
                    column, f"the reference {column.removeprefix(REFERENCE)!r} of {target!r}"
                )
                raise InputError(f"sample {store.ids[chosen[0]]!r} lacks {lacks}")
        packed, count = None, 0
        if columns:
            packed = values["fock"]
            if reference is not None:
                packed -= values[columns[1]]
        if target is not None and inputs:
            nao = int(store.basis.offsets(molecules[0].numbers)[-1])
            read_matrices = []
            for k, molecule in enumerate(molecules):
                known = {
                    column.removeprefix(REFERENCE): unpack_triangle(values[column][k], nao) for column in read
                }
                matrices = input_matrices(inputs, target, known, molecule, store.basis)
                if matrices is not None:
                    read_matrices.append(pack_triangle(matrices))
                    count = len(matrices)
            packed = np.concatenate([packed, np.stack(read_matrices)], axis=1)
        prepared = prepare_many(molecules, store.basis, cutoff=cutoff, packed=packed, n_inputs=count)
        items.update(zip(places, prepared, strict=True))
    return [items[place] for place in range(len(rows))]


def _portions(groups: Iterable[list[int]], rows: Sequence[int], store: Store) -> Iterator[list[int]]:
    """Divide groups into portions whose matrices stay in the processor's cache."""
    for places in groups:
        nao = int(store.basis.offsets(store.numbers(rows[places[0]]))[-1])
        n = max(1, VALUES_AT_ONCE // (nao * (nao + 1) // 2))
        for start in range(0, len(places), n):
            yield places[start : start + n]
