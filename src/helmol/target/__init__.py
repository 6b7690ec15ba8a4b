"""What is known of a label before the network: subtracted from labels, added to predictions, saved with it.

Knows: domains, H₀ by name, closed-form parts, statistics, element energies, damping; torch, and how the
samples of a store become prepared molecules. Does not know: networks, losses, PySCF.
"""

from helmol.target.damping import damped
from helmol.target.domain import Domain, element_pairs
from helmol.target.energy import EnergyTarget
from helmol.target.fock import PARTS, FockOutput, FockTarget, leave
from helmol.target.linear import LinearPart
from helmol.target.matrix import (
    TARGETS,
    TargetName,
    input_matrices,
    needed_references,
    reference_matrix,
    reference_name,
    target_matrix,
)
from helmol.target.means import Means
from helmol.target.parts import Part, Sizes
from helmol.target.scale import Scale
from helmol.target.stored import stored_items

__all__ = [
    "PARTS",
    "TARGETS",
    "Domain",
    "EnergyTarget",
    "FockOutput",
    "FockTarget",
    "LinearPart",
    "Means",
    "Part",
    "Scale",
    "Sizes",
    "TargetName",
    "damped",
    "element_pairs",
    "input_matrices",
    "leave",
    "needed_references",
    "reference_matrix",
    "reference_name",
    "stored_items",
    "target_matrix",
]
