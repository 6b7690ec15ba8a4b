"""Frozen records that travel between the rooms: molecules, levels of theory, matrices, samples.

Knows: shapes, units (atomic), charge/spin parity, which cheap Fock matrices are what their names say.
Does not know: files, PySCF, torch.
"""

from helmol.system.level import LevelOfTheory
from helmol.system.molecule import MINIMUM_DISTANCE_ANGSTROM, Molecule
from helmol.system.references import outdated_references
from helmol.system.sample import Matrices, Sample

__all__ = [
    "MINIMUM_DISTANCE_ANGSTROM",
    "LevelOfTheory",
    "Matrices",
    "Molecule",
    "Sample",
    "outdated_references",
]
