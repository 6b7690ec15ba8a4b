"""Matrices as input of the network: blocks of H₀ and S become node and edge features.

It is the Hamiltonian head turned round. Of every block of an atom or a pair the irreps are standardised and
mapped, by one linear map per degree and kind of block, to the channels of the atom's node and of the two
directed edges of the pair; the edge j→i receives the transposed block. So rotations, the exchange of atoms
and their order are respected as by the head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from helmol.basis import BasisSet, IrrepTable, diagonal_table, pair_table
from helmol.errors import InputError
from helmol.graph import Batch, Bucket, EdgeGeometry
from helmol.graph.batch import Key
from helmol.graph.layout import rows_of_degree
from helmol.model.blocks import exchange_irreps, key_name, rotate_pairs
from helmol.model.statistics import Statistics


class MatrixInput(nn.Module):
    """Map the irreps of given matrices to node and edge features.

    Args:
        lmax: largest degree of the features.
        channels: channels C.
        basis: shells of the elements.
        n_matrices: matrices per molecule.
    """

    def __init__(self, lmax: int, channels: int, basis: BasisSet, n_matrices: int) -> None:
        super().__init__()
        self.lmax, self.channels, self.n_matrices = lmax, channels, n_matrices
        self.maps = nn.ModuleDict()
        self.exchange: dict[Key, list[tuple[Tensor, Tensor]]] = {}
        for number, element in basis.elements.items():
            dim = diagonal_table(element.shells).dim
            self.register_buffer(f"mean_{number}", torch.zeros(n_matrices, dim))
            self.register_buffer(f"inverse_{number}", torch.zeros(n_matrices, dim))
        ordered = sorted({element.shells for element in basis.elements.values()})
        for a, first in enumerate(ordered):
            self._add((first,), diagonal_table(first))
            for second in ordered[a:]:
                table = pair_table(first, second)
                self._add((first, second), table)
                self.register_buffer(
                    f"inverse_{key_name((first, second))}", torch.zeros(n_matrices, table.dim)
                )
                if first == second:
                    self.exchange[first, second] = exchange_irreps(table, first, n_matrices)
                else:
                    self._add((second, first), table)

    def set_statistics(self, statistics: Statistics) -> None:
        """Take centre and scale of every irrep from those of the training set's matrices."""
        for number, mean in statistics.mean.items():
            self.get_buffer(f"mean_{number}").copy_(mean)
            self.get_buffer(f"inverse_{number}").copy_(1 / statistics.scale[number])
        for key, scale in statistics.pair_scale.items():
            self.get_buffer(f"inverse_{key_name(key)}").copy_(torch.where(scale > 0, 1 / scale, 0.0))

    def nodes(self, batch: Batch) -> Tensor:
        """Return what the blocks of the atoms add to the nodes, ``[N, K, C]`` l-major."""
        dtype = next(self.parameters()).dtype
        total = torch.zeros(
            len(batch.numbers), (self.lmax + 1) ** 2, self.channels, dtype=dtype, device=batch.numbers.device
        )
        for bucket in batch.buckets:
            if len(bucket.key) > 1:
                continue
            irreps, numbers = given(bucket), batch.numbers[bucket.index]
            values = torch.empty(irreps.shape, dtype=dtype, device=irreps.device)
            for number in torch.unique(numbers).tolist():
                mine = numbers == number
                mean = self.get_buffer(f"mean_{number}").to(irreps)
                values[mine] = ((irreps[mine] - mean) * self.get_buffer(f"inverse_{number}")).to(dtype)
            weights = self._weights(bucket.key)
            parts = [
                part @ weight for part, weight in zip(self._degrees(values, bucket.key), weights, strict=True)
            ]
            total[:, : sum(part.shape[1] for part in parts)].index_add_(
                0, bucket.index, torch.cat(parts, dim=1)
            )
        return total

    def edges(self, buckets: Sequence[Bucket], geometry: EdgeGeometry, start: int, n_pairs: int) -> Tensor:
        """Return what the blocks of the pairs add to the edges, ``[2p, K, C]`` m-major, edge frames.

        Args:
            buckets: of the batch.
            geometry: of p pairs, from pair ``start`` on.
            start: the first pair.
            n_pairs: pairs of the whole batch.
        """
        dtype = next(self.parameters()).dtype
        here, n_rows = geometry.n_pairs, (self.lmax + 1) ** 2
        total = torch.zeros(2 * here, n_rows, self.channels, dtype=dtype, device=geometry.envelope.device)
        rows = rows_of_degree(self.lmax)
        for bucket in buckets:
            if len(bucket.key) == 1:
                continue
            chosen, index = edges_inside(bucket.index, start, here, n_pairs)
            inverse = self.get_buffer(f"inverse_{key_name(bucket.key)}")
            values = (given(bucket)[chosen] * inverse.to(torch.float64)).to(dtype)
            values = rotate_pairs(values, bucket.key, index, geometry, to_edge=True)
            values = values * geometry.envelope[index % here][:, None, None]
            opposite = (index + here) % (2 * here)
            weights, turned = self._weights(bucket.key), self._turned(bucket.key)
            for l, part in enumerate(self._degrees(values, bucket.key)):
                flip = geometry.flip[l * l : (l + 1) ** 2, None].to(dtype)
                row = rows[l].to(index.device)
                total[index[:, None], row] += part @ weights[l]
                total[opposite[:, None], row] += (part * flip) @ turned[l]
        return total

    def _add(self, key: Key, table: IrrepTable) -> None:
        """Make the maps of one kind of block."""
        self.maps[key_name(key)] = nn.ParameterList(
            nn.Parameter(
                torch.randn(self.n_matrices * n, self.channels) * (self.n_matrices * max(n, 1)) ** -0.5
            )
            for n in table.counts
        )

    def _weights(self, key: Key) -> list[Tensor]:
        return list(self.maps[key_name(key)])

    def _turned(self, key: Key) -> list[Tensor]:
        """Return the maps of the transposed blocks, for irreps in the order of ``key``."""
        if key not in self.exchange:
            return self._weights(key[::-1])
        return [
            weight[order.to(weight.device)] * sign.to(weight)[:, None]
            for weight, (order, sign) in zip(self._weights(key), self.exchange[key], strict=True)
        ]

    def _degrees(self, values: Tensor, key: Key) -> list[Tensor]:
        """Split irreps ``[n, n_matrices, dim]`` by degree, ``[n, 2l+1, n_matrices · n_l]``."""
        table = diagonal_table(key[0]) if len(key) == 1 else pair_table(*key)
        sizes = [(2 * l + 1) * count for l, count in enumerate(table.counts)]
        return [
            part.reshape(len(values), self.n_matrices, 2 * l + 1, count).transpose(1, 2).flatten(2)
            for l, (part, count) in enumerate(zip(values.split(sizes, dim=2), table.counts, strict=True))
        ]


def given(bucket: Bucket) -> Tensor:
    """Return the irreps of the given matrices, ``[n, n_matrices, dim]``, laboratory frame.

    Raises:
        InputError: there are none.
    """
    if bucket.given is None:
        raise InputError("the model takes matrices as input (H₀ or S): they are not there")
    return bucket.given


def edges_inside(index: Tensor, start: int, n: int, n_pairs: int) -> tuple[Tensor, Tensor]:
    """Find the directed edges that belong to the pairs ``start … start+n``.

    Returns:
        Their places in ``index``, and their numbers among the ``2n`` edges of those pairs.
    """
    pair, backward = index % n_pairs, index // n_pairs
    chosen = ((pair >= start) & (pair < start + n)).nonzero()[:, 0]
    return chosen, pair[chosen] - start + backward[chosen] * n
