"""Irreps of matrix blocks: their tables, and the turn between edge frames and the laboratory."""

from __future__ import annotations

import torch
from torch import Tensor

from helmol.basis import IrrepTable, diagonal_table, pair_table
from helmol.graph import EdgeGeometry
from helmol.graph.batch import Key


def table_of(key: Key) -> IrrepTable:
    """Return the irreps of a bucket's blocks."""
    return diagonal_table(key[0]) if len(key) == 1 else pair_table(*key)


def rotate_pairs(irreps: Tensor, key: Key, edge: Tensor, geometry: EdgeGeometry, *, to_edge: bool) -> Tensor:
    """Rotate all irreps ``[n, n_spins, dim]`` of a pair bucket between laboratory and edge frames."""
    counts = pair_table(*key).counts
    n, n_spins, _ = irreps.shape
    sizes = [(2 * l + 1) * count for l, count in enumerate(counts)]
    turned = []
    for l, part in enumerate(irreps.split(sizes, dim=2)):
        columns = part.reshape(n, n_spins, 2 * l + 1, counts[l]).transpose(1, 2)
        columns = columns.reshape(n, 2 * l + 1, n_spins * counts[l])
        rotated = geometry.rotate_irreps(l, columns, edge, to_edge=to_edge)
        turned.append(
            rotated.view(n, 2 * l + 1, n_spins, counts[l]).transpose(1, 2).reshape(n, n_spins, sizes[l])
        )
    return torch.cat(turned, dim=2)
