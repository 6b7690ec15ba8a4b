"""The loss of Fock matrices as a run wants it, with the orbital loss of its last stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from helmol.basis import BasisSet
from helmol.graph import Batch
from helmol.model import Output
from helmol.model.losses import (
    Orbitals,
    Total,
    alone,
    hamiltonian_loss,
    molecule_key,
    orbital_loss,
    true_orbitals,
)
from helmol.store import Store
from helmol.target import FockOutput
from helmol.train.config import FockLossConfig
from helmol.train.ranks import ALONE, Ranks, spread


class FockLoss:
    """Compute what a batch costs at a point of the schedule.

    Args:
        config: kind and weights of the losses.
        basis: shells of the elements.
        orbitals: of the training molecules, see :func:`training_orbitals`.
    """

    def __init__(self, config: FockLossConfig, basis: BasisSet, orbitals: Mapping[bytes, Orbitals]) -> None:
        self._config, self._basis, self._orbitals = config, basis, orbitals

    def __call__(
        self, model: Callable[..., Output], batch: Batch, done: float, total: Total = alone
    ) -> Tensor:
        """Return the loss.

        Args:
            model: what is trained.
            batch: molecules with targets.
            done: share of the schedule that is over, 0 to 1.
            total: sums over the whole batch, where this is a part of it.
        """
        return self.of(model(batch, ("fock",)).fock, batch, done, total)

    def of(self, output: FockOutput, batch: Batch, done: float, total: Total = alone) -> Tensor:
        """Return the loss of an output; arguments as of a call."""
        config = self._config
        loss = hamiltonian_loss(
            output, batch, kind=config.kind, weights=config.weights,
            diagonal_only=config.blocks == "diagonal", total=total,
        )  # fmt: skip
        if config.orbital is None or done < 1 - config.orbital_stage:
            return loss
        orbital = orbital_loss(
            output, batch, self._orbitals, kind=config.orbital, basis=self._basis, total=total
        )
        return loss + config.orbital_weight * orbital


def training_orbitals(
    store: Store, config: FockLossConfig, ids: list[str], ranks: Ranks = ALONE
) -> dict[bytes, Orbitals]:
    """Return the true orbitals of the training molecules, if the configuration has a use for them.

    Several processes share the work, and each has the orbitals of all.

    Raises:
        InputError: a molecule has no overlap.
    """
    if config.orbital is None:
        return {}
    wanted = set(ids)
    places = [k for k, identity in enumerate(store.ids) if identity in wanted]
    samples = (store[k] for k in spread(places, ranks))
    own = {molecule_key(sample.molecule): true_orbitals(sample, store.basis) for sample in samples}
    return {key: orbitals for part in ranks.gather(own) for key, orbitals in part.items()}
