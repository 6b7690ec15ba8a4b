"""The SO(2) convolution: linear maps in the edge frame, order m by order m."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from helmol.graph import Pairs
from helmol.graph.layout import m_sizes
from helmol.model.backbone.config import BackboneConfig
from helmol.model.backbone.fused import FusedFirstOfPairs, FusedSecond, both_ways
from helmol.model.backbone.radial import RadialNetwork


class SO2Linear(nn.Module):
    """Mix degrees and channels of each order m, keeping rotations about the edge.

    m = 0: ``out = x W + b`` over (l, channel). m > 0: ``out₊ = x₊ W_r − x₋ W_i``,
    ``out₋ = x₋ W_r + x₊ W_i`` over (l ≥ m, channel).

    Args:
        lmax: largest degree.
        channels_in: input channels.
        channels_out: output channels.
        mmax: largest order; components of higher order are neither read nor written.
        n_scalars: further outputs of the m = 0 part (gates).
    """

    def __init__(
        self, lmax: int, channels_in: int, channels_out: int, *, mmax: int, n_scalars: int = 0
    ) -> None:
        super().__init__()
        self.lmax, self.channels_out, self.n_scalars = lmax, channels_out, n_scalars
        fan_in = (lmax + 1) * channels_in
        self.zero = nn.Linear(fan_in, (lmax + 1) * channels_out + n_scalars)
        self.real, self.imaginary = nn.ParameterList(), nn.ParameterList()
        for m in range(1, mmax + 1):
            n_in, n_out = (lmax + 1 - m) * channels_in, (lmax + 1 - m) * channels_out
            for weights in (self.real, self.imaginary):
                weights.append(nn.Parameter(torch.randn(n_in, n_out) / (2 * n_in) ** 0.5))
        nn.init.normal_(self.zero.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.zero.bias)

    def flat_weights(self) -> list[Tensor]:
        """Return weight and bias of m = 0, then real and imaginary weight of each m > 0."""
        pairs = zip(self.real, self.imaginary, strict=True)
        return [self.zero.weight, self.zero.bias, *[weight for pair in pairs for weight in pair]]

    def forward(self, parts: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Map the features of each order.

        Args:
            parts: for m = 0 … mmax ``[E, n_m, C_in]``, +m before −m.

        Returns:
            The same list with ``C_out`` channels, and the scalars ``[E, n_scalars]``.
        """
        n = len(parts[0])
        size = (self.lmax + 1) * self.channels_out
        zero, scalars = self.zero(parts[0].flatten(1)).split([size, self.n_scalars], dim=1)
        outputs = [zero.view(n, self.lmax + 1, self.channels_out)]
        for x, real, imaginary in zip(parts[1:], self.real, self.imaginary, strict=True):
            weight = torch.cat(
                [torch.cat([real, imaginary], dim=1), torch.cat([-imaginary, real], dim=1)], dim=0
            )
            outputs.append((x.flatten(1) @ weight).view(n, x.shape[1], self.channels_out))
        return outputs, scalars


class SO2PairLinear(nn.Module):
    """Map both ends of a pair to features of both of its edges, at half the cost of two maps.

    Let u and v be x_i and x_j, each with its own radial weights, in the frame of i→j, and S the signs between
    the frames of the two directions. As the ends of the edge j→i are ``S v, S u``, the maps
    ``y_ij = W u + V v`` and ``y_ji = W S v + V S u`` obey

    ``y_ij ± y_ji = (W ± V S) (u ± S v)``.

    For m > 0 the product V S is V after a complex conjugation, so ``A = W + V S`` is any real matrix over
    (l ≥ m, ±m, channel) and ``W − V S = J⁻¹ A J`` with J the multiplication by i: one matrix serves both
    signs. m = 0 has one matrix for each. Source: "pair parity", derived for HELM (arXiv 2510.00224).

    Args:
        lmax: largest degree.
        channels_in: channels of one end.
        channels_out: output channels.
        mmax: largest order; components of higher order are neither read nor written.
        n_scalars: further outputs of the m = 0 part (gates).
    """

    def __init__(
        self, lmax: int, channels_in: int, channels_out: int, *, mmax: int, n_scalars: int = 0
    ) -> None:
        super().__init__()
        n_in, n_out = (lmax + 1) * channels_in, (lmax + 1) * channels_out + n_scalars
        self.lmax, self.channels_out = lmax, channels_out
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.zero = nn.ParameterList(nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5) for _ in range(2))
        self.orders = nn.ParameterList()
        for m in range(1, mmax + 1):
            n_in, n_out = 2 * (lmax + 1 - m) * channels_in, 2 * (lmax + 1 - m) * channels_out
            self.orders.append(nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5))

    def flat_weights(self) -> list[Tensor]:
        """Return bias and both weights of m = 0, then the weight of each m > 0."""
        return [self.bias, *self.zero, *self.orders]

    def forward(self, folded: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Map sums and differences of the ends; may be differentiated twice.

        Args:
            folded: ``[2P, K', C_in]``, see :meth:`helmol.graph.Pairs.gather_fold`.
            pairs: the pairs.

        Returns:
            Features ``[2P, K', C_out]`` and scalars ``[2P, n_scalars]`` of both directions.
        """
        n_zero, c, p = self.lmax + 1, self.channels_out, pairs.geometry.n_pairs
        first, *parts = folded.split(list(m_sizes(self.lmax))[: len(self.orders) + 1], dim=1)
        halves = first.flatten(1).tensor_split([p])
        zero, scalars = torch.cat(
            [half @ weight for half, weight in zip(halves, self.zero, strict=True)]
        ).split([n_zero * c, len(self.bias) - n_zero * c], dim=1)
        outputs = [zero.reshape(len(zero), n_zero, c)]
        for x, weight in zip(parts, self.orders, strict=True):
            outputs.append((x.flatten(1) @ weight).view(len(x), x.shape[1], c))
        features = pairs.unfold(torch.cat(outputs, dim=1), plain=True)
        bias, scalar_bias = self.bias.split([n_zero * c, len(self.bias) - n_zero * c])
        features = torch.cat([features[:, :n_zero] + bias.view(n_zero, c), features[:, n_zero:]], dim=1)
        return features, both_ways(scalars, p) + scalar_bias


class SO2Convolution(nn.Module):
    """Two SO(2) maps with a gate between, the first weighted by the edge's radial network.

    Input ``[x_i ‖ x_j]`` (2C channels), times one radial factor per (l, channel) shared by ±m. With
    ``config.radial = "edge"`` a directed edge weights both ends; with ``"pair"`` each end of a pair has its
    weights, in both directions the same, and :class:`SO2PairLinear` is the first map.

    Args:
        lmax: largest degree.
        config: channels, gate, largest order, radial weights.
        n_scalars: edge scalars for the radial network.
    """

    def __init__(self, lmax: int, config: BackboneConfig, n_scalars: int) -> None:
        super().__init__()
        c = config.channels
        self.lmax, self.channels, self.gate = lmax, c, config.gate
        self.mmax = lmax if config.mmax is None else min(config.mmax, lmax)
        self.precision = "fp32"
        per_edge = config.radial == "edge"
        self.radial = RadialNetwork(n_scalars, config.radial_channels, (lmax + 1) * c * (1 + per_edge))
        self.first: SO2Linear | SO2PairLinear
        if per_edge:
            self.first = SO2Linear(lmax, 2 * c, c, mmax=self.mmax, n_scalars=lmax * c)
        else:
            self.first = SO2PairLinear(lmax, c, c, mmax=self.mmax, n_scalars=lmax * c)
        self.second = SO2Linear(lmax, c, c, mmax=self.mmax)

    def forward(self, nodes: Tensor, scalars: Tensor, pairs: Pairs) -> Tensor:
        """Return edge features ``[E, K, C]``, m-major in the edge frames.

        Args:
            nodes: ``[N, K, C]`` l-major, laboratory frame.
            scalars: edge scalars for the radial network, ``[E, n_scalars]``.
            pairs: the edges.
        """
        radial = self.radial(scalars).unflatten(1, (self.lmax + 1, -1))
        geometry = pairs.geometry
        if pairs.twice or isinstance(self.first, SO2Linear):
            hidden, gates = self._plain_first(nodes, radial, pairs)
        else:
            # Moving frames have gradients of their own: then the rotation is left to autograd.
            x, weights = geometry.to_pairs(nodes) if geometry.moving else nodes, self.first.flat_weights()
            hidden, gates = FusedFirstOfPairs.apply(x, radial, pairs, self.mmax, self.precision, *weights)
        if pairs.twice:
            return self._plain_second(hidden, gates)
        weights = self.second.flat_weights()
        out: Tensor = FusedSecond.apply(
            hidden, gates, self.gate == "tanh", self.mmax, self.precision, *weights
        )
        return out

    def _plain_first(self, nodes: Tensor, radial: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return hidden features ``[E, K', C]`` and raw gates, step by step; may be differentiated twice."""
        if isinstance(self.first, SO2PairLinear):
            folded = pairs.ends_folded(pairs.geometry.to_pairs(nodes), radial, self.mmax)
            return self.first(folded, pairs)
        parts = []
        for m, x in enumerate(self._orders(pairs.geometry.to_edges(nodes))):
            weight = radial[:, m:]
            parts.append(x * (weight if m == 0 else torch.cat([weight, weight], dim=1)))
        hidden, raw = self.first(parts)
        return torch.cat(hidden, dim=1), raw

    def _plain_second(self, features: Tensor, raw: Tensor) -> Tensor:
        """Gate and map once more, step by step; may be differentiated twice."""
        hidden = self._orders(features)
        squash = torch.tanh if self.gate == "tanh" else torch.sigmoid
        gates = squash(raw).view(len(raw), self.lmax, self.channels)
        gated = [torch.cat([functional.silu(hidden[0][:, :1]), hidden[0][:, 1:] * gates], dim=1)]
        for m, x in enumerate(hidden[1:], start=1):
            weight = gates[:, m - 1 :]
            gated.append(x * torch.cat([weight, weight], dim=1))
        rest = features.new_zeros(len(raw), (self.lmax + 1) ** 2 - features.shape[1], self.channels)
        return torch.cat([*self.second(gated)[0], rest], dim=1)

    def _orders(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of m = 0 … mmax, ``[E, n_m, c]`` each."""
        sizes = list(m_sizes(self.lmax))[: self.mmax + 1]
        return features[:, : sum(sizes)].split(sizes, dim=1)
