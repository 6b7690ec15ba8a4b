"""The SO(2) convolution: linear maps in the edge frame, order m by order m."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import torch
from torch import Tensor, nn
from torch.nn import functional

from helmol.graph import Pairs
from helmol.graph.axis import Axis
from helmol.graph.layout import m_sizes
from helmol.model.backbone.config import BackboneConfig
from helmol.model.backbone.fused import FusedFirstOfPairs, FusedSecond, both_ways
from helmol.model.backbone.radial import RadialNetwork


class SO2Linear(nn.Module):
    """Mix degrees and channels of each order m, keeping rotations about the edge, and mirrors if they count.

    m = 0: ``out = x W + b`` over (l, channel). m > 0: ``out₊ = x₊ W_r − x₋ W_i``,
    ``out₋ = x₋ W_r + x₊ W_i`` over (l ≥ m, channel).

    With unnatural channels a mirror through the edge keeps ``x₊`` and turns ``x₋`` round (see
    :class:`helmol.graph.EdgeGeometry`): ``W_i = 0``, and m = 0 has a matrix for even and one for odd
    components (:class:`helmol.graph.axis.Axis`), bias on the even ones.

    Args:
        lmax: largest degree.
        channels_in: input channels.
        channels_out: output channels.
        mmax: largest order; components of higher order are neither read nor written.
        n_scalars: further outputs of the m = 0 part (gates).
        unnatural: output channels of unnatural parity, the last ones; of the input it is the same share.
    """

    def __init__(
        self,
        lmax: int,
        channels_in: int,
        channels_out: int,
        *,
        mmax: int,
        n_scalars: int = 0,
        unnatural: int = 0,
    ) -> None:
        super().__init__()
        self.source = Axis(lmax, channels_in, unnatural * channels_in // channels_out)
        self.axis, self.n_scalars = Axis(lmax, channels_out, unnatural), n_scalars
        self.zero = nn.Linear(self.source.n_even, self.axis.n_even + n_scalars)
        self.real, self.imaginary, self.odd = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        kinds = (self.real,) if unnatural else (self.real, self.imaginary)
        for m in range(1, mmax + 1):
            n_in, n_out = (lmax + 1 - m) * channels_in, (lmax + 1 - m) * channels_out
            for weights in kinds:
                weights.append(drawn(n_in, n_out, fan_in=len(kinds) * n_in))
        nn.init.normal_(self.zero.weight, std=self.source.n_even**-0.5)
        nn.init.zeros_(self.zero.bias)
        if unnatural:
            self.odd.append(drawn(self.source.n_odd, self.axis.n_odd))

    def flat_weights(self) -> list[Tensor]:
        """Return weight and bias of m = 0, its odd weight, then real and imaginary weight of each m > 0."""
        first = [self.zero.weight, self.zero.bias, *self.odd]
        if not self.imaginary:
            return [*first, *self.real]
        pairs = zip(self.real, self.imaginary, strict=True)
        return [*first, *[weight for pair in pairs for weight in pair]]

    def forward(self, parts: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Map the features of each order.

        Args:
            parts: for m = 0 … mmax ``[E, n_m, C_in]``, +m before −m.

        Returns:
            The same list with ``C_out`` channels, and the scalars ``[E, n_scalars]``.
        """
        packed = self.source.pack(parts[0])
        zero, scalars = self.zero(self.source.even(packed)).split([self.axis.n_even, self.n_scalars], dim=1)
        if self.axis.unnatural:
            zero = torch.cat([zero, self.source.odd(packed) @ self.odd[0]], dim=1)
        outputs = [self.axis.unpack(zero.unflatten(1, (self.axis.lmax + 1, -1)))]
        for x, real, imaginary in zip_longest(parts[1:], self.real, self.imaginary):
            if imaginary is None:
                out = x.unflatten(1, (2, -1)).flatten(2) @ real
            else:
                out = x.flatten(1) @ torch.cat(
                    [torch.cat([real, imaginary], dim=1), torch.cat([-imaginary, real], dim=1)], dim=0
                )
            outputs.append(out.view(*x.shape[:2], self.axis.channels))
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

    With unnatural channels W and V are real (:class:`SO2Linear`), S has opposite signs for +m and −m, and so
    A has no elements between these: a matrix for each. Odd components of m = 0 have matrices of their own.

    Args:
        lmax: largest degree.
        channels_in: channels of one end.
        channels_out: output channels.
        mmax: largest order; components of higher order are neither read nor written.
        n_scalars: further outputs of the m = 0 part (gates).
        unnatural: as in :class:`SO2Linear`.
    """

    def __init__(
        self,
        lmax: int,
        channels_in: int,
        channels_out: int,
        *,
        mmax: int,
        n_scalars: int = 0,
        unnatural: int = 0,
    ) -> None:
        super().__init__()
        source = Axis(lmax, channels_in, unnatural * channels_in // channels_out)
        self.axis = axis = Axis(lmax, channels_out, unnatural)
        n_even, parts = axis.n_even + n_scalars, 2 if unnatural else 1
        self.lmax, self.channels_out, self.source = lmax, channels_out, source
        self.bias = nn.Parameter(torch.zeros(n_even))
        self.zero = nn.ParameterList(drawn(source.n_even, n_even) for _ in range(2))
        self.orders = nn.ParameterList()
        for m in range(1, mmax + 1):
            rows = 2 * (lmax + 1 - m) // parts
            for _ in range(parts):
                self.orders.append(drawn(rows * channels_in, rows * channels_out))
        self.odd = nn.ParameterList(drawn(source.n_odd, axis.n_odd) for _ in range(2 if unnatural else 0))

    def flat_weights(self) -> list[Tensor]:
        """Return bias and both weights of m = 0, both odd ones, then those of each m > 0."""
        return [self.bias, *self.zero, *self.odd, *self.orders]

    def forward(self, folded: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Map sums and differences of the ends; may be differentiated twice.

        Args:
            folded: ``[2P, K', C_in]``, packed, see :meth:`helmol.graph.Pairs.gather_fold`.
            pairs: the pairs.

        Returns:
            Features ``[2P, K', C_out]``, packed, and scalars ``[2P, n_scalars]`` of both directions.
        """
        axis, p = self.axis, pairs.geometry.n_pairs
        n_even, flat = axis.n_even, folded.flatten(1)
        sizes = [self.source.n_even, self.source.n_odd, *map(len, self.orders)]
        even, odd, *parts = flat.split(sizes, dim=1)
        zero, scalars = _halves(even, self.zero, p).split([n_even, len(self.bias) - n_even], dim=1)
        outputs = [zero, *([_halves(odd, self.odd, p)] if self.odd else [])]
        outputs += [x @ weight for x, weight in zip(parts, self.orders, strict=True)]
        whole = torch.cat(outputs, dim=1).view(*folded.shape[:2], axis.channels)
        features = pairs.unfold(whole, plain=True).flatten(1)
        first, rest = features.tensor_split([n_even], dim=1)
        features = torch.cat([first + self.bias[:n_even], rest], dim=1)
        return features.view(whole.shape), both_ways(scalars, p) + self.bias[n_even:]


def drawn(n_in: int, n_out: int, *, fan_in: int | None = None) -> nn.Parameter:
    """Return a random matrix ``[n_in, n_out]`` of variance 1 / fan-in (default ``n_in``)."""
    return nn.Parameter(torch.randn(n_in, n_out) / (fan_in or n_in) ** 0.5)


def _halves(x: Tensor, weights: Iterable[Tensor], n_pairs: int) -> Tensor:
    """Return products of the halves ``[:n_pairs]`` and ``[n_pairs:]`` with a matrix of each."""
    return torch.cat([half @ w for half, w in zip(x.tensor_split([n_pairs]), weights, strict=True)])


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
        c, unnatural = config.channels, config.unnatural
        self.lmax, self.channels, self.gate = lmax, c, config.gate
        self.mmax = lmax if config.mmax is None else min(config.mmax, lmax)
        self.precision = "fp32"
        per_edge = config.radial == "edge"
        self.radial = RadialNetwork(n_scalars, config.radial_channels, (lmax + 1) * c * (1 + per_edge))
        self.first: SO2Linear | SO2PairLinear
        if per_edge:
            self.first = SO2Linear(lmax, 2 * c, c, mmax=self.mmax, n_scalars=lmax * c, unnatural=unnatural)
        else:
            self.first = SO2PairLinear(lmax, c, c, mmax=self.mmax, n_scalars=lmax * c, unnatural=unnatural)
        self.second = SO2Linear(lmax, c, c, mmax=self.mmax, unnatural=unnatural)

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
            hidden, gates = FusedFirstOfPairs.apply(
                x, radial, pairs, self.first.axis, self.mmax, self.precision, *weights
            )
        if pairs.twice:
            return self._plain_second(hidden, gates)
        weights = self.second.flat_weights()
        out: Tensor = FusedSecond.apply(
            hidden, gates, self.second.axis, self.gate == "tanh", self.mmax, self.precision, *weights
        )
        return out

    def _plain_first(self, nodes: Tensor, radial: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Return packed hidden features ``[E, K', C]`` and raw gates, step by step; twice differentiable."""
        if isinstance(self.first, SO2PairLinear):
            folded = pairs.ends_folded(pairs.geometry.to_pairs(nodes), radial, self.mmax)
            return self.first(folded, pairs)
        parts, ends = [], pairs.geometry.to_edges(nodes)
        if n_odd := self.first.axis.unnatural:  # natural channels of both ends first
            n = self.channels - n_odd
            own, its, other, others = ends.split([n, n_odd, n, n_odd], dim=2)
            ends = torch.cat([own, other, its, others], dim=2)
        for m, x in enumerate(self._orders(ends)):
            weight = radial[:, m:]
            parts.append(x * (weight if m == 0 else torch.cat([weight, weight], dim=1)))
        hidden, raw = self.first(parts)
        return self.first.axis.pack(torch.cat(hidden, dim=1)), raw

    def _plain_second(self, features: Tensor, raw: Tensor) -> Tensor:
        """Gate and map once more, step by step; may be differentiated twice."""
        hidden = self._orders(self.second.axis.unpack(features))
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
