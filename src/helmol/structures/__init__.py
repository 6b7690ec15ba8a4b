"""Geometries: read from files, written to files, sampled by molecular dynamics.

Knows: ASE's file formats (imported only when used), xTB molecular dynamics. Does not know: DFT,
stores, torch. Å and the multiplicity 2S+1 of foreign files become bohr and 2S here.
"""

from helmol.structures.bonds import bonds, environments
from helmol.structures.dynamics import DynamicsConfig, md
from helmol.structures.files import from_atoms, read, write
from helmol.structures.structure import Structure

__all__ = [
    "DynamicsConfig",
    "Structure",
    "bonds",
    "environments",
    "from_atoms",
    "md",
    "read",
    "write",
]
