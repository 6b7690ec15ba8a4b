"""How wrong a predicted Fock matrix is, in named units, beside the error of cheap guesses.

Knows: the metrics and their definitions (:mod:`helmol.evaluate.errors`), where the error sits
(:mod:`helmol.evaluate.blocks`), plots. Does not know: how a network is trained, file formats of
data. Validation during training is the same code as the final table.

PySCF is used only where a sample lacks an overlap or where dipoles are asked for, and its absence
leaves those numbers out with a reason, never a zero.
"""

from helmol.evaluate.energies import ENERGY_METRICS, evaluate_energies
from helmol.evaluate.errors import METRICS, ErrorTable, errors
from helmol.evaluate.from_fock import FROM_FOCK_METRICS, energies_from_fock
from helmol.evaluate.network import evaluate_model

__all__ = [
    "ENERGY_METRICS",
    "FROM_FOCK_METRICS",
    "METRICS",
    "ErrorTable",
    "energies_from_fock",
    "errors",
    "evaluate_energies",
    "evaluate_model",
]
