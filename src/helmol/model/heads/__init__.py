"""Heads: from node and edge features to irreps of matrix blocks, to energies and forces."""

from helmol.model.heads.energy import EnergyHead
from helmol.model.heads.fock import FockHead
from helmol.model.heads.head import Ask, Features, Head

HEADS: dict[str, type[Head]] = {"fock": FockHead, "energy": EnergyHead}
"""Heads by name, in the order in which they are made and evaluated."""

__all__ = ["HEADS", "Ask", "EnergyHead", "Features", "FockHead", "Head"]
