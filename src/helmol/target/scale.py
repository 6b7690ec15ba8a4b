"""The size of what the network has to learn, irrep by irrep.

Every irrep is scaled by its root mean square over the training set, per element (diagonal) or kind of pair
(off-diagonal), equal for all m, so that the network's outputs are of order one and the loss stays independent
of orientation.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from helmol.arrays import Array
from helmol.basis import BasisSet, IrrepTable, diagonal_table, pair_table
from helmol.errors import InputError
from helmol.graph import Bucket, Item
from helmol.graph.batch import Key
from helmol.graph.blocks import keys_of
from helmol.target.parts import Known, OfElements, Slots

FLOOR = 1e-4
"""Smallest scale of an on-site scalar, Eh (as in the HELM paper)."""
SCALE_FLOOR = 1e-6
"""Smallest scale of another component, Eh."""


class Scale(Known):
    """Hold ``rest = scale · normalised``, Eh, float64.

    Args:
        basis: shells of the elements.
        n_spins: matrices per molecule.

    Attributes:
        elements: by element, ``[n_spins, dim]`` of the diagonal table; 1 before :meth:`fit`.
        pairs: of all kinds of pairs side by side, ``[n_spins, Σ dim]``; a pair that was never seen has zeros,
            so that nothing is invented for it.
        unit: root mean square over all matrix elements, Eh; the loss's unit.
    """

    pairs: Tensor
    unit: Tensor

    def __init__(self, basis: BasisSet, n_spins: int) -> None:
        super().__init__()
        self.elements = OfElements(basis, n_spins, 1.0)
        self.pair_slots: Slots[Key] = Slots(
            {key: pair_table(*key).dim for key in keys_of(basis) if len(key) == 2}
        )
        self.register_buffer("pairs", torch.zeros(n_spins, self.pair_slots.total, dtype=torch.float64))
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))

    def forward(self, bucket: Bucket, numbers: Tensor) -> Tensor:
        """Return the scale of each block of a bucket, broadcastable to ``[n, n_spins, dim]``.

        Args:
            bucket: blocks of one kind.
            numbers: atomic numbers of the whole batch, ``[N]``.
        """
        if len(bucket.key) == 2:
            return self.of_pair(bucket.key)
        alone = self.elements.alone(bucket.key)
        return self.elements(bucket, numbers) if alone is None else alone

    def of_pair(self, key: Key) -> Tensor:
        """Return a view of the values of one kind of pair, ``[n_spins, dim]``."""
        return self.pairs[:, self.pair_slots[key]]

    def fit(self, items: Iterable[Item], basis: BasisSet, *, each: bool = True) -> None:
        """Measure the targets of prepared molecules.

        Args:
            items: molecules with targets, all known parts taken away.
            basis: of all elements.
            each: whether every irrep has its own scale; else all have ``unit``.

        Raises:
            InputError: a molecule has no target.
        """
        diagonal: dict[int, list[Array]] = {}
        squares: dict[Key, tuple[Array, int]] = {}
        for item in items:
            for key, bucket in item.buckets.items():
                target = bucket.target
                if target is None:
                    raise InputError("statistics need molecules with target matrices")
                if len(key) == 1:
                    for row, atom in zip(target, bucket.index, strict=True):
                        diagonal.setdefault(int(item.molecule.numbers[atom]), []).append(row)
                else:
                    square, n = squares.get(key, (np.zeros(target.shape[1:]), 0))
                    squares[key] = square + np.square(target).sum(axis=0), n + len(target)
        total, entries = 0.0, 0
        for number, rows in diagonal.items():
            table, square = diagonal_table(basis.signature(number)), np.square(np.stack(rows))
            floor = np.where(np.arange(table.dim) < table.counts[0], FLOOR, SCALE_FLOOR)
            spread = np.maximum(_rms(square.mean(axis=0), table), floor)
            self.elements.of(number).copy_(torch.from_numpy(spread))
            total += float(square.sum())
            entries += len(square) * square.shape[1] * table.rows**2
        for key, (square, n) in squares.items():
            table = pair_table(*key)
            spread = _rms(square / n, table)
            if key[0] == key[1]:
                # Which atom of a pair comes first is arbitrary: irreps (a, b) and (b, a) share a scale.
                spread = np.sqrt(0.5 * (spread**2 + spread[:, table.exchange[0]] ** 2))
            self.of_pair(key).copy_(torch.from_numpy(np.maximum(spread, SCALE_FLOOR)))
            total += 2 * float(square.sum())
            entries += 2 * n * square.size
        unit = max((total / max(entries, 1)) ** 0.5, SCALE_FLOOR)
        self.unit.fill_(unit)
        if not each:
            for one in (*map(self.elements.of, diagonal), *map(self.of_pair, squares)):
                one.fill_(unit)


def _rms(square: Array, table: IrrepTable) -> Array:
    """Return the root mean square of each irrep, the same for all its m, ``[n_spins, dim]``."""
    parts = []
    for l, (where, count) in enumerate(zip(table.slices, table.counts, strict=True)):
        part = square[:, where].reshape(len(square), 2 * l + 1, count)
        parts.append(np.broadcast_to(part.mean(axis=1, keepdims=True), part.shape).reshape(len(square), -1))
    return np.sqrt(np.concatenate(parts, axis=1))
