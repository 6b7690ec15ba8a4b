"""The Hamiltonian head: gated features, then one linear map per degree and shell-signature pair.

A pair block is read from both directed edges of the pair, ``y = ½ (W_ab e_ij + W'_ab e_ji)`` in the
frame of i→j. For equal signatures W' is W with the shells exchanged and the sign
``(−1)^{l₁+l₂−l}``, so that exchanging the atoms transposes the block exactly: Hermitian and
permutation-equivariant by construction.

Irreps with l₁ + l₂ + l even are of natural parity and read natural channels, the others unnatural ones, if
the network has any (:class:`helmol.model.kinds.IrrepMaps`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from helmol.basis import BasisSet
from helmol.errors import ConfigError
from helmol.graph import Bucket, EdgeGeometry
from helmol.graph.batch import Key
from helmol.graph.blocks import edges_inside, join_degrees, table_of
from helmol.model.backbone import run_block
from helmol.model.backbone.config import BackboneConfig
from helmol.model.backbone.layers import degree_index
from helmol.model.ends import BothEdges
from helmol.model.heads.head import Ask, Features, Head
from helmol.model.kinds import Cut, IrrepMaps
from helmol.target import Domain, FockOutput, FockTarget, Sizes
from helmol.target.parts import Slots


class Gate(nn.Module):
    """``scalars ← SiLU(linear)``, ``x_l ← x_l · sigmoid(gate_l)`` with gates read from the scalars."""

    degree: Tensor

    def __init__(self, lmax: int, channels: int, *, edges: bool) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.linear = nn.Linear(channels, (lmax + 1) * channels)
        self.register_buffer("degree", degree_index(lmax, edges=edges)[1:] - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, K, C]`` to ``[n, K, C]``."""
        first, rest = x.split([1, x.shape[1] - 1], dim=1)
        scalars, gates = self.linear(first[:, 0]).split([self.channels, self.lmax * self.channels], dim=1)
        gates = torch.sigmoid(gates).view(len(x), self.lmax, self.channels)
        return torch.cat(
            [functional.silu(scalars)[:, None], rest * gates.index_select(1, self.degree)], dim=1
        )


class FockHead(Head, IrrepMaps):
    """Turn features into normalised irreps of every block.

    Args:
        lmax: largest degree of the features; must reach twice the largest shell.
        channels: channels C.
        basis: shells of the elements.
        n_spins: Fock matrices per molecule.
        unnatural: channels of unnatural parity.
    """

    reads_edges = True

    def __init__(
        self, lmax: int, channels: int, basis: BasisSet, *, n_spins: int, unnatural: int = 0
    ) -> None:
        super().__init__()
        self.lmax, self.n_spins = lmax, n_spins
        self.node_gate = Gate(lmax, channels, edges=False)
        self.edge_gate = Gate(lmax, channels, edges=True)
        self.draw(basis, n_spins, channels, unnatural, to_irreps=True)
        scalars = self.slots[0]
        self.bias_slots = Slots(
            {k: scalars[k].stop - scalars[k].start for k in scalars.keys if k[0] <= k[-1]}
        )
        self.bias = nn.Parameter(torch.zeros(self.bias_slots.total))

    @classmethod
    def make(cls, lmax: int, config: BackboneConfig, domain: Domain, settings: Mapping[str, Any]) -> FockHead:
        """Return a head with random weights; see :meth:`Head.make`.

        Raises:
            ConfigError: the features do not reach the degrees of the blocks.
        """
        needed = max(2 * domain.basis.lmax, 1)
        if lmax < needed:
            raise ConfigError(
                f"lmax = {lmax} cannot hold the blocks of basis {domain.basis.name!r}, whose largest shell "
                f"has l = {domain.basis.lmax}: lmax must be at least {needed} (or unset)"
            )
        return cls(lmax, config.channels, domain.basis, n_spins=domain.n_spins, unnatural=config.unnatural)

    @classmethod
    def target(cls, domain: Domain, sizes: Sizes, description: Mapping[str, Any] | None) -> FockTarget:
        """Return what is known of Fock matrices; see :meth:`Head.target`."""
        return FockTarget(domain, sizes, description)

    def forward(self, features: Features, target: nn.Module | None, ask: Ask) -> FockOutput:
        """Return the irreps of every block of a batch."""
        if not isinstance(target, FockTarget):
            raise TypeError("the Hamiltonian head needs the target of Fock matrices")
        states, backbone = features.states, features.backbone
        nodes = self.node_gate(states.final)
        n_pairs = states.geometry.n_pairs
        step = ask.pairs_at_once or max(n_pairs, 1)
        between = [b for b in features.batch.buckets if len(b.key) == 2]
        parts: list[list[Tensor]] = [[] for _ in between]
        orders: list[list[Tensor]] = [[] for _ in between]

        def read(stream: Tensor, geometry: EdgeGeometry, kinds: Sequence[tuple[Key, Tensor]]) -> list[Tensor]:
            return self.pairs(self.edge_gate(backbone.normalised_edges(stream)), geometry, kinds)

        for start in range(0, n_pairs, step):
            part = None if step >= n_pairs else slice(start, min(start + step, n_pairs))
            geometry = states.geometry if part is None else states.geometry.select(part)
            stream = features.edges(part, geometry, checkpoint=ask.checkpoint)
            found = [edges_inside(b.index, start, geometry.n_pairs, n_pairs) for b in between]
            kinds = [(b.key, local) for b, (_, local) in zip(between, found, strict=True)]
            blocks = run_block(read, stream, geometry, kinds, checkpoint=ask.checkpoint)
            for k, (chosen, _) in enumerate(found):
                parts[k].append(blocks[k])
                orders[k].append(chosen)
        joined = (_in_order(*values) for values in zip(parts, orders, strict=True))
        atoms = iter(self.diagonal(nodes, [b for b in features.batch.buckets if len(b.key) == 1]))
        blocks = [next(atoms) if len(b.key) == 1 else next(joined) for b in features.batch.buckets]
        return target.output(blocks, states.geometry, features.batch)

    def diagonal(self, nodes: Tensor, buckets: Sequence[Bucket]) -> list[Tensor]:
        """Return the irreps of blocks on the diagonal, ``[n, n_spins, dim]`` each, laboratory frame.

        Args:
            nodes: final node features ``[N, K, C]``, gated by :attr:`node_gate`.
            buckets: signature and atoms of each kind.
        """
        maps, bias = self._readouts([b.key for b in buckets])
        sizes = [2 * l + 1 for l in range(self.lmax + 1)]
        blocks = []
        for bucket in buckets:
            table = table_of(bucket.key)
            degrees = nodes.index_select(0, bucket.index).split(sizes, dim=1)
            parts = [x @ maps.of(l, bucket.key).T for l, x in enumerate(degrees[: len(table.counts)])]
            parts[0] = parts[0] + bias[bucket.key]
            blocks.append(join_degrees(parts, table, self.n_spins))
        return blocks

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
        sizes, (maps, bias) = [len(some) for _, some in blocks], self._readouts([key for key, _ in blocks])
        kinds = zip(blocks, ends.split(sizes), envelope.split(sizes), strict=True)
        return [self._pairs(maps, bias[key], key, both) * faded for (key, _), both, faded in kinds]

    def _pairs(self, maps: Cut, bias: Tensor, key: Key, ends: Tensor) -> Tensor:
        """Read blocks of one kind from ``[e_ij ‖ S e_ji]``, ``[n, K, 2C]`` l-major."""
        table, parts = table_of(key), []
        degrees = ends.split([2 * l + 1 for l in range(self.lmax + 1)], dim=1)
        for l, x in enumerate(degrees[: len(table.counts)]):
            both = torch.cat([maps.of(l, key), maps.transposed(l, key)], dim=1)
            parts.append(0.5 * (x @ both.T))
        if key in self.exchange:
            order, sign = (part.to(bias.device) for part in self.exchange[key][0])
            bias = 0.5 * (bias + bias[order] * sign.to(bias))
        parts[0] = parts[0] + bias
        return join_degrees(parts, table, self.n_spins)

    def _readouts(self, keys: Sequence[Key]) -> tuple[Cut, dict[Key, Tensor]]:
        """Return the maps of some kinds of blocks and the biases by kind."""
        return self.cut(keys), self.bias_slots.cut(self.bias, {*keys, *(key[::-1] for key in keys)})


def _in_order(values: list[Tensor], places: list[Tensor]) -> Tensor:
    """Join values that came in parts, each to its place."""
    if len(values) == 1:
        return values[0]
    return torch.cat(values).index_select(0, torch.argsort(torch.cat(places)))
