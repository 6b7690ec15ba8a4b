"""Everything that moves during training, to the disk and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helmol.damage import DAMAGE, one_line, understood
from helmol.digests import write_description
from helmol.errors import TrainingError
from helmol.model import Model, load_model, save_model
from helmol.model.artifact import read_model_description
from helmol.model.updates import NOT_WEIGHTS, config_v2, name_v1, pieces_v1, weights_v2
from helmol.train.average import averaged_copy
from helmol.train.checkpoint import read_state, replacing_folder, write_state
from helmol.train.config import TrainConfig
from helmol.train.optimizers import Optimizers
from helmol.train.ranks import ALONE, Ranks
from helmol.train.updates import config_v2 as settings_v2

SCHEMA = 2
"""Of a training state. 1: helmol 0.1."""


@dataclass
class Counters:
    """Count what has happened; the only mutable record of a run besides its tensors.

    Attributes:
        step: finished steps, skipped ones included.
        drawn: molecules taken from the stream.
        elapsed: seconds of training over all starts.
        cpu: CPU seconds of training over all starts, with the closed-form fit, without validation.
        finished: whether the schedule has ended.
        skipped: steps skipped for a non-finite loss or gradient.
        skipped_in_a_row: the latest of these without a good step between.
        loss_sum, norm_sum, n_sum: losses and gradient norms since the last row of metrics.
        lr: AdamW's learning rate in the last step.
        start: error table before the first step, where one was made.
        validation: error table of the latest validation; empty before the first.
        best: the same of the best validation by the task's criterion, with ``step``.
    """

    step: int = 0
    drawn: int = 0
    elapsed: float = 0.0
    cpu: float = 0.0
    finished: bool = False
    skipped: int = 0
    skipped_in_a_row: int = 0
    loss_sum: float = 0.0
    norm_sum: float = 0.0
    n_sum: int = 0
    lr: float = 0.0
    start: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Counters:
        """Return the counters in what :func:`read_state` returned; those that are unknown here are left out.

        Raises:
            TypeError: a counter is of another kind: the record was edited by hand.
        """
        known = {f.name: f.default for f in fields(cls)}
        found = {key: value for key, value in dict(record["counters"]).items() if key in known}
        for key, value in found.items():
            kinds = {bool: (bool,), int: (int,), float: (int, float)}.get(type(known[key]), (dict,))
            if type(value) not in kinds:
                raise TypeError(f"{key} is {value!r}")
        return cls(**found)


@dataclass
class TrainingState:
    """Hold the model, its average, the optimizers and the counters."""

    model: Model
    average: Model
    optimizers: Optimizers
    counters: Counters

    @classmethod
    def begin(cls, model: Model, config: TrainConfig, ranks: Ranks = ALONE) -> TrainingState:
        """Start from a model whose statistics are fitted."""
        return cls(model, averaged_copy(model), Optimizers(model, config.optimizer, ranks), Counters())

    def save(self, folder: Path, fingerprint: Mapping[str, Any], *, n_earlier: int = 0) -> None:
        """Replace the checkpoint ``folder`` as a whole.

        Args:
            folder: ``checkpoints/last``.
            fingerprint: what a resumed run must agree with (configuration, data, split).
            n_earlier: how many that it was before are kept.

        Raises:
            TrainingError: it cannot be written; the one before is intact.
        """
        tensors = {f"network/{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"optimizer/{name}": value for name, value in self.optimizers.state().items()}
        tensors["random/cpu"] = torch.get_rng_state()
        if self.model.device.type == "cuda":
            tensors["random/cuda"] = torch.cuda.get_rng_state(self.model.device)
        with replacing_folder(folder, n_earlier=n_earlier) as new:
            save_model(new, self.average, extra={"step": self.counters.step})
            record = {"counters": asdict(self.counters), "fingerprint": fingerprint}
            write_state(new, tensors, {"schema": SCHEMA, **record})

    @classmethod
    def load(
        cls, folder: Path, config: TrainConfig, *, device: torch.device, ranks: Ranks = ALONE
    ) -> TrainingState:
        """Continue from :meth:`save`, bit for bit.

        Raises:
            TrainingError: files missing, damaged, or of another model.
        """
        tensors, record = read_state(folder)
        schema = _schema(record, folder)
        average = load_model(folder, device).requires_grad_(False).set_precision(config.run.precision)
        model = load_model(folder, device).train().set_precision(config.run.precision)
        weights, moments = _under("network/", tensors), _under("optimizer/", tensors)
        optimizers = Optimizers(model, config.optimizer, ranks)
        try:
            if schema == 1:
                known = {n: t for n, t in average.state_dict().items() if n.startswith(NOT_WEIGHTS)}
                weights = {**weights_v2(model, weights), **known}
                moments = _moments_v2(model, moments)
            model.load_state_dict(weights)
            counters = Counters.of(record)
            optimizers.load(moments)
            torch.set_rng_state(tensors["random/cpu"])
        except DAMAGE as error:
            raise TrainingError(
                f"the training state in {folder} does not fit its model: {one_line(error)}"
            ) from error
        if device.type == "cuda" and "random/cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random/cuda"], device)
        return cls(model, average, optimizers, counters)


def check_whole(folder: Path) -> None:
    """Read a checkpoint and forget it.

    Raises:
        HelmolError: something is missing or has changed since it was written.
    """
    read_record(folder)
    load_model(folder)


def read_record(folder: Path) -> tuple[dict[str, Any], Counters]:
    """Return fingerprint and counters of a checkpoint, in the form of today.

    Raises:
        TrainingError: files missing, damaged, or of a newer helmol.
    """
    record = read_state(folder)[1]
    with understood(str(folder / "state.json"), TrainingError):
        fingerprint, counters = dict(record["fingerprint"]), Counters.of(record)
        settings = dict(fingerprint["config"])
        if _schema(record, folder) == 1:
            settings["model"] = config_v2(settings["model"])
        fingerprint["config"] = settings_v2(settings)
    return fingerprint, counters


def _schema(record: Mapping[str, Any], folder: Path) -> int:
    """Return the schema of a training state; raise TrainingError if it is of a newer helmol."""
    schema = int(record.get("schema", 1))
    if schema not in (1, SCHEMA):
        raise TrainingError(
            f"the training state in {folder} has schema {schema}, this helmol reads 1 to {SCHEMA}: "
            "update helmol to go on with it"
        )
    return schema


def replace_model(checkpoints: Path, name: str, model: Model, table: Mapping[str, Any]) -> None:
    """Put a changed model and its validation into the place of a checkpoint's, all else unchanged.

    Args:
        checkpoints: folder of the run's checkpoints.
        name: ``best`` or ``last``.
        model: the new one.
        table: its validation errors.
    """
    folder = checkpoints / name
    step = read_model_description(folder).get("step")
    table = {"step": step, **table}
    with replacing_folder(folder) as new:
        save_model(new, model, extra={"step": step})
        if name == "best":
            write_description(new / "validation.json", table)
        else:
            tensors, record = read_state(folder)
            record["counters"]["validation"] = table
            write_state(new, tensors, record)


def _moments_v2(model: Model, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state of the optimizers of schema 1 for the parameters of today.

    Of parameters that are one now the most steps count; a piece that never had a gradient has moments of
    zero.
    """
    by_quantity: dict[str, dict[str, Tensor]] = {}
    for key, value in old.items():
        kind, quantity, name = key.split("/", 2)
        by_quantity.setdefault(f"{kind}/{quantity}", {})[name] = value
    plan, found = pieces_v1(model), {}
    parameters = dict(model.named_parameters())
    for quantity, values in by_quantity.items():
        for name, parameter in parameters.items():
            if name not in plan:
                if name_v1(name) in values:
                    found[f"{quantity}/{name}"] = values[name_v1(name)]
                continue
            there = [(piece, values[piece.name]) for piece in plan[name] if piece.name in values]
            if not there:
                continue
            if quantity.endswith("/step"):
                found[f"{quantity}/{name}"] = torch.stack([value for _, value in there]).max()
                continue
            joined = torch.zeros_like(parameter)
            for piece, value in there:
                joined[piece.rows] = value.T if piece.transposed else value
            found[f"{quantity}/{name}"] = joined
    return found


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name starts with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
