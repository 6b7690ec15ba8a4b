"""Read-outs: from node and edge features to irreps of matrix blocks."""

from helmol.model.heads.hamiltonian import HamiltonianHead

__all__ = ["HamiltonianHead"]
