"""A trained model as a user holds it: molecules in; Fock matrices, what follows from them, energies out.

Knows: which inputs are accepted, the model's domain, the change to PySCF's AO order, files and tables of
results. Does not know: training, SCF, labels. A prediction from a store needs no PySCF; one from a bare
geometry needs it for the overlap.
"""

from helmol.predict.derived import PROPERTIES
from helmol.predict.energy_fit import learn_energies
from helmol.predict.ensemble import EnsembleEnergy, ensemble_energies
from helmol.predict.kept import PredictionFile
from helmol.predict.matrix_energy import MatrixEnergy
from helmol.predict.prediction import Prediction, make_prediction
from helmol.predict.trained import TrainedModel

__all__ = [
    "PROPERTIES",
    "EnsembleEnergy",
    "MatrixEnergy",
    "Prediction",
    "PredictionFile",
    "TrainedModel",
    "ensemble_energies",
    "learn_energies",
    "make_prediction",
]
