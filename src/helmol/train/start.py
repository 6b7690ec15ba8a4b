"""The network a run starts from: random weights, or those of another model with checks that they fit."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from helmol.errors import ConfigError, DomainError
from helmol.model import (
    HamiltonianModel,
    build,
    find_model,
    fit_readout,
    fit_reference,
    fit_statistics,
    load_model,
)
from helmol.train.config import TrainConfig
from helmol.train.data import TrainingData

log = logging.getLogger("helmol.train")

LARGEST_MISMATCH = 20.0
"""A reference whose error on the new data exceeds this multiple of its own spread (and of theirs) belongs to
energies of another kind: another functional, unit, or zero."""


def starting_network(config: TrainConfig, data: TrainingData) -> HamiltonianModel:
    """Return the network before the first step, with statistics and references of the training set.

    Raises:
        ConfigError: the model in ``init`` does not fit the data or the task.
    """
    network = build(config.network(), data.domain, seed=config.seed, dtype=getattr(torch, config.dtype))
    network.set_precision(config.precision)
    given = None if config.init is None else load_model(find_model(config.init))
    if network.head is not None and (given is None or given.head is None):
        fit_statistics(network, data.items, centring=config.centring, scaling=config.scaling)
    network.linear = data.linear
    if network.energy is not None:
        labels = data.energies
        forces = [label.forces for label in labels if label.forces is not None] if config.force_weight else []
        network.reference = fit_reference(
            [label.molecule for label in labels], [label.energy for label in labels], forces
        )
    if given is not None:
        _take_over(network, given, config, data)
    if network.energy is not None and network.energy.elements is not None and not network.energy.trained:
        fit_readout(network, data.items, [label.energy for label in data.energies])
    if config.freeze:
        network.backbone.requires_grad_(False)
    return network


def _take_over(
    network: HamiltonianModel, given: HamiltonianModel, config: TrainConfig, data: TrainingData
) -> None:
    """Copy backbone and fitting heads of a model, with what they need to mean the same."""
    _load(network.backbone, given.backbone, "backbone")
    taken = ["backbone"]
    if network.head is not None and given.head is not None:
        _load(network.head, given.head, "Hamiltonian head")
        network.statistics = given.statistics
        taken.append("Hamiltonian head")
    if network.energy is not None and given.energy is not None and not config.new_head:
        if given.config.energy != network.config.energy:
            raise ConfigError(
                f"the energy head of {config.init} is {given.config.energy}, the task wants "
                f"{network.config.energy}: set readout and forces alike, or new_head: true"
            )
        _check_reference(given, network, config, data)
        _load(network.energy, given.energy, "energy head")
        scales: dict[str, Any] = {"scale": given.reference.scale, "force_scale": given.reference.force_scale}
        if scales["force_scale"] == 0:
            scales["force_scale"] = network.reference.force_scale
        network.reference = type(given.reference)(given.reference.per_element, given.reference.span, **scales)
        taken.append("energy head")
    log.info("from %s: %s%s", config.init, ", ".join(taken), " (backbone frozen)" if config.freeze else "")


def _load(part: torch.nn.Module, source: torch.nn.Module, name: str) -> None:
    """Copy the weights that ``part`` has; a part without edge blocks leaves those of the source."""
    weights = source.state_dict()
    wanted = part.state_dict()
    wrong = [n for n, w in wanted.items() if n not in weights or weights[n].shape != w.shape]
    if wrong:
        raise ConfigError(f"the {name} of init does not fit: {wrong[0]} is missing or differs in size")
    part.load_state_dict({n: weights[n] for n in wanted})


def _check_reference(
    given: HamiltonianModel, network: HamiltonianModel, config: TrainConfig, data: TrainingData
) -> None:
    """Refuse to go on with an energy head whose per-element reference is not that of the new energies."""
    per_element = given.reference.per_element.numpy()
    rest = []
    for label in data.energies:
        try:
            given.reference.check(label.molecule)
        except DomainError as error:
            raise ConfigError(f"init: {error}; or start a new head with new_head: true") from error
        rest.append((label.energy - per_element[label.molecule.numbers].sum()) / label.molecule.n_atoms**0.5)
    error = float(np.sqrt(np.mean(np.square(rest))))
    allowed = LARGEST_MISMATCH * max(given.reference.scale, network.reference.scale)
    if error > allowed:
        raise ConfigError(
            f"the energies of {config.data} are off the per-element reference of {config.init} by "
            f"{error:.3g} Eh per root of the atoms, where {given.reference.scale:.3g} is its own spread: "
            "they are energies of another level of theory or zero; use data of that level, or new_head: true"
        )
