"""Prepare many molecules of one composition at once, from packed triangles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from helmol.arrays import Array, BoolArray, Float64, IntArray
from helmol.basis import BasisSet, Signature, diagonal_table, pair_table, signature_nao
from helmol.errors import InputError
from helmol.graph.batch import Item, ItemBucket, Key
from helmol.system import Molecule

Integers = IntArray


@dataclass(frozen=True)
class _Plan:
    """Hold what all molecules of one composition share, every pair counted.

    Attributes:
        pairs: atoms i < j, ``[P, 2]``.
        buckets: index (atoms, or pairs), reverse, and first and last component of each kind of block.
        matrix: packed triangle → irreps of all blocks, bucket after bucket, ``[n_components, n_triangle]``.
    """

    pairs: Integers
    buckets: dict[Key, tuple[Integers, BoolArray, int, int]]
    matrix: csr_array


def prepare_many(
    molecules: Sequence[Molecule],
    basis: BasisSet,
    *,
    cutoff: float,
    packed: Float64[Array, "n values"] | None = None,
    n_inputs: int = 0,
) -> list[Item]:
    """Do what :func:`helmol.graph.prepare` does, for molecules with the same atoms in the same order.

    Args:
        molecules: of one composition.
        basis: shells of the elements.
        cutoff: largest distance of a pair, bohr.
        packed: upper triangles of the target matrices, row after row, Eh, ``[n, n_spins · n_triangle]``,
            then those of the matrices that the network reads.
        n_inputs: number of the latter.

    Raises:
        InputError: the atoms differ, or the triangles do not fit.
    """
    numbers = molecules[0].numbers
    if any(not np.array_equal(molecule.numbers, numbers) for molecule in molecules):
        raise InputError("molecules that are prepared together need the same atoms in the same order")
    plan = _plan(tuple(basis.signature(int(number)) for number in numbers))
    positions = np.stack([molecule.positions for molecule in molecules])
    first, second = plan.pairs.T
    squares = ((positions[:, first] - positions[:, second]) ** 2).sum(axis=-1)
    inside = squares <= cutoff**2
    irreps = None if packed is None else _irreps(plan.matrix, packed)
    pair_index = np.ascontiguousarray(plan.pairs.T)
    whole = inside.all(axis=1).tolist()
    targets = [_targets(irreps, len(molecules), *bucket) for bucket in plan.buckets.values()]
    items = []
    for k, (molecule, *own) in enumerate(zip(molecules, *targets, strict=True)):
        buckets = {
            key: ItemBucket(index, reverse, *_apart(target, n_inputs))
            for (key, (index, reverse, _, _)), target in zip(plan.buckets.items(), own, strict=True)
        }
        item = Item(molecule, pair_index, buckets)
        items.append(item if whole[k] else _cut(item, inside[k]))
    return items


def _irreps(
    matrix: csr_array, packed: Float64[Array, "n values"]
) -> Float64[Array, "n n_spins n_components"]:
    """Return irreps ``[n, n_spins, n_components]`` of packed triangles."""
    n_triangle = matrix.shape[1]
    if packed.shape[1] % n_triangle or not packed.shape[1]:
        raise InputError(f"packed matrices of {packed.shape[1]} values do not fit triangles of {n_triangle}")
    flat = packed.reshape(-1, n_triangle)
    return np.ascontiguousarray((matrix @ flat.T).T).reshape(len(packed), -1, matrix.shape[0])


def _targets(
    irreps: Array | None, n: int, index: Integers, _reverse: Any, start: int, end: int
) -> Iterable[Array | None]:
    """Return for each molecule the irreps ``[n_blocks, n_spins, dim]`` of one kind of block."""
    if irreps is None:
        return [None] * n
    return irreps[:, :, start:end].reshape(n, irreps.shape[1], len(index), -1).swapaxes(1, 2)


def _apart(irreps: Array | None, n_inputs: int) -> tuple[Array | None, Array | None]:
    """Part irreps ``[n, n_spins + n_inputs, dim]`` into those of target and matrices that are read."""
    if irreps is None or not n_inputs:
        return irreps, None
    return irreps[:, :-n_inputs], irreps[:, -n_inputs:]


def _cut(item: Item, inside: BoolArray) -> Item:
    """Return the item without the pairs beyond the cutoff."""
    place = np.cumsum(inside) - 1
    buckets: dict[Key, ItemBucket] = {}
    for key, bucket in item.buckets.items():
        if len(key) == 1:
            buckets[key] = bucket
        elif (kept := inside[bucket.index]).any():
            values = (None if x is None else x[kept] for x in (bucket.target, bucket.inputs))
            buckets[key] = ItemBucket(place[bucket.index[kept]], bucket.reverse[kept], *values)
    return Item(item.molecule, np.ascontiguousarray(item.pair_index[:, inside]), buckets)


@lru_cache(maxsize=256)
def _plan(signatures: tuple[Signature, ...]) -> _Plan:
    """Return the plan of a composition."""
    n = len(signatures)
    first, second = np.triu_indices(n, 1)
    pairs = np.stack([first, second], axis=1).astype(np.int64).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum([signature_nao(s) for s in signatures])]).astype(np.int64)
    members: dict[Key, list[tuple[int, bool, int, int]]] = {}
    for atom, signature in enumerate(signatures):
        members.setdefault((signature,), []).append((atom, False, atom, atom))
    for k, (i, j) in enumerate(pairs.tolist()):
        reverse = signatures[i] > signatures[j]
        row, column = (j, i) if reverse else (i, j)
        members.setdefault((signatures[row], signatures[column]), []).append((k, reverse, row, column))
    nao = int(offsets[-1])
    triangle = np.zeros((nao, nao), dtype=np.int64)
    triangle[np.triu_indices(nao)] = np.arange(nao * (nao + 1) // 2)
    triangle = np.maximum(triangle, triangle.T)
    buckets: dict[Key, tuple[Integers, BoolArray, int, int]] = {}
    at: list[Integers] = []
    entries_of: list[Integers] = []
    value: list[Array] = []
    start = 0
    for key, blocks in members.items():
        table = diagonal_table(key[0]) if len(key) == 1 else pair_table(*key)
        entries = table.matrix.tocoo()
        order = np.lexsort((entries.row, entries.col))
        a, b = np.divmod(entries.row[order], table.columns)
        begin = start
        for _, _, row, column in blocks:
            at.append(triangle[offsets[row] + a, offsets[column] + b])
            entries_of.append(np.bincount(entries.col, minlength=table.dim))
            value.append(entries.data[order])
            start += table.dim
        index = np.array([block[0] for block in blocks], dtype=np.int64)
        buckets[key] = (index, np.array([block[1] for block in blocks], dtype=bool), begin, start)
    # Not summed where an element stands twice (the two halves of a diagonal block): the sums are taken in the
    # order of `prepare`, so that both give the same numbers to the last bit.
    ends = np.concatenate([[0], np.cumsum(np.concatenate(entries_of))])
    matrix = csr_array((np.concatenate(value), np.concatenate(at), ends), shape=(start, nao * (nao + 1) // 2))
    return _Plan(pairs, buckets, matrix)
