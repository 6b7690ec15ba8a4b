"""Node blocks, edge blocks, and the network they make."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helmol.graph import Batch, EdgeGeometry, edge_geometry
from helmol.model.backbone.layers import EquivariantNorm, FeedForward
from helmol.model.backbone.radial import EdgeScalars, NodeScalars, RadialNetwork
from helmol.model.backbone.so2 import SO2Convolution
from helmol.model.config import ModelConfig


@dataclass(frozen=True)
class Features:
    """Hold what the backbone computes.

    Attributes:
        nodes: ``[N, K, C]``, l-major, laboratory frame.
        edges: ``[2P, K, C]``, m-major, edge frame; ``None`` where edges were not asked for.
        geometry: the frames that belong to them.
    """

    nodes: Tensor
    edges: Tensor | None
    geometry: EdgeGeometry


class NodeBlock(nn.Module):
    """``h ← h + Σ_j envelope · conv(norm h_i, norm h_j)``, then ``h ← h + FFN(norm h)``."""

    def __init__(self, lmax: int, config: ModelConfig, n_scalars: int) -> None:
        super().__init__()
        c = config.channels
        radial = RadialNetwork(n_scalars, config.radial_channels, (lmax + 1) * 2 * c)
        self.norm = EquivariantNorm(lmax, c, edges=False)
        self.convolution = SO2Convolution(lmax, c, radial, gate=config.gate)
        self.norm_ffn = EquivariantNorm(lmax, c, edges=False)
        self.ffn = FeedForward(lmax, c, edges=False)

    def forward(self, nodes: Tensor, scalars: Tensor, geometry: EdgeGeometry) -> Tensor:
        """Update ``[N, K, C]``."""
        if geometry.n_pairs:
            messages = self.convolution(geometry.to_edges(self.norm(nodes)), scalars)
            envelope = torch.cat([geometry.envelope, geometry.envelope])[:, None, None]
            nodes = nodes + geometry.to_nodes(messages * envelope, len(nodes))
        return nodes + self.ffn(self.norm_ffn(nodes))


class EdgeBlock(nn.Module):
    """``e ← e + conv(norm h_i, norm h_j)`` (or ``e + norm conv(h_i, h_j)``), ``e ← e + FFN(norm e)``."""

    def __init__(self, lmax: int, config: ModelConfig, n_scalars: int) -> None:
        super().__init__()
        c = config.channels
        radial = RadialNetwork(n_scalars, config.radial_channels, (lmax + 1) * 2 * c)
        self.pre = config.edge_norm == "pre"
        self.norm = EquivariantNorm(lmax, c, edges=not self.pre)
        self.convolution = SO2Convolution(lmax, c, radial, gate=config.gate)
        self.norm_ffn = EquivariantNorm(lmax, c, edges=True)
        self.ffn = FeedForward(lmax, c, edges=True)

    def forward(self, edges: Tensor, nodes: Tensor, scalars: Tensor, geometry: EdgeGeometry) -> Tensor:
        """Update ``[2P, K, C]``."""
        if self.pre:
            edges = edges + self.convolution(geometry.to_edges(self.norm(nodes)), scalars)
        else:
            edges = edges + self.norm(self.convolution(geometry.to_edges(nodes), scalars))
        return edges + self.ffn(self.norm_ffn(edges))


class Backbone(nn.Module):
    """The HELM network without a head.

    Args:
        config: size and switches.
        lmax: largest degree (``config.lmax`` resolved for the basis).
    """

    def __init__(self, config: ModelConfig, lmax: int) -> None:
        super().__init__()
        c = config.channels
        n_scalars = 2 * config.element_channels + config.n_radial
        self.config, self.lmax = config, lmax
        self.edge_scalars = EdgeScalars(config.cutoff, config.n_radial, config.element_channels)
        self.node_scalars = NodeScalars(c)
        self.degree_embedding = RadialNetwork(n_scalars, config.radial_channels, (lmax + 1) * c)
        self.node_blocks = nn.ModuleList(NodeBlock(lmax, config, n_scalars) for _ in range(config.n_layers))
        self.edge_blocks = nn.ModuleList(EdgeBlock(lmax, config, n_scalars) for _ in range(config.n_layers))
        self.node_norm = EquivariantNorm(lmax, c, edges=False)
        self.edge_norm = EquivariantNorm(lmax, c, edges=True)

    def forward(self, batch: Batch, *, edges: bool = True) -> Features:
        """Compute node features and, if ``edges``, edge features of a batch."""
        dtype = self.node_norm.weight.dtype
        geometry = edge_geometry(
            batch.positions, batch.pair_index, lmax=self.lmax, cutoff=self.config.cutoff, dtype=dtype,
            envelope=self.config.envelope,
        )  # fmt: skip
        scalars = self.edge_scalars(batch.numbers, batch.pair_index, geometry.distance)
        envelope = torch.cat([geometry.envelope, geometry.envelope])[:, None, None]
        radial = self.degree_embedding(scalars).view(len(scalars), self.lmax + 1, self.config.channels) * envelope
        start = self.node_scalars(batch.numbers, batch.charge[batch.molecule], batch.spin[batch.molecule])
        nodes = geometry.axis_to_nodes(radial, len(start)) / self.config.message_scale
        nodes = torch.cat([nodes[:, :1] + start[:, None], nodes[:, 1:]], dim=1)
        # In the edge frame the edge-degree embedding has m = 0 components only, which come first.
        rest = (self.lmax + 1) ** 2 - (self.lmax + 1)
        stream = torch.cat([radial, radial.new_zeros(len(radial), rest, radial.shape[2])], dim=1)
        with_edges = edges and geometry.n_pairs > 0
        for node_block, edge_block in zip(self.node_blocks, self.edge_blocks, strict=True):
            nodes = node_block(nodes, scalars, geometry)
            if with_edges:
                stream = edge_block(stream, nodes, scalars, geometry)
        return Features(self.node_norm(nodes), self.edge_norm(stream) if edges else None, geometry)
