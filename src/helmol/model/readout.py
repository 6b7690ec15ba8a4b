"""The closed-form start of the energy head ``elements``: ridge regression on pooled features.

With ``x_i`` the invariants of atom i and its element's weights ``w``, a molecule's energy beyond the
reference is ``scale · Σ_i w_{Z_i} · x_i / √dim``: linear in w. Learning by gradient from zero takes thousands
of steps to find what one linear solve gives.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch

from helmol.errors import ConfigError
from helmol.graph import Item, collate
from helmol.model.heads.energy import invariants
from helmol.model.network import HamiltonianModel, groups_of
from helmol.system.sample import Array

log = logging.getLogger("helmol.model")

STRENGTHS = 10.0 ** np.arange(-6, 4)
"""Ridge strengths that are tried, in units of the features' mean square."""
MAX_EDGES = 5_000


def fit_readout(network: HamiltonianModel, items: Sequence[Item], energies: Sequence[float]) -> float:
    """Fit the weights of the readout ``elements`` to energies, and return the error left out of the fit.

    The strength of the ridge is the one with the smallest mean absolute error on molecules left out: all of
    one formula at a time where there are several formulas, else one by one.

    Args:
        network: with an energy head of that readout and its reference fitted.
        items: prepared training molecules.
        energies: total energies, Eh.

    Returns:
        Mean absolute error on what was left out, Eh.

    Raises:
        ConfigError: the model has no such head.
    """
    head = network.energy
    if head is None or head.elements is None:
        raise ConfigError("only the energy readout 'elements' has a closed-form fit")
    features, numbers = pooled_features(network, items)
    rest = np.array(
        [e - network.reference.energy_of(item.molecule) for e, item in zip(energies, items, strict=True)]
    )
    flat = features.reshape(len(items), -1)
    kernel = flat @ flat.T / max(float(np.square(flat).mean()), 1e-300)
    groups = _groups(items)
    errors = [_left_out(kernel, rest, groups, strength) for strength in STRENGTHS]
    best = int(np.argmin(errors))
    dual = np.linalg.solve(kernel + STRENGTHS[best] * np.eye(len(kernel)), rest)
    weights = (flat.T @ dual / max(float(np.square(flat).mean()), 1e-300)).reshape(features.shape[1:])
    weights *= features.shape[2] ** 0.5 / network.reference.scale
    with torch.no_grad():
        head.elements.weight.zero_()
        head.elements.weight[torch.as_tensor(numbers)] = torch.as_tensor(weights).to(head.elements.weight)
    log.info("energy head fitted to %d energies, ridge %.0e", len(items), STRENGTHS[best])
    return float(errors[best])


def pooled_features(network: HamiltonianModel, items: Sequence[Item]) -> tuple[Array, list[int]]:
    """Return per molecule and element the sum over its atoms of the invariants, ``[n, n_elements, dim]``."""
    numbers = sorted({int(z) for item in items for z in item.molecule.numbers})
    place = {z: k for k, z in enumerate(numbers)}
    rows = []
    for group in groups_of(items, MAX_EDGES):
        batch = collate(group).to(network.device)
        with torch.no_grad():
            x = invariants(network.backbone.nodes(batch).final).to(torch.float64).cpu()
        slot = batch.molecule.cpu() * len(numbers) + torch.tensor([place[int(z)] for z in batch.numbers])
        pooled = torch.zeros(len(group) * len(numbers), x.shape[1], dtype=torch.float64).index_add(0, slot, x)
        rows.append(pooled.view(len(group), len(numbers), -1).numpy())
    return np.concatenate(rows), numbers


def _groups(items: Sequence[Item]) -> list[list[int]]:
    """Return which molecules are left out together."""
    formulas: dict[str, list[int]] = {}
    for k, item in enumerate(items):
        formulas.setdefault(item.molecule.formula, []).append(k)
    return list(formulas.values()) if len(formulas) > 2 else [[k] for k in range(len(items))]


def _left_out(kernel: Array, values: Array, groups: Sequence[Sequence[int]], strength: float) -> float:
    """Return the mean absolute error of ridge regression on each group from a fit to the others.

    With ``A = (K + λ)⁻¹``, the error of group b is ``A_bb⁻¹ (A y)_b``.
    """
    inverse = np.linalg.inv(kernel + strength * np.eye(len(kernel)))
    dual = inverse @ values
    errors = [np.linalg.solve(inverse[np.ix_(b, b)], dual[b]) for b in map(list, groups)]
    return float(np.abs(np.concatenate(errors)).mean())
