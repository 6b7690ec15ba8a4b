"""Energies and forces of one model or several, and how far the several disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from helmol.arrays import Array
from helmol.brief import brief
from helmol.errors import InputError
from helmol.predict.trained import TrainedModel
from helmol.system import Molecule


@dataclass(frozen=True)
class EnsembleEnergy:
    """Hold the mean over models of one molecule's energy and forces, and their spread.

    Attributes:
        energy: Eh.
        forces: Eh/bohr, ``[n_atoms, 3]``; ``None`` where not asked for.
        energy_std: standard deviation over the models (n − 1 in the denominator), Eh; ``None`` of one model.
        forces_std: the same of every component, Eh/bohr, ``[n_atoms, 3]``.
    """

    energy: float
    forces: Array | None
    energy_std: float | None
    forces_std: Array | None

    __repr__ = brief


def ensemble_energies(
    models: Sequence[TrainedModel],
    molecules: Sequence[Molecule],
    *,
    forces: bool = True,
    max_edges: int = 20_000,
) -> list[EnsembleEnergy]:
    """Predict energies with every model and return means and spreads.

    The members must differ in nothing but chance (seeds, data order, split): models of several levels of
    theory are refused.

    Args:
        models: with energy heads; one is allowed and has no spread.
        molecules: inside the domain of all.
        forces: whether to compute forces.
        max_edges: molecules are processed together up to this many directed edges.

    Raises:
        InputError: no models, or models of different levels of theory.
        ConfigError: a model without an energy head.
        DomainError: a molecule that a model has not learnt.
    """
    check_members(models)
    results = [model.energies(molecules, forces=forces, max_edges=max_edges) for model in models]
    several = len(models) > 1
    combined = []
    for members in zip(*results, strict=True):
        energies = np.array([member.energy for member in members])
        all_forces = [member.forces for member in members if member.forces is not None]
        stacked = np.stack(all_forces) if all_forces else None
        combined.append(
            EnsembleEnergy(
                energy=float(energies.mean()),
                forces=None if stacked is None else stacked.mean(axis=0),
                energy_std=float(energies.std(ddof=1)) if several else None,
                forces_std=None if stacked is None or not several else stacked.std(axis=0, ddof=1),
            )
        )
    return combined


def check_members(models: Sequence[TrainedModel]) -> None:
    """Refuse an ensemble of nothing, of several levels of theory, or where only some predict energies.

    Raises:
        InputError: any of these.
    """
    if not models:
        raise InputError("an ensemble needs at least one model")
    without = [k for k, model in enumerate(models, start=1) if not model.has_energy]
    if 0 < len(without) < len(models):
        raise InputError(
            f"model {without[0]} of {len(models)} predicts no energies, others do: an ensemble averages "
            "energies, so leave it out"
        )
    levels = {(d.level.xc_resolved, d.level.dispersion, d.basis.name) for d in (m.domain for m in models)}
    if len(levels) > 1:
        names = sorted({model.domain.level.label for model in models})
        raise InputError(f"the models are of different levels of theory ({', '.join(names)})")
