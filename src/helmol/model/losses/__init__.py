"""Losses: what a difference of an output from its labels costs; they see outputs, never the model."""

from helmol.model.losses.energy import energy_loss
from helmol.model.losses.fock import LossKind, LossWeights, hamiltonian_loss
from helmol.model.losses.orbital import OrbitalLoss, Orbitals, molecule_key, orbital_loss, true_orbitals
from helmol.model.losses.sums import Total, alone

__all__ = [
    "LossKind",
    "LossWeights",
    "OrbitalLoss",
    "Orbitals",
    "Total",
    "alone",
    "energy_loss",
    "hamiltonian_loss",
    "molecule_key",
    "orbital_loss",
    "true_orbitals",
]
