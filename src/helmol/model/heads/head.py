"""What a head is, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from helmol.config import Config
from helmol.graph import Batch, EdgeGeometry

if TYPE_CHECKING:
    from helmol.model.backbone import Backbone, NodeStates
    from helmol.model.backbone.config import BackboneConfig
    from helmol.target import Domain, Sizes


@dataclass(frozen=True)
class Ask:
    """Say how a batch is computed; none of it changes a result but for rounding.

    Attributes:
        forces: whether forces are wanted from the head of energies.
        create_graph: keep what the gradient of a loss on conservative forces needs.
        pairs_at_once: pairs whose edge features are in memory together; all by default.
        checkpoint: for the gradient keep little and compute the rest again.
    """

    forces: bool = False
    create_graph: bool = False
    pairs_at_once: int | None = None
    checkpoint: bool = False


@dataclass(frozen=True)
class Features:
    """Hold what the backbone left for the heads.

    Attributes:
        batch: molecules.
        states: features of the nodes; those of the edges follow from them.
        backbone: for edge features and message pairs.
        edge_inputs: of pairs from a first one on, what read matrices add to their edges, or ``None``.
    """

    batch: Batch
    states: NodeStates
    backbone: Backbone
    edge_inputs: Callable[[EdgeGeometry, int], Tensor | None]

    def edges(self, part: slice | None, geometry: EdgeGeometry, *, checkpoint: bool) -> Tensor:
        """Return what the edge blocks leave of some pairs, see :meth:`Backbone.edges`."""
        extra = self.edge_inputs(geometry, 0 if part is None else part.start)
        return self.backbone.edges(self.states, part, extra=extra, checkpoint=checkpoint)


class Head(nn.Module):
    """Read something from the features of the backbone.

    A new head is a subclass in a file of its own and a line in :data:`helmol.model.heads.HEADS`.
    """

    Settings: ClassVar[type[Config]] = Config
    """Its keys in the configuration of a model, under ``heads``."""
    reads_edges: ClassVar[bool] = False
    """Whether it needs edge features."""

    @classmethod
    def make(cls, lmax: int, config: BackboneConfig, domain: Domain, settings: Mapping[str, Any]) -> Head:
        """Return a head with random weights.

        Args:
            lmax: largest degree of the features.
            config: the backbone's sizes.
            domain: of the model.
            settings: of :attr:`Settings`.
        """
        raise NotImplementedError

    @classmethod
    def target(cls, domain: Domain, sizes: Sizes, description: Mapping[str, Any] | None) -> nn.Module | None:
        """Return what is known of its labels before the network, or ``None`` if nothing is.

        Args:
            domain: of the model.
            sizes: of the network.
            description: of a target whose numbers will be loaded, as its ``description()`` gave it.
        """
        return None

    def moves_atoms(self, ask: Ask) -> bool:
        """Return whether what is asked for is a derivative with respect to the positions."""
        return False

    def forward(self, features: Features, target: nn.Module | None, ask: Ask) -> Any:
        """Return what the head reads, with what a loss needs to compare it."""
        raise NotImplementedError
