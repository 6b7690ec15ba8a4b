"""Prepare one molecule, and join several into a batch; matrix blocks grouped by shell signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from helmol.arrays import Array, Bool, BoolArray, Float, Float64, Int64, IntArray
from helmol.basis import BasisSet, Signature, diagonal_table, pair_table
from helmol.brief import brief
from helmol.errors import InputError
from helmol.system import Molecule

Key = tuple[Signature, ...]


@dataclass(frozen=True)
class ItemBucket:
    """Hold the blocks of one kind in one molecule.

    Attributes:
        index: atom (diagonal) or pair (off-diagonal) of each block, ``[n]``.
        reverse: whether the block belongs to the edge j→i of its pair, ``[n]``.
        target: irreps of the blocks in the laboratory frame, Eh, ``[n, n_spins, dim]``, or ``None``.
        inputs: irreps of matrices that the network reads, ``[n, n_matrices, dim]``, or ``None``.
    """

    index: Int64[IntArray, " n"]
    reverse: Bool[BoolArray, " n"]
    target: Float64[Array, "n n_spins dim"] | None
    inputs: Float64[Array, "n n_matrices dim"] | None = None

    __repr__ = brief


@dataclass(frozen=True)
class Item:
    """Hold one prepared molecule: pairs inside the cutoff, blocks by signature, labels if there are any."""

    molecule: Molecule
    pair_index: Int64[IntArray, "2 P"]
    buckets: dict[Key, ItemBucket]
    energy: float | None = None
    forces: Float64[Array, "n_atoms 3"] | None = None

    __repr__ = brief

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return 2 * self.pair_index.shape[1]


@dataclass(frozen=True)
class Bucket:
    """Hold the blocks of one kind in a batch.

    A diagonal bucket has a key of one signature, ``index`` counts atoms. An off-diagonal bucket has
    two (rows, columns), ``index`` counts directed edges. ``target`` and ``inputs`` as in :class:`ItemBucket`.
    """

    key: Key
    index: Int64[Tensor, " n"]
    target: Float[Tensor, "n n_spins dim"] | None
    inputs: Float[Tensor, "n n_matrices dim"] | None = None

    __repr__ = brief


@dataclass(frozen=True)
class Batch:
    """Hold several molecules end to end.

    Attributes:
        molecules: the molecules, in order.
        numbers: ``[N]``.
        positions: ``[N, 3]`` bohr, float64.
        charge, spin: ``[B]``.
        molecule: molecule of each atom, ``[N]``.
        pair_index: ``[2, P]``, atoms i < j.
        buckets: blocks by signature.
        energy: labels, ``[B]`` Eh, float64, or ``None``.
        forces: labels, ``[N, 3]`` Eh/bohr, float64, or ``None``.
    """

    molecules: tuple[Molecule, ...]
    numbers: Int64[Tensor, " N"]
    positions: Float[Tensor, "N 3"]
    charge: Int64[Tensor, " B"]
    spin: Int64[Tensor, " B"]
    molecule: Int64[Tensor, " N"]
    pair_index: Int64[Tensor, "2 P"]
    buckets: tuple[Bucket, ...]
    energy: Float[Tensor, " B"] | None = None
    forces: Float[Tensor, "N 3"] | None = None

    __repr__ = brief

    @property
    def n_edges(self) -> int:
        """Number of directed edges."""
        return 2 * self.pair_index.shape[1]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors on ``device``."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("numbers", "positions", "charge", "spin", "molecule", "pair_index")
        }
        labels = {"energy": self.energy, "forces": self.forces}
        moved |= {name: value.to(device) for name, value in labels.items() if value is not None}
        buckets = tuple(
            Bucket(
                b.key,
                b.index.to(device),
                *(None if x is None else x.to(device) for x in (b.target, b.inputs)),
            )
            for b in self.buckets
        )
        return replace(self, buckets=buckets, **moved)


def prepare(
    molecule: Molecule,
    basis: BasisSet,
    *,
    cutoff: float,
    matrix: Float64[Array, "*spins nao nao"] | None = None,
    inputs: Float64[Array, "n_matrices nao nao"] | None = None,
) -> Item:
    """Find the pairs of a molecule and cut its target matrix into irreps by signature.

    Args:
        molecule: nuclei, charge, spin.
        basis: shells of its elements.
        cutoff: largest distance of a pair, bohr; blocks beyond it are not part of the item.
        matrix: target matrix in house order, Eh, ``[nao, nao]`` or ``[2, nao, nao]``.
        inputs: matrices that the network reads, house order, ``[n_matrices, nao, nao]``.

    Raises:
        InputError: element not in the basis, or a matrix of another size.
    """
    offsets = basis.offsets(molecule.numbers)
    wrong = next((m for m in (matrix, inputs) if m is not None and m.shape[-1] != offsets[-1]), None)
    if wrong is not None:
        raise InputError(
            f"matrix has {wrong.shape[-1]} orbitals, the basis gives {offsets[-1]} for {molecule.formula}"
        )
    pairs = cKDTree(molecule.positions).query_pairs(cutoff, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int64).reshape(-1, 2)
    signatures = [basis.signature(int(number)) for number in molecule.numbers]
    atoms_of: dict[Key, list[int]] = {}
    for atom, signature in enumerate(signatures):
        atoms_of.setdefault((signature,), []).append(atom)
    edges_of: dict[Key, list[tuple[int, bool]]] = {}
    for k, (i, j) in enumerate(pairs.tolist()):
        reverse = signatures[i] > signatures[j]
        kind = (signatures[j], signatures[i]) if reverse else (signatures[i], signatures[j])
        edges_of.setdefault(kind, []).append((k, reverse))
    buckets: dict[Key, ItemBucket] = {}
    for key, atoms in atoms_of.items():
        index = np.array(atoms)
        buckets[key] = ItemBucket(
            index,
            np.zeros(len(index), bool),
            *(_irreps(key, m, offsets[index], offsets[index]) for m in (matrix, inputs)),
        )
    for key, edges in edges_of.items():
        index = np.array([k for k, _ in edges])
        turned = np.array([reverse for _, reverse in edges])
        rows = np.where(turned, pairs[index, 1], pairs[index, 0])
        columns = np.where(turned, pairs[index, 0], pairs[index, 1])
        irreps = (_irreps(key, m, offsets[rows], offsets[columns]) for m in (matrix, inputs))
        buckets[key] = ItemBucket(index, turned, *irreps)
    return Item(molecule, np.ascontiguousarray(pairs.T), buckets)


def _irreps(
    key: Key,
    matrix: Float64[Array, "*spins nao nao"] | None,
    rows: Int64[IntArray, " n"],
    columns: Int64[IntArray, " n"],
) -> Float64[Array, "n n_spins dim"] | None:
    """Return the irreps ``[n, n_spins, dim]`` of the blocks that start at ``(rows, columns)``."""
    if matrix is None:
        return None
    table = diagonal_table(key[0]) if len(key) == 1 else pair_table(*key)
    i = rows[:, None, None] + np.arange(table.rows)[:, None]
    j = columns[:, None, None] + np.arange(table.columns)
    spins = matrix if matrix.ndim == 3 else matrix[None]
    return np.stack([table.to_irreps(spin[i, j]) for spin in spins], axis=1)


def collate(items: Sequence[Item]) -> Batch:
    """Join prepared molecules into one batch.

    Raises:
        InputError: no molecules, or some with targets or labels and some without.
    """
    if not items:
        raise InputError("a batch needs at least one molecule")
    n_atoms = np.array([item.molecule.n_atoms for item in items])
    n_pairs = np.array([item.pair_index.shape[1] for item in items])
    atom_start = np.concatenate([[0], np.cumsum(n_atoms)])
    pair_start = np.concatenate([[0], np.cumsum(n_pairs)])
    members: dict[Key, list[tuple[int, ItemBucket]]] = {}
    for k, item in enumerate(items):
        for key, bucket in item.buckets.items():
            members.setdefault(key, []).append((k, bucket))
    buckets = []
    for key in sorted(members):
        start = atom_start if len(key) == 1 else pair_start
        owners, parts = [k for k, _ in members[key]], [bucket for _, bucket in members[key]]
        index = np.concatenate([part.index for part in parts])
        index += np.repeat(start[owners], [len(part.index) for part in parts])
        index += np.concatenate([part.reverse for part in parts]) * pair_start[-1]
        target = _label([part.target for part in parts], "target")
        inputs = _label([part.inputs for part in parts], "matrices that are read")
        buckets.append(Bucket(key, torch.from_numpy(index), target, inputs))
    return Batch(
        molecules=tuple(item.molecule for item in items),
        numbers=torch.from_numpy(np.concatenate([item.molecule.numbers for item in items])),
        positions=torch.from_numpy(np.concatenate([item.molecule.positions for item in items])),
        charge=torch.tensor([item.molecule.charge for item in items]),
        spin=torch.tensor([item.molecule.spin for item in items]),
        molecule=torch.from_numpy(np.repeat(np.arange(len(items)), n_atoms)),
        pair_index=torch.from_numpy(
            np.concatenate([item.pair_index for item in items], axis=1) + np.repeat(atom_start[:-1], n_pairs)
        ),
        buckets=tuple(buckets),
        energy=_label([item.energy for item in items], "energy"),
        forces=_label([item.forces for item in items], "forces"),
    )


def _label(values: Sequence[float | Array | None], name: str) -> Tensor | None:
    """Join the values of all molecules; ``None`` if no molecule has any."""
    there = [np.atleast_1d(value) for value in values if value is not None]
    if there and len(there) != len(values):
        raise InputError(f"some molecules of the batch have a label {name!r} and some have not")
    return torch.from_numpy(np.concatenate(there)) if there else None
