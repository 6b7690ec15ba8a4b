"""The Hamiltonian head: gated features, then one linear map per degree and shell-signature pair.

A pair block is read from both directed edges of the pair, ``y = ½ (W_ab e_ij + W'_ab e_ji)`` in the
frame of i→j. For equal signatures W' is W with the shells exchanged and the sign
``(−1)^{l₁+l₂−l}``, so that exchanging the atoms transposes the block exactly: Hermitian and
permutation-equivariant by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from helmol.basis import IrrepTable, Signature, diagonal_table, pair_table
from helmol.graph import EdgeGeometry
from helmol.graph.batch import Key
from helmol.model.backbone.layers import degree_index
from helmol.model.blocks import exchange_irreps, key_name


class Gate(nn.Module):
    """``scalars ← SiLU(linear)``, ``x_l ← x_l · sigmoid(gate_l)`` with gates read from the scalars."""

    def __init__(self, lmax: int, channels: int, *, edges: bool) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.linear = nn.Linear(channels, (lmax + 1) * channels)
        self.register_buffer("degree", degree_index(lmax, edges=edges)[1:] - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, K, C]`` to ``[n, K, C]``."""
        scalars, gates = self.linear(x[:, 0]).split([self.channels, self.lmax * self.channels], dim=1)
        gates = torch.sigmoid(gates).view(len(x), self.lmax, self.channels)
        return torch.cat(
            [functional.silu(scalars)[:, None], x[:, 1:] * gates.index_select(1, self.degree)], dim=1
        )


class BlockReadout(nn.Module):
    """One linear map per degree, C → number of irreps of that degree (times spins)."""

    def __init__(self, table: IrrepTable, channels: int, n_spins: int, *, bias: bool = True) -> None:
        super().__init__()
        self.n_spins, self.counts = n_spins, table.counts
        self.weights = nn.ParameterList(
            nn.Parameter(torch.randn(channels, n_spins * n) * channels**-0.5) for n in table.counts
        )
        self.bias = nn.Parameter(torch.zeros(n_spins * table.counts[0])) if bias else None

    def assemble(self, parts: list[Tensor]) -> Tensor:
        """Join per-degree outputs ``[n, 2l+1, n_spins·n_l]`` to ``[n, n_spins, dim]``."""
        n = len(parts[0])
        flat = [
            part.view(n, 2 * l + 1, self.n_spins, count)
            .transpose(1, 2)
            .reshape(n, self.n_spins, (2 * l + 1) * count)
            for l, (part, count) in enumerate(zip(parts, self.counts, strict=True))
        ]
        return torch.cat(flat, dim=2)


class BothEdges(torch.autograd.Function):
    """Gather the edges i→j and j→i of pairs side by side, in the frame of i→j; once differentiable."""

    @staticmethod
    def forward(ctx: Any, edges: Tensor, geometry: EdgeGeometry, index: Tensor) -> Tensor:
        """Return ``[e_ij ‖ S e_ji]``, ``[n, K, 2C]`` l-major.

        Args:
            ctx: autograd's.
            edges: ``[2P, K, C]`` m-major.
            geometry: of the pairs.
            index: the edges i→j, no pair twice, ``[n]``.
        """
        _, k, c = edges.shape
        both = torch.stack([index, (index + geometry.n_pairs) % (2 * geometry.n_pairs)], dim=1)
        rows = (both[:, None] * k + geometry.to_l_major[:, None]).flatten()
        ctx.shape, ctx.rows, ctx.flip = edges.shape, rows, geometry.flip[:, None]
        ends = edges.reshape(-1, c).index_select(0, rows).view(len(index), k, 2 * c)
        ends[..., c:] *= ctx.flip
        return ends

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the edges."""
        c = ctx.shape[2]
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        gradient[..., c:] *= ctx.flip
        edges = gradient.new_zeros(ctx.shape)
        edges.view(-1, c).index_copy_(0, ctx.rows, gradient.view(-1, c))
        return edges, None, None


class HamiltonianHead(nn.Module):
    """Turn features into normalised irreps of every block.

    Args:
        lmax: largest degree of the features; must reach twice the largest shell.
        channels: channels C.
        signatures: shell signatures of the elements in the domain.
        n_spins: Fock matrices per molecule.
    """

    def __init__(self, lmax: int, channels: int, signatures: set[Signature], *, n_spins: int) -> None:
        super().__init__()
        self.lmax, self.n_spins = lmax, n_spins
        self.node_gate = Gate(lmax, channels, edges=False)
        self.edge_gate = Gate(lmax, channels, edges=True)
        self.readouts = nn.ModuleDict()
        self.exchange: dict[Key, list[tuple[Tensor, Tensor]]] = {}
        ordered = sorted(signatures)
        for a, first in enumerate(ordered):
            self.readouts[key_name((first,))] = BlockReadout(diagonal_table(first), channels, n_spins)
            for second in ordered[a:]:
                table = pair_table(first, second)
                self.readouts[key_name((first, second))] = BlockReadout(table, channels, n_spins)
                if first == second:
                    self.exchange[first, second] = exchange_irreps(table, first, n_spins)
                else:
                    self.readouts[key_name((second, first))] = BlockReadout(
                        table, channels, n_spins, bias=False
                    )

    def diagonal(self, nodes: Tensor, key: Key, index: Tensor) -> Tensor:
        """Return the irreps of blocks on the diagonal, ``[n, n_spins, dim]``, laboratory frame.

        Args:
            nodes: final node features ``[N, K, C]``, gated by :attr:`node_gate`.
            key: signature of the atoms.
            index: the atoms, ``[n]``.
        """
        readout = self._readout(key)
        x = nodes.index_select(0, index)
        parts = [x[:, l * l : (l + 1) ** 2] @ w for l, w in enumerate(readout.weights)]
        parts[0] = parts[0] + readout.bias
        return readout.assemble(parts)

    def pairs(
        self, edges: Tensor, geometry: EdgeGeometry, blocks: Sequence[tuple[Key, Tensor]]
    ) -> list[Tensor]:
        """Return blocks between two atoms, edge frame, faded: irreps ``[n, n_spins, dim]`` of each kind.

        Args:
            edges: final edge features ``[2P, K, C]``, gated by :attr:`edge_gate`.
            geometry: of the same pairs.
            blocks: for each kind the signatures of rows and columns, and the directed edges, ``[n]``.
        """
        if not blocks:
            return []
        index = torch.cat([some for _, some in blocks])
        ends: Tensor = BothEdges.apply(edges, geometry, index)
        envelope = geometry.envelope[index % geometry.n_pairs][:, None, None]
        sizes = [len(some) for _, some in blocks]
        kinds = zip(blocks, ends.split(sizes), envelope.split(sizes), strict=True)
        return [self._pairs(key, both) * faded for (key, _), both, faded in kinds]

    def _pairs(self, key: Key, ends: Tensor) -> Tensor:
        """Read blocks of one kind from ``[e_ij ‖ S e_ji]``, ``[n, K, 2C]`` l-major."""
        readout, parts = self._readout(key), []
        degrees = ends.split([2 * l + 1 for l in range(self.lmax + 1)], dim=1)
        for l, (x, weight) in enumerate(zip(degrees, readout.weights, strict=False)):
            if key in self.exchange:
                order, sign = self.exchange[key][l]
                other = weight[:, order.to(weight.device)] * sign.to(weight)
            else:
                other = self._readout(key[::-1]).weights[l]
            parts.append(0.5 * (x @ torch.cat([weight, other], dim=0)))
        bias = readout.bias
        if key in self.exchange:
            order, sign = self.exchange[key][0]
            bias = 0.5 * (bias + bias[order.to(bias.device)] * sign.to(bias))
        parts[0] = parts[0] + bias
        return readout.assemble(parts)

    def _readout(self, key: Key) -> BlockReadout:
        readout = self.readouts[key_name(key)]
        if not isinstance(readout, BlockReadout):
            raise TypeError(f"no read-out for {key}")
        return readout
