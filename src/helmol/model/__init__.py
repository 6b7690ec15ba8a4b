"""The network: a backbone that knows no orbitals, heads that make blocks and energies of them.

Knows: torch, irreps, its own domain. Does not know: PySCF, files other than its own, training.
"""

from helmol.model.artifact import describe_model, find_model, load_model, save_model, set_overlap_floor
from helmol.model.backbone.products import PRECISIONS, Precision
from helmol.model.config import MODEL_PRESETS, EnergyConfig, ModelConfig
from helmol.model.damping import damped
from helmol.model.domain import TARGETS, Domain, Target, reference_matrix, reference_name, target_matrix
from helmol.model.energy import EnergyOutput, PredictedEnergy, energies, energy_loss, predict_energies
from helmol.model.given import needed_references
from helmol.model.losses import LossKind, LossWeights, hamiltonian_loss
from helmol.model.network import (
    BlockIrreps,
    HamiltonianModel,
    build,
    fit_statistics,
    predict_fock,
)
from helmol.model.readout import fit_readout
from helmol.model.reference import EnergyReference, fit_reference
from helmol.model.stored import stored_items

__all__ = [
    "MODEL_PRESETS",
    "PRECISIONS",
    "TARGETS",
    "BlockIrreps",
    "Domain",
    "EnergyConfig",
    "EnergyOutput",
    "EnergyReference",
    "HamiltonianModel",
    "LossKind",
    "LossWeights",
    "ModelConfig",
    "Precision",
    "PredictedEnergy",
    "Target",
    "build",
    "damped",
    "describe_model",
    "energies",
    "energy_loss",
    "find_model",
    "fit_readout",
    "fit_reference",
    "fit_statistics",
    "hamiltonian_loss",
    "load_model",
    "needed_references",
    "predict_energies",
    "predict_fock",
    "reference_matrix",
    "reference_name",
    "save_model",
    "set_overlap_floor",
    "stored_items",
    "target_matrix",
]
