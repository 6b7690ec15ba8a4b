"""The energy head: one number per atom from its scalar features, summed over the molecule.

It reads nodes only, so the edge blocks of the backbone are not evaluated for an energy. The last layer
starts at zero: an untrained head predicts the element energies and no forces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from helmol.brief import brief
from helmol.config import Config
from helmol.model.backbone import NodeStates
from helmol.model.backbone.config import BackboneConfig
from helmol.model.backbone.layers import EquivariantNorm
from helmol.model.backbone.radial import MAX_NUMBER
from helmol.model.backbone.so2 import SO2Convolution
from helmol.model.heads.head import Ask, Features, Head
from helmol.target import Domain, EnergyTarget, Sizes


def invariants(nodes: Tensor) -> Tensor:
    """Return what rotations leave alone: scalars, and per channel the length of every higher degree.

    Args:
        nodes: ``[N, K, C]`` l-major.

    Returns:
        ``[N, (L+1) C]``.
    """
    parts, first = [nodes[:, 0]], 1
    while first < nodes.shape[1]:
        size = 2 * len(parts) + 1
        # Without the small number the slope is infinite where a length is zero, as in a lone atom.
        parts.append((nodes[:, first : first + size].square().mean(dim=1) + 1e-6).sqrt())
        first += size
    return torch.cat(parts, dim=1)


def all_invariants(states: NodeStates) -> Tensor:
    """Return :func:`invariants` of the nodes after every layer and of the final ones, side by side."""
    return torch.cat([invariants(nodes) for nodes in (*states.layers, states.final)], dim=1)


class EnergySettings(Config):
    """Set the energy head."""

    readout: Literal["linear", "convolution", "elements"] = "convolution"
    """``linear``: energy of an atom = a linear map of its scalar features. ``convolution``: one more
    convolution over its neighbours, then two hidden layers. ``elements``: a linear map, of each element's
    own, of the scalar features and the lengths of the others after every layer, which starts from the
    least-squares fit to the training energies (for few labels and a good start)."""
    forces: Literal["conservative", "direct"] = "conservative"
    """``conservative``: minus the derivative of the energy. ``direct``: read from the l = 1 features;
    cheaper, but no energy belongs to them, so not for dynamics."""


@dataclass(frozen=True)
class EnergyOutput:
    """Hold what a network says of the energies and forces of a batch.

    Attributes:
        energy: ``[B]``, Eh, float64.
        forces: ``[N, 3]``, Eh/bohr, or ``None`` where they were not asked for.
        scale: unit of energies in the loss, Eh.
        force_scale: unit of forces in the loss, Eh/bohr.
    """

    energy: Tensor
    forces: Tensor | None
    scale: Tensor
    force_scale: Tensor

    __repr__ = brief


class EnergyHead(Head):
    """Read energies per atom, and direct forces where the configuration wants them.

    * ``linear``: ``e_i = w · z_i`` with z the l = 0 features.
    * ``elements``: ``e_i = w_{Z_i} · (x_i − μ_{Z_i}) / (σ_{Z_i} dim)`` with x, for the features after every
      layer and the final ones, the scalars and per channel and l > 0 the length
      ``sqrt(mean_m z_{lm}² + ε)``; :func:`helmol.model.fit_readout` finds μ, σ and w in closed form.
    * ``convolution``: ``h ← z + Σ_j envelope · conv(z_i, z_j)``, then ``e_i = MLP(h_{l=0})``.
    * direct forces: a linear map of the natural l = 1 features.

    Energies of mirror images are equal if the network has unnatural channels.

    Args:
        lmax: largest degree of the features.
        config: the network's sizes.
        energy: switches of this head.
    """

    Settings = EnergySettings
    mean: Tensor
    inverse_std: Tensor

    def __init__(self, lmax: int, config: BackboneConfig, energy: EnergySettings) -> None:
        super().__init__()
        c = config.channels
        self.settings = energy
        self.convolution: SO2Convolution | None = None
        if energy.readout == "convolution":
            n_scalars = 2 * config.element_channels + config.n_radial
            self.convolution = SO2Convolution(lmax, config, n_scalars)
            self.norm = EquivariantNorm(lmax, c, edges=False)
            self.readout = nn.Sequential(
                nn.Linear(c, c), nn.SiLU(), nn.Linear(c, c), nn.SiLU(), nn.Linear(c, 1, bias=False)
            )
        elif energy.readout == "linear":
            self.readout = nn.Sequential(nn.Linear(c, 1, bias=False))
        self.elements: nn.Embedding | None = None
        if energy.readout == "elements":
            n_features = (config.n_layers + 1) * (lmax + 1) * c
            self.elements = nn.Embedding(MAX_NUMBER + 1, n_features)
            nn.init.zeros_(self.elements.weight)
            self.register_buffer("mean", torch.zeros(MAX_NUMBER + 1, n_features))
            self.register_buffer("inverse_std", torch.ones(MAX_NUMBER + 1, n_features))
        else:
            nn.init.zeros_(self._last_weight)
        self.direct: nn.Parameter | None = None
        if energy.forces == "direct":
            self.direct = nn.Parameter(torch.zeros(c - config.unnatural))

    @property
    def _last_weight(self) -> Tensor:
        """Weight of the read-out's last map, which a new head has at zero."""
        return cast(nn.Linear, self.readout[-1]).weight

    @property
    def trained(self) -> bool:
        """Whether energies, or direct forces if these are wanted, are more than the zeros of a new head."""
        last = self._last_weight if self.elements is None else self.elements.weight
        return bool((last if self.direct is None else self.direct).any())

    @classmethod
    def make(
        cls, lmax: int, config: BackboneConfig, domain: Domain, settings: Mapping[str, Any]
    ) -> EnergyHead:
        """Return a head that predicts zero; see :meth:`Head.make`."""
        return cls(lmax, config, EnergySettings(**settings))

    @classmethod
    def target(cls, domain: Domain, sizes: Sizes, description: Mapping[str, Any] | None) -> EnergyTarget:
        """Return the energies of the elements; see :meth:`Head.target`."""
        return EnergyTarget(**(description or {}))

    def moves_atoms(self, ask: Ask) -> bool:
        """Return whether conservative forces are asked for."""
        return ask.forces and self.direct is None

    def forward(self, features: Features, target: nn.Module | None, ask: Ask) -> EnergyOutput:
        """Return energies and forces of a batch.

        ``E = Σ_i E_ref(Z_i) + scale · e_i``; conservative forces are ``−∂E/∂R``.
        """
        if not isinstance(target, EnergyTarget):
            raise TypeError("the energy head needs the target of energies")
        batch, states = features.batch, features.states
        per_atom, direct = self.read(states, batch.numbers)
        learnt = target.scale * per_atom.to(torch.float64)
        rest = learnt.new_zeros(len(batch.molecules)).index_add(0, batch.molecule, learnt)
        energy, forces = rest + target.start(batch), None
        if self.moves_atoms(ask):
            (gradient,) = torch.autograd.grad(
                rest.sum(), batch.positions, create_graph=ask.create_graph, materialize_grads=True
            )
            energy, forces = energy if ask.create_graph else energy.detach(), -gradient
        elif ask.forces and direct is not None:
            forces = target.force_scale * direct.to(torch.float64)
        return EnergyOutput(energy, forces, target.scale, target.force_scale)

    def read(self, states: NodeStates, numbers: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return normalised energies per atom ``[N]`` and direct forces ``[N, 3]`` (x, y, z) or ``None``.

        Args:
            states: from the backbone.
            numbers: atomic numbers ``[N]``.
        """
        nodes = states.final
        if self.convolution is not None:
            if states.near.geometry.n_pairs:
                messages = self.convolution(nodes, states.near_scalars, states.near)
                nodes = nodes + states.near.weighted_sum(messages, len(nodes))
            nodes = self.norm(nodes)
        if self.elements is None:
            energies = self.readout(nodes[:, 0])[:, 0]
        else:
            x = (all_invariants(states) - self.mean[numbers]) * self.inverse_std[numbers]
            energies = (self.elements(numbers) * x).sum(dim=1) / x.shape[1]
        if self.direct is None:
            return energies, None
        # Degree 1 is ordered m = −1, 0, 1, which is y, z, x.
        return energies, (nodes[:, 1:4, : len(self.direct)] @ self.direct)[:, [2, 0, 1]]
