"""What a run minimises, and the number by which its best model is chosen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from helmol.graph import Batch
from helmol.model import HamiltonianModel, energies, energy_loss, hamiltonian_loss
from helmol.train.config import TrainConfig

Loss = Callable[[HamiltonianModel, Batch], Tensor]

CRITERIA = {
    "h_mae_uEh": ("H", "µEh"),
    "energy_mae_meV": ("E", "meV"),
    "force_mae_meV_per_angstrom": ("F", "meV/Å"),
}
"""Short name and unit of every number that may choose the best model."""


def objective(config: TrainConfig) -> Loss:
    """Return the loss of a batch for a task."""
    return partial({"hamiltonian": _fock, "energy": _energy, "both": _both}[config.task], config)


def criterion(config: TrainConfig) -> str:
    """Return the validation error that chooses the best model."""
    if config.task == "hamiltonian":
        return "h_mae_uEh"
    return "energy_mae_meV" if config.energy_weight else "force_mae_meV_per_angstrom"


def _fock(config: TrainConfig, network: HamiltonianModel, batch: Batch) -> Tensor:
    diagonal = config.blocks == "diagonal"
    return hamiltonian_loss(network, network(batch), batch, kind=config.loss, diagonal_only=diagonal)


def _energy(config: TrainConfig, network: HamiltonianModel, batch: Batch) -> Tensor:
    output = energies(network, batch, forces=config.force_weight > 0, twice=True)
    return energy_loss(
        network, output, batch, kind=config.energy_loss,
        energy_weight=config.energy_weight, force_weight=config.force_weight,
    )  # fmt: skip


def _both(config: TrainConfig, network: HamiltonianModel, batch: Batch) -> Tensor:
    output = energies(network, batch, forces=config.force_weight > 0, twice=True)
    loss = energy_loss(
        network, output, batch, kind=config.energy_loss,
        energy_weight=config.energy_weight, force_weight=config.force_weight,
    )  # fmt: skip
    # Both heads read the same nodes, which are computed once.
    blocks = network(batch, states=output.states)
    diagonal = config.blocks == "diagonal"
    fock = hamiltonian_loss(network, blocks, batch, kind=config.loss, diagonal_only=diagonal)
    return loss + config.hamiltonian_weight * fock.to(loss.dtype)
