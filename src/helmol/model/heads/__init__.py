"""Read-outs: from node and edge features to irreps of matrix blocks, to energies and forces."""

from helmol.model.heads.energy import EnergyHead
from helmol.model.heads.hamiltonian import HamiltonianHead

__all__ = ["EnergyHead", "HamiltonianHead"]
