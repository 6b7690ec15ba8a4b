"""The network: a backbone that knows no orbitals, heads that turn features into matrix blocks.

Knows: torch, irreps, its own domain. Does not know: PySCF, files other than its own, training.
"""

from helmol.model.artifact import load_model, save_model
from helmol.model.config import MODEL_PRESETS, ModelConfig
from helmol.model.domain import TARGETS, Domain, Target, reference_matrix, reference_name, target_matrix
from helmol.model.network import (
    BlockIrreps,
    HamiltonianModel,
    build,
    fit_statistics,
    hamiltonian_loss,
    predict_fock,
)

__all__ = [
    "MODEL_PRESETS",
    "TARGETS",
    "BlockIrreps",
    "Domain",
    "HamiltonianModel",
    "ModelConfig",
    "Target",
    "build",
    "fit_statistics",
    "hamiltonian_loss",
    "load_model",
    "predict_fock",
    "reference_matrix",
    "reference_name",
    "save_model",
    "target_matrix",
]
