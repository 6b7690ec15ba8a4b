"""A model: a backbone that knows no orbitals, heads that make blocks and energies of its features.

Knows: torch, irreps, what its outputs cost (:mod:`helmol.model.losses`), its folder on the disk, and how
many molecules are predicted in batches. Does not know: PySCF, stores, the steps of a training.
"""

from helmol.model.artifact import describe_model, find_model, load_model, save_model
from helmol.model.backbone.products import PRECISIONS, Precision
from helmol.model.config import MODEL_PRESETS, ModelConfig
from helmol.model.export import copy_model, export_model
from helmol.model.heads.energy import EnergyOutput, EnergySettings
from helmol.model.losses import LossKind, LossWeights, energy_loss, hamiltonian_loss
from helmol.model.model import Model, Output, build, fit_statistics
from helmol.model.prediction import PredictedEnergy, groups_of, predict_energies, predict_fock
from helmol.model.readout import fit_readout

__all__ = [
    "MODEL_PRESETS",
    "PRECISIONS",
    "EnergyOutput",
    "EnergySettings",
    "LossKind",
    "LossWeights",
    "Model",
    "ModelConfig",
    "Output",
    "Precision",
    "PredictedEnergy",
    "build",
    "copy_model",
    "describe_model",
    "energy_loss",
    "export_model",
    "find_model",
    "fit_readout",
    "fit_statistics",
    "groups_of",
    "hamiltonian_loss",
    "load_model",
    "predict_energies",
    "predict_fock",
    "save_model",
]
