"""The model a run starts from: random weights, or those of another model with checks that they fit."""

from __future__ import annotations

import logging
import time

import numpy as np
import torch

from helmol.errors import ConfigError, DomainError
from helmol.model import Model, build, fit_readout, load_model
from helmol.target import EnergyTarget, FockTarget
from helmol.train.config import TargetConfig, TrainConfig
from helmol.train.data import TrainingData
from helmol.train.plan import Plan

log = logging.getLogger("helmol.train")

LARGEST_MISMATCH = 20.0
"""Element energies whose error on the new data exceeds this multiple of its own spread (and of theirs) are of
energies of another kind: another functional, unit, or zero."""


def starting_model(plan: Plan, data: TrainingData) -> tuple[Model, float]:
    """Return the model before the first step, and the CPU seconds of the closed-form fits.

    What is known of the targets is fitted to the training set and taken from ``data.items``.

    Raises:
        ConfigError: the model in ``init`` does not fit the data or the task.
    """
    config = plan.config
    dtype = getattr(torch, config.run.dtype)
    model = build(plan.network, data.domain, seed=config.run.seed, dtype=dtype)
    model.set_precision(config.run.precision)
    source = None if plan.source is None else load_model(plan.source.folder)
    seconds = 0.0
    if "energy" in model.heads:
        labels = data.energies
        with_forces = config.loss.force_weight > 0
        forces = [label.forces for label in labels if label.forces is not None] if with_forces else []
        model.energy_target.fit(
            [label.molecule for label in labels], [label.energy for label in labels], forces
        )
    if source is not None:
        _take_over(model, source, plan, data)
    if "fock" in model.heads:
        if source is None or "fock" not in source.heads:
            seconds = _fit_target(model, config.target, data)
        else:
            data.items.change(model.fock_target.subtract)
    if "energy" in model.heads and model.energy_head.elements is not None and not model.energy_head.trained:
        fit_readout(model, data.items, [label.energy for label in data.energies])
    if config.init.freeze:
        for part in (model.backbone, model.matrix_input):
            if part is not None:
                part.requires_grad_(False)
    return model, seconds


def _fit_target(model: Model, config: TargetConfig, data: TrainingData) -> float:
    """Fit what is known of Fock matrices, take it from the training molecules; return the CPU seconds."""
    if model.matrix_input is not None:
        model.matrix_input.fit(data.items, data.domain.basis)
    start = time.process_time()
    model.fock_target.fit(
        data.items, {"linear": config.linear, "means": config.centring}, scaling=config.scaling,
        without=lambda _, part: data.items.without(part),
    )  # fmt: skip
    return time.process_time() - start


def _take_over(model: Model, source: Model, plan: Plan, data: TrainingData) -> None:
    """Copy backbone and fitting heads of a model, with what they need to mean the same."""
    init, who = plan.config.init, plan.config.init.model
    _load(model.backbone, source.backbone, "backbone")
    if model.matrix_input is not None:
        if source.matrix_input is None:
            raise ConfigError(f"inputs: {who} reads no matrices")
        _load(model.matrix_input, source.matrix_input, "input of matrices")
    taken = ["backbone"]
    if "fock" in model.heads and "fock" in source.heads:
        _load(model.fock_head, source.fock_head, "Hamiltonian head")
        known = source.fock_target
        model.targets["fock"] = target = FockTarget(data.domain, known.sizes, known.description())
        target.load_state_dict(known.state_dict())
        target.overlap_floor.zero_()  # chosen anew at the end of the run
        taken.append("Hamiltonian head")
    if "energy" in model.heads and "energy" in source.heads and not init.new_head:
        if source.energy_head.settings != model.energy_head.settings:
            raise ConfigError(
                f"the energy head of {who} is {source.energy_head.settings}, the task wants "
                f"{model.energy_head.settings}: set model.heads.energy alike, or init.new_head: true"
            )
        _check_energies(source.energy_target, model.energy_target, plan.config, data)
        _load(model.energy_head, source.energy_head, "energy head")
        mine, theirs = model.energy_target, source.energy_target
        force_scale = float(theirs.force_scale) or float(mine.force_scale)
        mine.set(theirs.per_element, theirs.span, float(theirs.scale), force_scale)
        taken.append("energy head")
    log.info("from %s: %s%s", who, ", ".join(taken), " (backbone frozen)" if init.freeze else "")


def _load(part: torch.nn.Module, source: torch.nn.Module, name: str) -> None:
    """Copy the weights that ``part`` has; a part without edge blocks leaves those of the source."""
    weights = source.state_dict()
    wanted = part.state_dict()
    wrong = [n for n, w in wanted.items() if n not in weights or weights[n].shape != w.shape]
    if wrong:
        raise ConfigError(f"the {name} of init does not fit: {wrong[0]} is missing or differs in size")
    part.load_state_dict({n: weights[n] for n in wanted})


def _check_energies(
    theirs: EnergyTarget, mine: EnergyTarget, config: TrainConfig, data: TrainingData
) -> None:
    """Refuse to go on with an energy head whose element energies are not those of the new energies."""
    per_element = theirs.per_element.numpy()
    rest = []
    for label in data.energies:
        try:
            theirs.check(label.molecule)
        except DomainError as error:
            raise ConfigError(f"init: {error}; or start a new head with init.new_head: true") from error
        rest.append((label.energy - per_element[label.molecule.numbers].sum()) / label.molecule.n_atoms**0.5)
    off = float(np.sqrt(np.mean(np.square(rest))))
    allowed = LARGEST_MISMATCH * max(float(theirs.scale), float(mine.scale))
    if off > allowed:
        raise ConfigError(
            f"the energies of {config.data.store} are off the element energies of {config.init.model} by "
            f"{off:.3g} Eh per root of the atoms, where {float(theirs.scale):.3g} is its own spread: "
            "they are energies of another level of theory or zero; use data of that level, or "
            "init.new_head: true"
        )
