"""How wrong a predicted Fock matrix, energy or force is, in named units, beside the error of cheap guesses.

Knows: the metrics (:mod:`helmol.evaluate.metrics`), where the error sits (:mod:`helmol.evaluate.blocks`),
plots and pages, published errors. Does not know: how a network is trained. Validation during training is the
same code as the final table.

PySCF is used only where a sample lacks an overlap or where dipoles are asked for, and its absence
leaves those numbers out with a reason, never a zero.
"""

from helmol.evaluate.energies import evaluate_energies
from helmol.evaluate.fock import ErrorTable, errors
from helmol.evaluate.from_fock import energies_from_fock
from helmol.evaluate.metrics import (
    ENERGY_METRICS,
    FOCK_METRICS,
    FROM_FOCK_METRICS,
    METRICS,
    SPIN_METRICS,
    Metric,
)
from helmol.evaluate.network import evaluate_model

__all__ = [
    "ENERGY_METRICS",
    "FOCK_METRICS",
    "FROM_FOCK_METRICS",
    "METRICS",
    "SPIN_METRICS",
    "ErrorTable",
    "Metric",
    "energies_from_fock",
    "errors",
    "evaluate_energies",
    "evaluate_model",
]
