"""Layers that act on each degree l by itself: norm, linear map, gate, feed-forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from helmol.graph.layout import degree_of_m_major
from helmol.model.backbone.fused_layers import FusedFeedForward, FusedNorm


def degree_index(lmax: int, *, edges: bool) -> Tensor:
    """Return the degree of each component, m-major for edges, l-major for nodes, ``[K]``."""
    if edges:
        return degree_of_m_major(lmax)
    return torch.tensor([l for l in range(lmax + 1) for _ in range(2 * l + 1)])


class EquivariantNorm(nn.Module):
    """Scale features to unit degree-balanced RMS.

    ``x ← w_{lc} x / sqrt(mean_l mean_{m,c} x² + ε)`` after the mean over channels has been taken from
    l = 0. Source: EquiformerV2's separable norm, arXiv 2306.12059, in HELM's form.
    """

    degree: Tensor
    balance: Tensor

    def __init__(self, lmax: int, channels: int, *, edges: bool, eps: float = 1e-8) -> None:
        super().__init__()
        self.eps, self.edges = eps, edges
        self.weight = nn.Parameter(torch.ones(lmax + 1, channels))
        degree = degree_index(lmax, edges=edges)
        balance = 1.0 / ((2 * degree + 1) * (lmax + 1) * channels)
        self.register_buffer("degree", degree, persistent=False)
        self.register_buffer("balance", balance.to(torch.get_default_dtype())[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[n, K, C]``; the first component must be l = 0."""
        if self.edges:
            out: Tensor = FusedNorm.apply(x, self.weight, self.balance, self.degree, self.eps)
            return out
        # The gradient of a split joins its parts once; each slice would have one of the whole size.
        scalar, rest = x.split([1, x.shape[1] - 1], dim=1)
        x = torch.cat([scalar - scalar.mean(dim=2, keepdim=True), rest], dim=1)
        power = (x.square() * self.balance).sum(dim=(1, 2), keepdim=True)
        return x * torch.rsqrt(power + self.eps) * self.weight.index_select(0, self.degree)


class DegreeLinear(nn.Module):
    """Map channels of each degree by its own matrix; bias on l = 0 only.

    Natural and unnatural channels of a degree l > 0 have a matrix each.
    """

    degree: Tensor

    def __init__(self, lmax: int, channels: int, *, edges: bool, unnatural: int = 0) -> None:
        super().__init__()
        natural = [channels, *[channels - unnatural] * lmax]
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(n, n) / n**0.5) for n in natural)
        self.unnatural = nn.ParameterList(
            nn.Parameter(torch.randn(unnatural, unnatural) / unnatural**0.5)
            for _ in range(lmax if unnatural else 0)
        )
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("degree", degree_index(lmax, edges=edges), persistent=False)

    def whole(self) -> Tensor:
        """Return the matrices of all degrees, ``[L+1, C, C]``."""
        if not self.unnatural:
            return torch.stack(list(self.weights))
        first, *weights = self.weights
        natural, rest = torch.stack(weights), torch.stack(list(self.unnatural))
        n, u = natural.shape[1], rest.shape[1]
        both = functional.pad(natural, (0, u, 0, u)) + functional.pad(rest, (n, 0, n, 0))
        return torch.cat([first[None], both])

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, K, C]`` to ``[n, K, C]``."""
        weight = self.whole().index_select(0, self.degree)
        y = torch.bmm(x.transpose(0, 1), weight).transpose(0, 1)
        scalar, rest = y.split([1, y.shape[1] - 1], dim=1)
        return torch.cat([scalar + self.bias, rest], dim=1)


class FeedForward(nn.Module):
    """Per-degree linear, gate, per-degree linear.

    l = 0 gives new scalars and one gate per (l > 0, channel); scalars pass SiLU, the rest is
    multiplied by the squashed gates.
    """

    degree: Tensor

    def __init__(self, lmax: int, channels: int, *, edges: bool, unnatural: int = 0) -> None:
        super().__init__()
        self.lmax, self.channels, self.precision = lmax, channels, "fp32"
        self.first = DegreeLinear(lmax, channels, edges=edges, unnatural=unnatural)
        self.gates = nn.Linear(channels, lmax * channels)
        self.second = DegreeLinear(lmax, channels, edges=edges, unnatural=unnatural)
        self.register_buffer("degree", degree_index(lmax, edges=edges)[1:] - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[n, K, C]`` to ``[n, K, C]``; may be differentiated twice."""
        y = self.first(x)
        gates = torch.sigmoid(self.gates(x[:, 0])).view(len(x), self.lmax, self.channels)
        scalar, rest = y.split([1, y.shape[1] - 1], dim=1)
        y = torch.cat([functional.silu(scalar), rest * gates.index_select(1, self.degree)], dim=1)
        return self.second(y)

    def after_norm(self, x: Tensor, norm: EquivariantNorm) -> Tensor:
        """Return ``x + ffn(norm(x))`` in one step."""
        out: Tensor = FusedFeedForward.apply(
            x, norm.weight, norm.balance, norm.degree, norm.eps, self.first.whole(), self.first.bias,
            self.gates.weight, self.gates.bias, self.second.whole(), self.second.bias, self.precision,
        )  # fmt: skip
        return out
