"""Edge scalars (elements and distance) and the small networks that read them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_NUMBER = 118
MAX_CHARGE = 20
MAX_SPIN = 20


class EdgeScalars(nn.Module):
    """Describe a directed edge by ``[element i ‖ Gaussians of the distance ‖ element j]``.

    ``g_k(r) = exp(−(r − r_k)² / 2Δ²)`` with centres ``r_k`` spread evenly over [0, cutoff], Δ apart.
    """

    centres: Tensor

    def __init__(self, cutoff: float, n_radial: int, element_channels: int) -> None:
        super().__init__()
        self.source = nn.Embedding(MAX_NUMBER + 1, element_channels)
        self.target = nn.Embedding(MAX_NUMBER + 1, element_channels)
        self.register_buffer("centres", torch.linspace(0, cutoff, n_radial), persistent=False)
        self.spacing = cutoff / (n_radial - 1)

    def forward(self, numbers: Tensor, pair_index: Tensor, distance: Tensor) -> Tensor:
        """Return ``[2P, 2·element_channels + n_radial]`` for i→j of all pairs, then j→i."""
        gaussians = torch.exp(-0.5 * ((distance[:, None] - self.centres) / self.spacing).square())
        zi, zj = numbers[pair_index]
        forward = torch.cat([self.source(zi), gaussians, self.target(zj)], dim=1)
        backward = torch.cat([self.source(zj), gaussians, self.target(zi)], dim=1)
        return torch.cat([forward, backward], dim=0)


class RadialNetwork(nn.Sequential):
    """Map edge scalars to weights by two hidden layers with layer norm and SiLU."""

    def __init__(self, n_in: int, hidden: int, n_out: int) -> None:
        super().__init__(
            nn.Linear(n_in, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, n_out),
        )


class NodeScalars(nn.Module):
    """Describe an atom by linear(element ‖ charge ‖ spin embeddings) of its molecule."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.element = nn.Embedding(MAX_NUMBER + 1, channels)
        self.charge = nn.Embedding(2 * MAX_CHARGE + 1, channels)
        self.spin = nn.Embedding(MAX_SPIN + 1, channels)
        self.mix = nn.Linear(3 * channels, channels)

    def forward(self, numbers: Tensor, charge: Tensor, spin: Tensor) -> Tensor:
        """Return ``[N, C]``; ``charge`` and ``spin`` are those of each atom's molecule, ``[N]``."""
        state = [self.element(numbers), self.charge(charge + MAX_CHARGE), self.spin(spin)]
        return self.mix(torch.cat(state, dim=1))
