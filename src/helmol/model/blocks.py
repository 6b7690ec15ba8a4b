"""Irreps of matrix blocks: their tables, and the turn between edge frames and the laboratory."""

from __future__ import annotations

import torch
from torch import Tensor

from helmol.basis import IrrepTable, Signature, diagonal_table, pair_table
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


def exchange(table: IrrepTable, signature: Signature) -> tuple[Tensor, Tensor]:
    """Return how a block of two atoms of one signature is transposed: ``y_ji = sign · y_ij[order]``.

    Returns:
        ``order`` and ``sign``, ``[dim]`` float64; ``sign = (−1)^{l₁+l₂−l}``.
    """
    order, signs, start = [], [], 0
    for l, pairs in enumerate(table.shell_pairs):
        place = {pair: k for k, pair in enumerate(pairs)}
        turned = [place[b, a] for a, b in pairs]
        parity = [(-1.0) ** (signature[a] + signature[b] - l) for a, b in pairs]
        for m in range(2 * l + 1):
            order += [start + m * len(pairs) + k for k in turned]
            signs += parity
        start += (2 * l + 1) * len(pairs)
    return torch.tensor(order), torch.tensor(signs, dtype=torch.float64)


def key_name(key: Key) -> str:
    """Return a parameter name for a bucket key, e.g. ``00011-000001`` (letters past l = 9)."""
    return "-".join("".join("0123456789abcdef"[l] for l in signature) for signature in key)


def exchange_irreps(table: IrrepTable, signature: Signature, n_matrices: int) -> list[tuple[Tensor, Tensor]]:
    """Return for each l where irrep (a, b) finds (b, a), and the sign of the transposition."""
    result = []
    for l, pairs in enumerate(table.shell_pairs):
        place = {pair: k for k, pair in enumerate(pairs)}
        order = torch.tensor([place[b, a] for a, b in pairs], dtype=torch.long)
        sign = torch.tensor([(-1.0) ** (signature[a] + signature[b] - l) for a, b in pairs])
        spins = torch.arange(n_matrices)[:, None] * len(pairs)
        result.append(((order + spins).reshape(-1), sign.repeat(n_matrices)))
    return result
