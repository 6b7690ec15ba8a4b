"""Errors of energies and forces, beside what the composition alone explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from helmol.arrays import Array
from helmol.brief import brief
from helmol.errors import InputError
from helmol.evaluate.metrics import interval, needing
from helmol.store import Store
from helmol.system import Molecule
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

if TYPE_CHECKING:
    from helmol.model import Model, PredictedEnergy


MEV = 1000 * EV_PER_HARTREE
MEV_PER_ANGSTROM = 1000 * EV_PER_ANGSTROM_PER_AU


@dataclass(frozen=True)
class EnergyLabel:
    """Hold a molecule with its energy (Eh) and forces (Eh/bohr, ``[n_atoms, 3]``, ``None`` if unlabelled)."""

    id: str
    molecule: Molecule
    energy: float
    forces: Array | None

    __repr__ = brief


def read_label(store: Store, row: int) -> EnergyLabel:
    """Read a molecule and its energy from a store; its matrices are left alone.

    Raises:
        InputError: the sample has no energy.
    """
    energy, forces = store.values("energy", row), store.values("forces", row)
    if len(energy) == 0:
        raise InputError(f"sample {store.ids[row]!r} of {store.path} has no energy")
    return EnergyLabel(
        store.ids[row],
        store.molecule(row),
        float(energy[0]),
        np.asarray(forces, dtype=np.float64).reshape(-1, 3) if len(forces) else None,
    )


def energy_errors(
    labels: Sequence[EnergyLabel], predicted: Sequence[tuple[float, Array | None] | PredictedEnergy]
) -> dict[str, Any]:
    """Return the error table of predicted energies (Eh) and forces (Eh/bohr).

    Returns:
        ``n_molecules``, :data:`helmol.evaluate.ENERGY_METRICS`, and 95 % bootstrap intervals over molecules
        of the two mean absolute errors, ``energy_mae_meV_ci95`` and ``force_mae_meV_per_angstrom_ci95``.

    Raises:
        InputError: no molecules, or another number of predictions.
    """
    if len(labels) == 0 or len(labels) != len(predicted):
        raise InputError(f"{len(predicted)} predicted energies for {len(labels)} labelled molecules")
    pairs = [p if isinstance(p, tuple) else (p.energy, p.forces) for p in predicted]
    error = MEV * np.array([e - label.energy for (e, _), label in zip(pairs, labels, strict=True)])
    n_atoms = np.array([label.molecule.n_atoms for label in labels])
    differences = [
        MEV_PER_ANGSTROM * (forces - label.forces)
        for (_, forces), label in zip(pairs, labels, strict=True)
        if forces is not None and label.forces is not None
    ]
    by_molecule = [float(np.abs(difference).mean()) for difference in differences]
    squares = np.concatenate([np.square(d).ravel() for d in differences]) if differences else None
    return {
        "n_molecules": len(labels),
        "energy_mae_meV": float(np.abs(error).mean()),
        "energy_mae_meV_per_atom": float((np.abs(error) / n_atoms).mean()),
        "energy_rmse_meV": float(np.sqrt(np.square(error).mean())),
        "energy_bias_meV": float(error.mean()),
        "force_mae_meV_per_angstrom": float(np.mean(by_molecule)) if by_molecule else None,
        "force_rmse_meV_per_angstrom": None if squares is None else float(np.sqrt(squares.mean())),
        "energy_mae_meV_ci95": interval(list(np.abs(error))),
        "force_mae_meV_per_angstrom_ci95": interval(by_molecule),
    }


def predict_labels(
    model: Model,
    labels: Sequence[EnergyLabel],
    *,
    max_edges: int = 20_000,
    among: Sequence[EnergyLabel] | None = None,
) -> list[PredictedEnergy]:
    """Predict energies, and forces where the model knows them and every molecule has labels of them.

    Args:
        model: with an energy head.
        labels: the molecules.
        max_edges: atom pairs per batch.
        among: all molecules, where ``labels`` are some of those that are compared together.
    """
    from helmol.model import predict_energies

    forces = not _why_no_forces(model, labels if among is None else among)
    molecules = [label.molecule for label in labels]
    return predict_energies(model, molecules, forces=forces, max_edges=max_edges)


def energy_table(
    model: Model, labels: Sequence[EnergyLabel], predicted: Sequence[PredictedEnergy]
) -> dict[str, Any]:
    """Return the error table of a model with an energy head.

    Returns:
        The keys of :func:`energy_errors`, and the same of ``baselines["elements"]``, the energies of the
        elements with no forces; ``missing``: why a number is ``None``.
    """
    result = energy_errors(labels, predicted)
    missing = _why_no_forces(model, labels)
    alone = [
        (model.energy_target.energy_of(m), None if missing else np.zeros((m.n_atoms, 3)))
        for m in (label.molecule for label in labels)
    ]
    result["baselines"] = {"elements": energy_errors(labels, alone)}
    result["missing"] = dict.fromkeys(needing("forces"), missing) if missing else {}
    return result


def evaluate_energies(
    model: Model, labels: Sequence[EnergyLabel], *, max_edges: int = 20_000
) -> dict[str, Any]:
    """Predict and compare: :func:`energy_table` of :func:`predict_labels`."""
    return energy_table(model, labels, predict_labels(model, labels, max_edges=max_edges))


def _why_no_forces(model: Model, labels: Sequence[EnergyLabel]) -> str:
    """Return why forces cannot be compared; empty if they can."""
    if any(label.forces is None for label in labels):
        return "some molecules have no force labels"
    if model.energy_head.direct is not None and float(model.energy_target.force_scale) == 0:
        return "the model was not trained on forces"
    return ""
