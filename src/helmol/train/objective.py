"""What a run minimises, and the number by which its best model is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from torch import Tensor

from helmol.basis import BasisSet
from helmol.graph import Batch
from helmol.model import EnergyOutput, Output, energy_loss
from helmol.model.losses import Orbitals, Total, alone
from helmol.train.config import TrainConfig
from helmol.train.fock_loss import FockLoss

Forward = Callable[..., Output]
"""A :class:`helmol.model.Model`, or what wraps one: only its call is used."""


class Loss(Protocol):
    """What a batch costs."""

    def __call__(self, model: Forward, batch: Batch, done: float, total: Total = alone, /) -> Tensor:
        """Return the loss.

        Args:
            model: what is trained.
            batch: molecules with labels.
            done: share of the schedule that is over, 0 to 1.
            total: sums over the whole batch, where this is a part of it.
        """


CRITERIA = ("h_mae_uEh", "energy_mae_meV", "force_mae_meV_per_angstrom")
"""Keys of the errors that may choose the best model."""


def objective(config: TrainConfig, basis: BasisSet, orbitals: Mapping[bytes, Orbitals]) -> Loss:
    """Return the loss of a batch for a task.

    Args:
        config: task, kinds and weights of losses.
        basis: shells of the elements.
        orbitals: of the training molecules, see :func:`helmol.train.fock_loss.training_orbitals`.
    """
    fock = FockLoss(config.loss.fock, basis, orbitals)
    if config.task == "hamiltonian":
        return fock
    return partial(_energy, config) if config.task == "energy" else partial(_both, config, fock)


def criterion(config: TrainConfig) -> str:
    """Return the validation error that chooses the best model."""
    if config.task == "hamiltonian":
        return "h_mae_uEh"
    return "energy_mae_meV" if config.loss.energy_weight else "force_mae_meV_per_angstrom"


def _energy(config: TrainConfig, model: Forward, batch: Batch, done: float, total: Total = alone) -> Tensor:
    output = model(batch, ("energy",), forces=config.loss.force_weight > 0, create_graph=True)
    return _energy_loss(config, output.energy, batch, total)


def _both(
    config: TrainConfig, fock: FockLoss, model: Forward, batch: Batch, done: float, total: Total = alone
) -> Tensor:
    output = model(batch, ("fock", "energy"), forces=config.loss.force_weight > 0, create_graph=True)
    loss = _energy_loss(config, output.energy, batch, total)
    return loss + config.loss.fock_weight * fock.of(output.fock, batch, done, total).to(loss.dtype)


def _energy_loss(config: TrainConfig, output: EnergyOutput, batch: Batch, total: Total) -> Tensor:
    return energy_loss(
        output, batch, kind=config.loss.energy,
        energy_weight=config.loss.energy_weight, force_weight=config.loss.force_weight,
        total=total,
    )  # fmt: skip
