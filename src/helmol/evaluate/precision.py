"""What reduced precision of matrix products costs: one model, the same molecules, every precision."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from helmol.evaluate.fock import errors
from helmol.evaluate.network import predictions
from helmol.progress import Progress
from helmol.system import Sample
from helmol.units import MICROHARTREE_PER_HARTREE

if TYPE_CHECKING:
    from helmol.model import Model


def precision_table(
    model: Model, samples: Sequence[Sample], *, max_edges: int = 20_000
) -> dict[str, dict[str, float]]:
    """Return what every precision changes in the predicted Fock matrices, and the error against labels.

    Args:
        model: with a Hamiltonian head.
        samples: labelled molecules.
        max_edges: atom pairs per batch.

    Returns:
        By precision (and ``fp64``) ``h_change_uEh``: mean over molecules of the mean absolute difference from
        the same model in float64, ``h_change_max_uEh``: the largest difference of any element,
        ``h_mae_uEh``, ``eps_occ_mae_uEh``: errors against the labels, ``seconds_per_molecule``.
    """
    import torch

    from helmol.model import PRECISIONS

    double = copy.deepcopy(model).set_precision("fp32").to(torch.float64)
    single = copy.deepcopy(model).set_precision("fp32").to(torch.float32)
    rows: dict[str, dict[str, float]] = {}
    exact: list[Any] = []
    names = ["fp64", *PRECISIONS]
    with Progress("Precisions", total=len(names), unit="precisions") as bar:
        for name in names:
            rounded = double if name == "fp64" else single.set_precision(name)
            found = list(predictions(rounded, samples, max_edges=max_edges, at_a_time=max(len(samples), 1)))
            matrices = [one.fock for one in found]
            exact = exact or matrices
            changes = [np.abs(one - other) for one, other in zip(matrices, exact, strict=True)]
            table = errors(samples, matrices, model.domain.basis)
            rows[name] = {
                "h_change_uEh": float(np.mean([c.mean() for c in changes])) * MICROHARTREE_PER_HARTREE,
                "h_change_max_uEh": float(max(c.max() for c in changes)) * MICROHARTREE_PER_HARTREE,
                "h_mae_uEh": table["h_mae_uEh"],
                "eps_occ_mae_uEh": table["eps_occ_mae_uEh"],
                "seconds_per_molecule": sum(one.seconds for one in found) / max(len(samples), 1),
            }
            bar.advance()
    return rows
