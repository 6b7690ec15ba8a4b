"""The SO(2) convolution: linear maps in the edge frame, order m by order m."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from helmol.graph import Pairs
from helmol.graph.layout import m_sizes
from helmol.model.backbone.fused import FusedConvolution


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


class SO2Convolution(nn.Module):
    """Two SO(2) maps with a gate between, the first weighted by the edge's radial network.

    Input ``[x_i ‖ x_j]`` (2C channels), times one radial factor per (l, channel) shared by ±m.
    """

    def __init__(
        self, lmax: int, channels: int, radial: nn.Module, *, gate: str, mmax: int | None = None
    ) -> None:
        super().__init__()
        self.lmax, self.channels = lmax, channels
        self.mmax = lmax if mmax is None else min(mmax, lmax)
        self.radial = radial
        self.precision = "fp32"
        self.gate = gate
        self.first = SO2Linear(lmax, 2 * channels, channels, mmax=self.mmax, n_scalars=lmax * channels)
        self.second = SO2Linear(lmax, channels, channels, mmax=self.mmax)

    def forward(self, nodes: Tensor, scalars: Tensor, pairs: Pairs) -> Tensor:
        """Return edge features ``[E, K, C]``, m-major in the edge frames.

        Args:
            nodes: ``[N, K, C]`` l-major, laboratory frame.
            scalars: edge scalars for the radial network, ``[E, n_scalars]``.
            pairs: the edges.
        """
        radial = self.radial(scalars).view(len(scalars), self.lmax + 1, 2 * self.channels)
        geometry = pairs.geometry
        if geometry.twice:
            return self._plain(geometry.to_edges(nodes), radial)
        # Moving frames have gradients of their own: then the rotation is left to autograd.
        x, where = (geometry.to_edges(nodes), None) if geometry.moving else (nodes, pairs)
        weights = [*self.first.flat_weights(), *self.second.flat_weights()]
        out: Tensor = FusedConvolution.apply(
            x, radial, where, self.gate == "tanh", self.mmax, self.precision, *weights
        )
        return out

    def _plain(self, ends: Tensor, radial: Tensor) -> Tensor:
        """Compute the convolution step by step."""
        parts = []
        for m, x in enumerate(ends.split(list(m_sizes(self.lmax)), dim=1)[: self.mmax + 1]):
            weight = radial[:, m:]
            parts.append(x * (weight if m == 0 else torch.cat([weight, weight], dim=1)))
        hidden, gates = self.first(parts)
        squash = torch.tanh if self.gate == "tanh" else torch.sigmoid
        gates = squash(gates).view(len(ends), self.lmax, self.channels)
        gated = [torch.cat([functional.silu(hidden[0][:, :1]), hidden[0][:, 1:] * gates], dim=1)]
        for m, x in enumerate(hidden[1:], start=1):
            weight = gates[:, m - 1 :]
            gated.append(x * torch.cat([weight, weight], dim=1))
        rest = ends.new_zeros(len(ends), sum(m_sizes(self.lmax)[self.mmax + 1 :]), self.channels)
        return torch.cat([*self.second(gated)[0], rest], dim=1)
