"""Matrices as input of the network: blocks of H₀ and S become node and edge features.

It is the Hamiltonian head turned round. Of every block of an atom or a pair the irreps are standardised and
mapped, by one linear map per degree and kind of block, to the channels of the atom's node and of the two
directed edges of the pair; the edge j→i receives the transposed block. So rotations, the exchange of atoms
and their order are respected as by the head, and so are parities: see :class:`helmol.model.kinds.IrrepMaps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from helmol.basis import BasisSet, pair_table
from helmol.errors import InputError
from helmol.graph import Batch, Bucket, EdgeGeometry, Item
from helmol.graph.batch import Key
from helmol.graph.blocks import edges_inside, keys_of, rotate_pairs, split_degrees, table_of
from helmol.model.ends import ToBothEdges
from helmol.model.kinds import IrrepMaps
from helmol.target.means import Means
from helmol.target.parts import Known, OfElements, Slots
from helmol.target.scale import Scale


class Standard(Known):
    """Hold centre and inverse scale of the irreps of read matrices; zero before they are fitted, float64.

    Args:
        basis: shells of the elements.
        n_matrices: matrices per molecule.
    """

    pair_inverse: Tensor

    def __init__(self, basis: BasisSet, n_matrices: int) -> None:
        super().__init__()
        self.mean = OfElements(basis, n_matrices, 0.0)
        self.inverse = OfElements(basis, n_matrices, 0.0)
        self.pair_slots: Slots[Key] = Slots(
            {key: pair_table(*key).dim for key in keys_of(basis) if len(key) == 2}
        )
        shape = n_matrices, self.pair_slots.total
        self.register_buffer("pair_inverse", torch.zeros(shape, dtype=torch.float64))

    def inverse_of(self, key: Key) -> Tensor:
        """Return the inverse scale of one kind of pair, ``[n_matrices, dim]``."""
        return self.pair_inverse[:, self.pair_slots[key]]

    def set(self, means: Means, scale: Scale) -> None:
        """Take centre and scale from the statistics of a training set."""
        self.mean.values.copy_(means.elements.values)
        self.inverse.values.copy_(1 / scale.elements.values)
        self.pair_inverse.copy_(torch.where(scale.pairs > 0, 1 / scale.pairs, 0.0))


class MatrixInput(IrrepMaps):
    """Map the irreps of matrices to node and edge features.

    Args:
        lmax: largest degree of the features.
        channels: channels C.
        basis: shells of the elements.
        n_matrices: matrices per molecule.
        unnatural: channels of unnatural parity.
    """

    def __init__(
        self, lmax: int, channels: int, basis: BasisSet, n_matrices: int, *, unnatural: int = 0
    ) -> None:
        super().__init__()
        self.lmax, self.channels, self.n_matrices = lmax, channels, n_matrices
        self.known = Standard(basis, n_matrices)
        self.draw(basis, n_matrices, channels, unnatural, to_irreps=False)

    @torch.no_grad()
    def fit(self, items: Sequence[Item], basis: BasisSet) -> None:
        """Take centre and scale of every irrep from prepared training molecules."""
        means, scale = (
            Means.of_targets(map(_as_target, items), basis, self.n_matrices),
            Scale(basis, self.n_matrices),
        )
        scale.fit((means.subtract(_as_target(item)) for item in items), basis)
        self.known.set(means, scale)

    def nodes(self, batch: Batch) -> Tensor:
        """Return what the blocks of the atoms add to the nodes, ``[N, K, C]`` l-major."""
        dtype, maps = self.weights[0].dtype, self.cut(b.key for b in batch.buckets if len(b.key) == 1)
        total = torch.zeros(
            len(batch.numbers), (self.lmax + 1) ** 2, self.channels, dtype=dtype, device=batch.numbers.device
        )
        for bucket in batch.buckets:
            if len(bucket.key) > 1:
                continue
            known = self.known
            values = read(bucket) - known.mean(bucket, batch.numbers)
            values = (values * known.inverse(bucket, batch.numbers)).to(dtype)
            parts = [
                part @ maps.of(l, bucket.key)
                for l, part in enumerate(split_degrees(values, table_of(bucket.key)))
            ]
            rows = torch.cat(parts, dim=1)
            total[:, : rows.shape[1]].index_add_(0, bucket.index, rows)
        return total

    def edges(self, buckets: Sequence[Bucket], geometry: EdgeGeometry, start: int, n_pairs: int) -> Tensor:
        """Return what the blocks of the pairs add to the edges, ``[2p, K, C]`` m-major, edge frames.

        Args:
            buckets: of the batch.
            geometry: of p pairs, from pair ``start`` on.
            start: the first pair.
            n_pairs: pairs of the whole batch.
        """
        between = [bucket for bucket in buckets if len(bucket.key) == 2]
        dtype, maps = self.weights[0].dtype, self.cut(bucket.key for bucket in between)
        here, n_rows = geometry.n_pairs, (self.lmax + 1) ** 2
        if not between:
            return geometry.envelope.new_zeros(2 * here, n_rows, self.channels)
        ends, edges = [], []
        for bucket in between:
            key, (chosen, index) = bucket.key, edges_inside(bucket.index, start, here, n_pairs)
            values = (read(bucket)[chosen] * self.known.inverse_of(key)).to(dtype)
            values = rotate_pairs(values, key, index, geometry, to_edge=True)
            values = values * geometry.envelope[index % here][:, None, None]
            both = [
                part @ torch.cat([maps.of(l, key), maps.transposed(l, key)], dim=1)
                for l, part in enumerate(split_degrees(values, table_of(key)))
            ]
            if (rest := n_rows - len(both) ** 2) > 0:
                both.append(values.new_zeros(len(index), rest, 2 * self.channels))
            ends.append(torch.cat(both, dim=1))
            edges.append(index)
        total: Tensor = ToBothEdges.apply(torch.cat(ends), geometry, torch.cat(edges))
        return total


def _as_target(item: Item) -> Item:
    """Return the item with the matrices it reads in the place of its target."""
    buckets = {key: replace(bucket, target=bucket.inputs) for key, bucket in item.buckets.items()}
    return replace(item, buckets=buckets)


def read(bucket: Bucket) -> Tensor:
    """Return the irreps of the matrices that are read, ``[n, n_matrices, dim]``, laboratory frame.

    Raises:
        InputError: there are none.
    """
    if bucket.inputs is None:
        raise InputError("the model takes matrices as input (H₀ or S): they are not there")
    return bucket.inputs
