"""Irreps of matrix blocks as tensors: by degree, turned, transposed, and as dense matrices again.

The order of the components is that of :class:`helmol.basis.IrrepTable`; every array of irreps has the
dimensions ``[n, n_spins, dim]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from helmol.arrays import Float, Int64
from helmol.basis import BasisSet, IrrepTable, diagonal_table, pair_table
from helmol.graph.batch import Batch, Key
from helmol.graph.frames import EdgeGeometry


def table_of(key: Key) -> IrrepTable:
    """Return the irreps of a bucket's blocks."""
    return diagonal_table(key[0]) if len(key) == 1 else pair_table(*key)


def keys_of(basis: BasisSet) -> list[Key]:
    """Return every kind of block that molecules of these elements can have, sorted; pairs in one order."""
    ordered = sorted({element.shells for element in basis.elements.values()})
    keys: list[Key] = []
    for a, first in enumerate(ordered):
        keys.append((first,))
        keys += [(first, second) for second in ordered[a:]]
    return keys


def split_degrees(
    irreps: Float[Tensor, "n n_spins {table.dim}"], table: IrrepTable
) -> list[Float[Tensor, "n _ _"]]:
    """Return for each degree the irreps ``[n, 2l+1, n_spins · n_l]``: spins in turn, then irreps.

    Args:
        irreps: ``[n, n_spins, dim]``.
        table: of the block.
    """
    n, n_spins, _ = irreps.shape
    # The gradient of a split joins its parts once; each slice would have one of the whole size.
    parts = irreps.split(table.sizes, dim=2)
    return [
        part.reshape(n, n_spins, 2 * l + 1, count).transpose(1, 2).flatten(2)
        for l, (part, count) in enumerate(zip(parts, table.counts, strict=True))
    ]


def join_degrees(
    parts: Sequence[Float[Tensor, "n _ _"]], table: IrrepTable, n_spins: int
) -> Float[Tensor, "n {n_spins} {table.dim}"]:
    """Undo :func:`split_degrees`: ``[n, n_spins, dim]``."""
    return torch.cat(
        [
            part.reshape(len(part), 2 * l + 1, n_spins, count).transpose(1, 2).flatten(2)
            for l, (part, count) in enumerate(zip(parts, table.counts, strict=True))
        ],
        dim=2,
    )


def rotate_pairs(
    irreps: Float[Tensor, "n n_spins dim"],
    key: Key,
    edge: Int64[Tensor, " n"],
    geometry: EdgeGeometry,
    *,
    to_edge: bool,
) -> Float[Tensor, "n n_spins dim"]:
    """Rotate all irreps ``[n, n_spins, dim]`` of a pair bucket between laboratory and edge frames.

    Args:
        irreps: of blocks.
        key: their kind.
        edge: directed edge of each block, ``[n]``.
        geometry: of the edges.
        to_edge: from the laboratory to the edge frame, else back.
    """
    table, pair = pair_table(*key), edge % max(geometry.n_pairs, 1)
    flip = geometry.flip.index_select(0, _components(table, irreps.device))
    signs = torch.where((edge >= geometry.n_pairs)[:, None], flip, torch.ones_like(flip))[:, None]
    if not to_edge:
        irreps = irreps * signs
    first, *parts = irreps.split(table.sizes, dim=2)
    turned = [first]  # scalars
    for l, (part, count) in enumerate(zip(parts, table.counts[1:], strict=True), start=1):
        frame = geometry.frames[l].index_select(0, pair)[:, None]
        values = part.unflatten(2, (2 * l + 1, count))
        turned.append(((frame.mT if to_edge else frame) @ values).flatten(2))
    joined = torch.cat(turned, dim=2)
    return joined * signs if to_edge else joined


@lru_cache(maxsize=512)
def _components(table: IrrepTable, device: torch.device) -> Tensor:
    """Return the l-major number ``l² + l + m`` of each component of a block's irreps, ``[dim]``."""
    counts = torch.tensor([count for l, count in enumerate(table.counts) for _ in range(2 * l + 1)])
    return torch.arange(len(counts)).repeat_interleave(counts).to(device)


def transposition(
    table: IrrepTable, degree: int, n_spins: int
) -> tuple[Int64[Tensor, " c"], Float[Tensor, " c"]]:
    """Return where each irrep of a degree finds its transpose, and the sign; ``[n_spins · n_l]``.

    For two atoms of equal shells and features in the order of :func:`split_degrees`.
    """
    order = torch.from_numpy(table.transposed[degree])
    sign = 1.0 - 2.0 * torch.from_numpy(table.parities[degree]).to(torch.float32)
    spins = torch.arange(n_spins)[:, None] * len(order)
    return (order + spins).reshape(-1), sign.repeat(n_spins)


def edges_inside(
    index: Int64[Tensor, " n_blocks"], start: int, n: int, n_pairs: int
) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"]]:
    """Find the directed edges that belong to the pairs ``start … start+n``.

    Returns:
        Their places in ``index``, and their numbers among the ``2n`` edges of those pairs.
    """
    pair, backward = index % n_pairs, index // n_pairs
    chosen = ((pair >= start) & (pair < start + n)).nonzero()[:, 0]
    return chosen, pair[chosen] - start + backward[chosen] * n


def key_name(key: Key) -> str:
    """Return a name for a bucket key, e.g. ``00011-000001`` (letters past l = 9)."""
    return "-".join("".join("0123456789abcdef"[l] for l in signature) for signature in key)


def to_blocks(
    irreps: Float[Tensor, "n n_spins {table.dim}"], table: IrrepTable
) -> Float[Tensor, "n n_spins {table.rows*table.columns}"]:
    """Return the blocks ``[n, n_spins, rows · columns]`` of irreps ``[n, n_spins, dim]``; differentiable."""
    n, n_spins, dim = irreps.shape
    matrix = _expansion(table, irreps.dtype, irreps.device)
    flat = irreps.reshape(n * n_spins, dim)
    return (matrix @ flat.T).T.reshape(n, n_spins, -1)


@lru_cache(maxsize=512)
def _expansion(table: IrrepTable, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the map from irreps to a block, ``[rows · columns, dim]``; sparse on a CPU."""
    entries = table.matrix.tocoo()
    index = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    matrix = torch.sparse_coo_tensor(
        index, torch.from_numpy(entries.data), entries.shape, check_invariants=True
    )
    matrix = matrix.to(dtype).to(device).coalesce()
    return matrix if device.type == "cpu" else matrix.to_dense()


def assemble(
    irreps: Sequence[Float[Tensor, "_ {n_spins} _"]], batch: Batch, basis: BasisSet, *, n_spins: int
) -> list[Float[Tensor, "{n_spins} _ _"]]:
    """Put the blocks of a batch to their places in one symmetric matrix per molecule.

    Blocks of pairs that are not in the batch are zero. Differentiable.

    Args:
        irreps: for each bucket ``[n, n_spins, dim]``, laboratory frame.
        batch: molecules.
        basis: shells of the elements.
        n_spins: matrices per molecule.

    Returns:
        ``[n_spins, nao, nao]`` for each molecule, in house order and the unit and precision of the irreps.
    """
    offsets = [basis.offsets(molecule.numbers) for molecule in batch.molecules]
    sizes = np.array([offset[-1] for offset in offsets])
    base = np.concatenate([[0], np.cumsum(sizes**2)])
    ao_start = np.concatenate([offset[:-1] for offset in offsets])
    molecule, pairs = batch.molecule.cpu().numpy(), batch.pair_index.cpu().numpy()
    source, target = pairs.reshape(-1), pairs[::-1].reshape(-1)
    values, places = [], []
    for bucket, part in zip(batch.buckets, irreps, strict=True):
        table, index = table_of(bucket.key), bucket.index.cpu().numpy()
        first, second = (source[index], target[index]) if len(bucket.key) == 2 else (index, index)
        blocks = to_blocks(part, table).transpose(0, 1).reshape(n_spins, -1)
        start, width = base[molecule[first]][:, None, None], sizes[molecule[first]][:, None, None]
        i = ao_start[first][:, None, None] + np.arange(table.rows)[:, None]
        j = ao_start[second][:, None, None] + np.arange(table.columns)
        for place in [start + i * width + j, start + j * width + i][: len(bucket.key)]:
            values.append(blocks)
            places.append(place.reshape(-1))
    where = torch.from_numpy(np.concatenate(places)).to(values[0].device)
    flat = values[0].new_zeros(n_spins, int(base[-1]))
    flat = flat.index_copy(1, where, torch.cat(values, dim=1))
    matrices = [
        flat[:, start:stop].unflatten(1, (n, n))
        for start, stop, n in zip(base[:-1], base[1:], sizes.tolist(), strict=True)
    ]
    # Rounding in the blocks of an atom with itself.
    return [0.5 * (matrix + matrix.mT) for matrix in matrices]
