"""Centring and scaling of the targets, from the training set, in float64.

Core levels differ by orders of magnitude between elements, so the l = 0 irreps of diagonal blocks
are centred (mean) and scaled (standard deviation) per element. All other irreps are scaled by their
root mean square, per element (diagonal) or signature pair (off-diagonal), equal for all m of an
irrep, so the network's outputs are of order one and the loss stays independent of orientation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from helmol.basis import BasisSet, IrrepTable, diagonal_table, pair_table
from helmol.errors import InputError
from helmol.graph import Bucket, Item
from helmol.graph.batch import Key
from helmol.system.sample import Array

FLOOR = 1e-4
"""Smallest standard deviation of a centred component, Eh (as in the HELM paper)."""
SCALE_FLOOR = 1e-6
"""Smallest root mean square of another component, Eh."""


@dataclass(frozen=True)
class Statistics:
    """Hold ``target = mean + scale · normalised``, float64.

    Attributes:
        mean: by atomic number, ``[n_spins, dim]`` of the diagonal table; zero for l > 0.
        scale: by atomic number, the same shape.
        pair_scale: by signature pair, ``[n_spins, dim]``; a pair never seen in training has zeros,
            so that nothing is invented for it.
        unit: root mean square over all matrix elements of ``target − mean``, Eh; the loss's unit.
    """

    mean: dict[int, Tensor]
    scale: dict[int, Tensor]
    pair_scale: dict[Key, Tensor]
    unit: float

    def of(self, bucket: Bucket, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale for each block of a bucket, broadcastable to ``[n, n_spins, dim]``.

        Args:
            bucket: blocks of one kind.
            numbers: atomic numbers of the whole batch, ``[N]``.
        """
        if len(bucket.key) == 2:
            scale = self.pair_scale[bucket.key].to(bucket.index.device)
            return torch.zeros_like(scale), scale
        present, inverse = torch.unique(numbers[bucket.index], return_inverse=True)
        elements = present.tolist()
        mean = torch.stack([self.mean[z] for z in elements]).to(bucket.index.device)
        scale = torch.stack([self.scale[z] for z in elements]).to(bucket.index.device)
        return mean[inverse], scale[inverse]


def blank(basis: BasisSet, *, n_spins: int) -> Statistics:
    """Return statistics of nothing: means 0, scales of elements 1, of pairs 0."""
    mean, scale = {}, {}
    for number, element in basis.elements.items():
        dim = diagonal_table(element.shells).dim
        mean[number] = torch.zeros(n_spins, dim, dtype=torch.float64)
        scale[number] = torch.ones(n_spins, dim, dtype=torch.float64)
    ordered = sorted({element.shells for element in basis.elements.values()})
    keys = [(first, second) for a, first in enumerate(ordered) for second in ordered[a:]]
    pair_scale = {key: torch.zeros(n_spins, pair_table(*key).dim, dtype=torch.float64) for key in keys}
    return Statistics(mean, scale, pair_scale, 1.0)


def fit(
    items: Iterable[Item], basis: BasisSet, *, n_spins: int, centring: bool = True, scaling: bool = True
) -> Statistics:
    """Compute the statistics of prepared training molecules.

    Args:
        items: molecules with targets.
        basis: of all elements.
        n_spins: matrices per molecule.
        centring: whether to take means; else they are zero.
        scaling: whether every irrep has its own scale; else all have ``unit``, one number for the set.

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
    result = blank(basis, n_spins=n_spins)
    total, entries = 0.0, 0
    for number, rows in diagonal.items():
        table, stack = diagonal_table(basis.signature(number)), np.stack(rows)
        n_scalars = table.counts[0]
        centre = np.zeros(stack.shape[1:])
        if centring:
            centre[:, :n_scalars] = stack[..., :n_scalars].mean(axis=0)
        floor = np.where(np.arange(table.dim) < n_scalars, FLOOR, SCALE_FLOOR)
        spread = _rms(np.square(stack - centre).mean(axis=0), table)
        result.mean[number] = torch.from_numpy(centre)
        result.scale[number] = torch.from_numpy(np.maximum(spread, floor))
        total += float(np.square(stack - centre).sum())
        entries += len(stack) * stack.shape[1] * table.rows**2
    for key, (square, n) in squares.items():
        spread = _rms(square / n, pair_table(*key))
        if key[0] == key[1]:
            # Which atom of a pair comes first is arbitrary: irreps (a, b) and (b, a) share a scale.
            spread = np.sqrt(0.5 * (spread**2 + spread[:, exchanged(pair_table(*key))] ** 2))
        result.pair_scale[key] = torch.from_numpy(np.maximum(spread, SCALE_FLOOR))
        total += 2 * float(square.sum())
        entries += 2 * n * square.size
    unit = max((total / max(entries, 1)) ** 0.5, SCALE_FLOOR)
    if not scaling:
        for scale in (*(result.scale[n] for n in diagonal), *(result.pair_scale[key] for key in squares)):
            scale.fill_(unit)
    return Statistics(result.mean, result.scale, result.pair_scale, unit)


def exchanged(table: IrrepTable) -> npt.NDArray[np.int64]:
    """Return for each component of irrep (a, b) the place of the same component of (b, a), ``[dim]``."""
    places, start = [], 0
    for l, pairs in enumerate(table.shell_pairs):
        place = {pair: k for k, pair in enumerate(pairs)}
        order = np.array([place[b, a] for a, b in pairs], dtype=np.int64)
        places += [start + m * len(pairs) + order for m in range(2 * l + 1)]
        start += (2 * l + 1) * len(pairs)
    return np.concatenate(places)


def _rms(square: Array, table: IrrepTable) -> Array:
    """Return the root mean square of each irrep, the same for all its m, ``[n_spins, dim]``."""
    parts, start = [], 0
    for l, count in enumerate(table.counts):
        stop = start + (2 * l + 1) * count
        part = square[:, start:stop].reshape(len(square), 2 * l + 1, count)
        parts.append(np.broadcast_to(part.mean(axis=1, keepdims=True), part.shape).reshape(len(square), -1))
        start = stop
    return np.sqrt(np.concatenate(parts, axis=1))
