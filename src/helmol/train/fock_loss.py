"""The loss of Fock matrices as a run wants it, with the orbital loss of its last stage."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from helmol.graph import Batch
from helmol.model import HamiltonianModel, hamiltonian_loss
from helmol.model.backbone import NodeStates
from helmol.model.orbital_loss import Orbitals, molecule_key, orbital_loss, true_orbitals
from helmol.store import Store
from helmol.train.config import TrainConfig


class FockLoss:
    """Compute what a batch costs at a point of the schedule.

    Args:
        config: kind and weights of the losses.
        orbitals: of the training molecules, see :func:`training_orbitals`.
    """

    def __init__(self, config: TrainConfig, orbitals: Mapping[bytes, Orbitals]) -> None:
        self._config, self._orbitals = config, orbitals

    def __call__(
        self, network: HamiltonianModel, batch: Batch, done: float, *, states: NodeStates | None = None
    ) -> Tensor:
        """Return the loss.

        Args:
            network: what is trained.
            batch: molecules with targets.
            done: share of the schedule that is over, 0 to 1.
            states: node features of the batch, where another head has computed them already.
        """
        config, output = self._config, network(batch, states=states)
        loss = hamiltonian_loss(
            network, output, batch, kind=config.loss, weights=config.loss_weights,
            diagonal_only=config.blocks == "diagonal",
        )  # fmt: skip
        if config.orbital_loss is None or done < 1 - config.orbital_stage:
            return loss
        orbital = orbital_loss(network, output, batch, self._orbitals, kind=config.orbital_loss)
        return loss + config.orbital_weight * orbital


def training_orbitals(store: Store, config: TrainConfig, ids: list[str]) -> dict[bytes, Orbitals]:
    """Return the true orbitals of the training molecules, if the configuration has a use for them.

    Raises:
        InputError: a molecule has no overlap.
    """
    if config.orbital_loss is None:
        return {}
    wanted = set(ids)
    places = [k for k, identity in enumerate(store.ids) if identity in wanted]
    samples = (store[k] for k in places)
    return {molecule_key(sample.molecule): true_orbitals(sample, store.basis) for sample in samples}
