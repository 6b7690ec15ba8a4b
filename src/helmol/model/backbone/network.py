"""Node blocks, edge blocks, and the network they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from helmol.brief import brief
from helmol.errors import ConfigError
from helmol.graph import Batch, EdgeGeometry, Pairs, edge_geometry
from helmol.graph.axis import Axis
from helmol.graph.frames import smooth_cutoff
from helmol.model.backbone.config import BackboneConfig
from helmol.model.backbone.layers import EquivariantNorm, FeedForward
from helmol.model.backbone.radial import EdgeScalars, NodeScalars, RadialNetwork
from helmol.model.backbone.so2 import SO2Convolution


@dataclass(frozen=True)
class NodeStates:
    """Hold what the node blocks leave behind; edge features follow from it pair by pair.

    Attributes:
        layers: nodes after each layer, ``[N, K, C]``, l-major, laboratory frame.
        final: nodes after the final norm.
        scalars: edge scalars of all directed edges, ``[2P, n_scalars]``.
        geometry: frames of all pairs.
        near: the pairs that exchanged messages.
        near_scalars: edge scalars of their directed edges.
    """

    layers: list[Tensor]
    final: Tensor
    scalars: Tensor
    geometry: EdgeGeometry
    near: Pairs
    near_scalars: Tensor

    __repr__ = brief


class NodeBlock(nn.Module):
    """``h ← h + Σ_j envelope · conv(norm h_i, norm h_j)``, then ``h ← h + FFN(norm h)``."""

    def __init__(self, lmax: int, config: BackboneConfig, n_scalars: int) -> None:
        super().__init__()
        c = config.channels
        self.norm = EquivariantNorm(lmax, c, edges=False)
        self.convolution = SO2Convolution(lmax, config, n_scalars)
        self.norm_ffn = EquivariantNorm(lmax, c, edges=False)
        self.ffn = FeedForward(lmax, c, edges=False, unnatural=config.unnatural)

    def forward(self, nodes: Tensor, edges: Sequence[tuple[Tensor, Pairs]]) -> Tensor:
        """Update ``[N, K, C]`` by messages along edges, given in parts: their scalars, and the pairs."""
        normalised = self.norm(nodes)
        for scalars, pairs in edges:
            if pairs.geometry.n_pairs:
                messages = self.convolution(normalised, scalars, pairs)
                nodes = nodes + pairs.weighted_sum(messages, len(nodes))
        return nodes + self.ffn(self.norm_ffn(nodes))


class EdgeBlock(nn.Module):
    """``e ← e + conv(norm h_i, norm h_j)`` (or ``e + norm conv(h_i, h_j)``), ``e ← e + FFN(norm e)``."""

    def __init__(self, lmax: int, config: BackboneConfig, n_scalars: int) -> None:
        super().__init__()
        c = config.channels
        self.pre = config.edge_norm == "pre"
        self.norm = EquivariantNorm(lmax, c, edges=not self.pre)
        self.convolution = SO2Convolution(lmax, config, n_scalars)
        self.norm_ffn = EquivariantNorm(lmax, c, edges=True)
        self.ffn = FeedForward(lmax, c, edges=True, unnatural=config.unnatural)

    def forward(self, edges: Tensor, nodes: Tensor, scalars: Tensor, pairs: Pairs) -> Tensor:
        """Update ``[2P, K, C]``."""
        if self.pre:
            edges = edges + self.convolution(self.norm(nodes), scalars, pairs)
        else:
            edges = edges + self.norm(self.convolution(nodes, scalars, pairs))
        return self.ffn.after_norm(edges, self.norm_ffn)


class Backbone(nn.Module):
    """The HELM network without a head.

    Args:
        config: size and switches.
        lmax: largest degree (``config.lmax`` resolved for the basis).
        edges: whether a head reads features of edges.
    """

    def __init__(self, config: BackboneConfig, lmax: int, *, edges: bool = True) -> None:
        super().__init__()
        c = config.channels
        n_scalars = 2 * config.element_channels + config.n_radial
        self.config, self.lmax = config, lmax
        self.edge_scalars = EdgeScalars(config.cutoff, config.n_radial, config.element_channels)
        self.node_scalars = NodeScalars(c)
        self.axis = Axis(lmax, c, config.unnatural)
        self.degree_embedding = RadialNetwork(n_scalars, config.radial_channels, self.axis.n_even)
        self.node_blocks = nn.ModuleList(NodeBlock(lmax, config, n_scalars) for _ in range(config.n_layers))
        n_edge_blocks = config.n_layers if edges else 0
        self.edge_blocks = nn.ModuleList(EdgeBlock(lmax, config, n_scalars) for _ in range(n_edge_blocks))
        self.node_norm = EquivariantNorm(lmax, c, edges=False)
        self.edge_norm = EquivariantNorm(lmax, c, edges=True) if edges else None

    def nodes(
        self,
        batch: Batch,
        *,
        extra: Tensor | None = None,
        checkpoint: bool = False,
        twice: bool = False,
        pairs_at_once: int | None = None,
    ) -> NodeStates:
        """Run the node blocks; energies need nothing else.

        Args:
            batch: molecules.
            extra: what is added to the nodes at the start, ``[N, K, C]``.
            checkpoint: keep only the nodes between blocks for the gradient and compute the rest again.
            twice: allow second derivatives, as training on forces needs; slower.
            pairs_at_once: pairs whose messages are in memory together; all by default.
        """
        dtype = self.node_norm.weight.dtype
        geometry = edge_geometry(
            batch.positions, batch.pair_index, lmax=self.lmax, cutoff=self.config.cutoff, dtype=dtype,
            envelope=self.config.envelope, unnatural=self.config.unnatural,
        )  # fmt: skip
        scalars = self.edge_scalars(batch.numbers, batch.pair_index, geometry.distance)
        near, near_scalars = self._messages(geometry, scalars)
        start = self.node_scalars(batch.numbers, batch.charge[batch.molecule], batch.spin[batch.molecule])
        parts = _in_parts(near, near_scalars, pairs_at_once)
        messages = [some.axis_to_nodes(self._radial(of_them, some), len(start)) for of_them, some in parts]
        nodes = sum(messages[1:], start=messages[0]) / self.config.message_scale
        scalar, rest = nodes.split([1, nodes.shape[1] - 1], dim=1)
        nodes = torch.cat([scalar + start[:, None], rest], dim=1)
        if extra is not None:
            nodes = nodes + extra
        layers, edges = [], [(of_them, Pairs.of(some, twice=twice)) for of_them, some in parts]
        for block in self.node_blocks:
            nodes = run_block(block, nodes, edges, checkpoint=checkpoint)
            layers.append(nodes)
        pairs = edges[0][1] if len(edges) == 1 else Pairs.of(near, twice=twice)
        return NodeStates(layers, self.node_norm(nodes), scalars, geometry, pairs, near_scalars)

    def edges(
        self,
        states: NodeStates,
        part: slice | None = None,
        *,
        extra: Tensor | None = None,
        checkpoint: bool = False,
    ) -> Tensor:
        """Run the edge blocks for some pairs.

        Args:
            states: from :meth:`nodes`.
            part: which pairs; all by default.
            extra: what is added to their edges at the start, ``[2p, K, C]``.
            checkpoint: as in :meth:`nodes`.

        Returns:
            ``[2p, K, C]`` m-major in the edge frames: i→j of the pairs, then j→i. Heads read it after
            :meth:`normalised_edges`.
        """
        geometry, scalars = states.geometry, states.scalars
        if part is not None:
            scalars, geometry = _part(geometry, scalars, part)
        radial = self._radial(scalars, geometry)
        # In the edge frame the edge-degree embedding has m = 0 components only, which come first.
        rest = (self.lmax + 1) ** 2 - (self.lmax + 1)
        stream = torch.cat([radial, radial.new_zeros(len(radial), rest, radial.shape[2])], dim=1)
        if extra is not None:
            stream = stream + extra
        pairs = Pairs.of(geometry)
        for block, nodes in zip(self.edge_blocks, states.layers, strict=True):
            stream = run_block(block, stream, nodes, scalars, pairs, checkpoint=checkpoint)
        return stream

    def normalised_edges(self, stream: Tensor) -> Tensor:
        """Return what the edge blocks left, after the final norm.

        Raises:
            ConfigError: the backbone was made without edge blocks.
        """
        if self.edge_norm is None:
            raise ConfigError("this model has no features of atom pairs: it predicts energies only")
        normalised: Tensor = self.edge_norm(stream)
        return normalised

    def _messages(self, geometry: EdgeGeometry, scalars: Tensor) -> tuple[EdgeGeometry, Tensor]:
        """Return the pairs that exchange messages, and the scalars of their edges."""
        cutoff = self.config.message_cutoff
        if cutoff is None or cutoff >= self.config.cutoff:
            return geometry, scalars
        near = (geometry.distance < cutoff).nonzero()[:, 0]
        chosen = geometry.select(near)
        if self.config.envelope:
            chosen = replace(chosen, envelope=smooth_cutoff(chosen.distance / cutoff))
        return chosen, scalars[torch.cat([near, near + geometry.n_pairs])]

    def _radial(self, scalars: Tensor, geometry: EdgeGeometry) -> Tensor:
        """Return the edge-degree embedding in the edge frame, ``[2P, L+1, C]``: m = 0 of each l.

        A distance alone makes nothing of unnatural parity.
        """
        envelope = torch.cat([geometry.envelope, geometry.envelope])[:, None, None]
        return self.axis.with_even(self.degree_embedding(scalars)) * envelope


def _part(geometry: EdgeGeometry, scalars: Tensor, part: slice) -> tuple[Tensor, EdgeGeometry]:
    """Return the scalars of the directed edges of some pairs, and their geometry."""
    return torch.cat([half[part] for half in scalars.split(geometry.n_pairs)]), geometry.select(part)


def _in_parts(geometry: EdgeGeometry, scalars: Tensor, n: int | None) -> list[tuple[Tensor, EdgeGeometry]]:
    """Return scalars and geometry of at most n pairs after the other; of all pairs if n is None or enough."""
    n_pairs = geometry.n_pairs
    if n is None or n >= n_pairs:
        return [(scalars, geometry)]
    return [_part(geometry, scalars, slice(k, min(k + n, n_pairs))) for k in range(0, n_pairs, n)]


def run_block(block: Callable[..., Any], *inputs: Any, checkpoint: bool) -> Any:
    """Call a block, keeping only its inputs for the gradient if ``checkpoint``."""
    if checkpoint and torch.is_grad_enabled():
        return recompute(block, *inputs, use_reentrant=False)
    return block(*inputs)
