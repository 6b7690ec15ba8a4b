"""The closed-form start of the energy head ``elements``: ridge regression on pooled features.

With ``x_i`` the invariants of atom i, standardised over the training atoms of its element, and that element's
weights ``w``, a molecule's energy beyond the element energies is ``scale · Σ_i w_{Z_i} · x_i / dim``, linear
in w. Learning by gradient from zero takes thousands of steps to find what one linear solve gives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from helmol.arrays import Array, IntArray
from helmol.errors import ConfigError
from helmol.graph import Item, collate
from helmol.model.heads.energy import EnergyHead, all_invariants
from helmol.model.model import Model
from helmol.model.prediction import groups_of

Ints = IntArray
log = logging.getLogger("helmol.model")

STRENGTHS = 10.0 ** np.arange(-4, 7)
"""Ridge strengths that are tried, in units of the features' mean square."""
FREEDOM = 1.0
"""Weight of the composition beside the features in the kernel."""
MAX_EDGES = 5_000
SMALLEST_STD = 1e-3
"""Smallest standard deviation, as a share of the feature's root mean square over all training atoms."""


def fit_readout(model: Model, items: Sequence[Item], energies: Sequence[float]) -> float:
    """Fit the weights of the readout ``elements`` to energies, and return the error left out of the fit.

    The energies of the elements are fitted again together with the weights.

    The strength of the ridge is the one with the smallest root-mean-square error on molecules left out: all
    of one formula at a time where there are several formulas, else one by one.

    Args:
        model: with an energy head of that readout and its element energies fitted.
        items: prepared training molecules.
        energies: total energies, Eh.

    Returns:
        Root-mean-square error on what was left out, Eh.

    Raises:
        ConfigError: the model has no such head.
    """
    head, target = model.energy_head, model.energy_target
    if head.elements is None:
        raise ConfigError("only the energy readout 'elements' has a closed-form fit")
    atoms, numbers, molecule = atom_features(model, items)
    standardise(head, atoms, numbers)
    features, elements = pool(head, atoms, numbers, molecule)
    rest = np.array([e - target.energy_of(item.molecule) for e, item in zip(energies, items, strict=True)])
    unit = max(float(np.square(features).mean()) ** 0.5, 1e-150)
    flat = features.reshape(len(items), -1) / unit
    counts = np.stack([np.bincount(item.molecule.numbers, minlength=119)[elements] for item in items])
    counts_unit = (FREEDOM * np.square(flat).sum() / np.square(counts).sum()) ** 0.5
    counts = counts * counts_unit
    kernel = flat @ flat.T + counts @ counts.T
    groups = _groups(items)
    errors = [left_out(kernel, rest, groups, strength) for strength in STRENGTHS]
    best = int(np.argmin(errors))
    dual = np.linalg.solve(kernel + STRENGTHS[best] * np.eye(len(kernel)), rest)
    weights = (flat.T @ dual).reshape(features.shape[1:]) / unit
    weights *= features.shape[2] / float(target.scale)
    with torch.no_grad():
        target.per_element[elements] += torch.as_tensor(counts_unit * counts.T @ dual).to(target.per_element)
        head.elements.weight.zero_()
        head.elements.weight[torch.as_tensor(elements)] = torch.as_tensor(weights).to(head.elements.weight)
    log.info("energy head fitted to %d energies, ridge %.0e", len(items), STRENGTHS[best])
    return float(errors[best])


def atom_features(model: Model, items: Sequence[Item]) -> tuple[Array, Ints, Ints]:
    """Return the invariants of all atoms ``[n, dim]``, their atomic numbers and their molecules ``[n]``."""
    features, numbers, molecule, n_before = [], [], [], 0
    for group in groups_of(items, MAX_EDGES):
        batch = collate(group).to(model.device)
        with torch.no_grad():
            features.append(all_invariants(model(batch, ()).nodes).to(torch.float64).cpu().numpy())
        numbers.append(batch.numbers.cpu().numpy())
        molecule.append(batch.molecule.cpu().numpy() + n_before)
        n_before += len(group)
    return np.concatenate(features), np.concatenate(numbers), np.concatenate(molecule)


def standardise(head: EnergyHead, features: Array, numbers: Ints) -> None:
    """Set the mean and the standard deviation of every feature over the atoms of each element.

    A feature that hardly varies is left small: what its noise would be blown up to means nothing.
    """
    floor = SMALLEST_STD * np.sqrt(np.square(features).mean(axis=0)) + 1e-12
    for z in np.unique(numbers):
        mine = features[numbers == z]
        head.mean[int(z)] = torch.as_tensor(mine.mean(axis=0)).to(head.mean)
        head.inverse_std[int(z)] = torch.as_tensor(1 / np.maximum(mine.std(axis=0), floor)).to(head.mean)


def pool(head: EnergyHead, features: Array, numbers: Ints, molecule: Ints) -> tuple[Array, list[int]]:
    """Return per molecule and element the sum of the standardised features, ``[n, n_elements, dim]``."""
    elements = np.unique(numbers)
    mean, inverse = (part.to(torch.float64).cpu().numpy() for part in (head.mean, head.inverse_std))
    pooled = np.zeros((int(molecule.max()) + 1, len(elements), features.shape[1]))
    np.add.at(
        pooled, (molecule, np.searchsorted(elements, numbers)), (features - mean[numbers]) * inverse[numbers]
    )
    return pooled, elements.tolist()


def _groups(items: Sequence[Item]) -> list[list[int]]:
    """Return which molecules are left out together."""
    formulas: dict[str, list[int]] = {}
    for k, item in enumerate(items):
        formulas.setdefault(item.molecule.formula, []).append(k)
    return list(formulas.values()) if len(formulas) > 2 else [[k] for k in range(len(items))]


def left_out(kernel: Array, values: Array, groups: Sequence[Sequence[int]], strength: float) -> float:
    """Return the root-mean-square error of ridge regression on each group from a fit to the others.

    With ``A = (K + λ)⁻¹``, the error of group b is ``A_bb⁻¹ (A y)_b``.
    """
    inverse = np.linalg.inv(kernel + strength * np.eye(len(kernel)))
    dual = inverse @ values
    errors = [np.linalg.solve(inverse[np.ix_(b, b)], dual[b]) for b in map(list, groups)]
    return float(np.square(np.concatenate(errors)).mean() ** 0.5)
