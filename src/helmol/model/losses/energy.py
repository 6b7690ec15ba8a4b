"""The loss of energies and forces, in units of their own spread."""

from __future__ import annotations

import torch
from torch import Tensor

from helmol.errors import ConfigError, InputError
from helmol.graph import Batch
from helmol.model.heads.energy import EnergyOutput
from helmol.model.losses.sums import Total, alone


def energy_loss(
    output: EnergyOutput,
    batch: Batch,
    *,
    kind: str = "mae",
    energy_weight: float = 1.0,
    force_weight: float = 0.0,
    total: Total = alone,
) -> Tensor:
    """Compare energies and forces with their labels; invariant to the orientation of the molecules.

    With ``ΔE / (scale √n_atoms)`` per molecule and ``|ΔF| / (√3 force_scale)`` per atom, ``mae`` is their
    mean and ``mse`` their mean square; the loss is ``energy_weight`` times the one plus ``force_weight``
    times the other.

    Args:
        output: of the network for the batch.
        batch: molecules with the labels that the weights ask for.
        kind: ``mae`` or ``mse``.
        energy_weight: of the energies.
        force_weight: of the forces.
        total: sums over the whole batch, where this is a part of it; the means are over the whole.

    Raises:
        InputError: a label that the weights ask for is missing.
        ConfigError: unknown ``kind``.
    """
    if kind not in ("mae", "mse"):
        raise ConfigError(f"unknown energy loss {kind!r}: expected one of mae, mse")
    loss = output.energy.new_zeros(())
    if energy_weight:
        if batch.energy is None:
            raise InputError("a loss on energies needs molecules with energies")
        n_atoms = torch.bincount(batch.molecule, minlength=len(batch.molecules))
        error = (output.energy - batch.energy) / (output.scale * n_atoms.sqrt())
        costs = error.abs() if kind == "mae" else error.square()
        loss = loss + energy_weight * _mean(costs, total)
    if force_weight:
        if batch.forces is None or output.forces is None:
            raise InputError("a loss on forces needs molecules with forces")
        square = (output.forces - batch.forces).square().sum(dim=1) / (3 * output.force_scale**2)
        # The root's slope is infinite at zero; 1e-16 is far below any error that matters.
        costs = (square + 1e-16).sqrt() if kind == "mae" else square
        loss = loss + force_weight * _mean(costs, total)
    return loss


def _mean(costs: Tensor, total: Total) -> Tensor:
    """Return the mean over the whole batch."""
    whole, count = total(costs.sum(), costs.new_full((), len(costs)))
    return whole / count
