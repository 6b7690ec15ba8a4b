"""Configurations of before, as configurations of today.

Schema 1 (helmol 0.1) had fifty keys side by side; schema 2 has the sections of
:class:`helmol.train.TrainConfig`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from helmol.config import Config, merged
from helmol.errors import ConfigError
from helmol.model import ModelConfig

SCHEMA = 2
"""Of a training configuration, the key ``schema`` in the file of a run; what has no such key may be of 1."""

MAIN = {
    "data": "data.store",
    "init": "init.model",
    "model": "model.preset",
    "target": "target.matrix",
    "loss": "loss.fock.kind",
    "loss.fock": "loss.fock.kind",
    "optimizer": "optimizer.kind",
}
"""What is set where a section is given a value, in both schemas."""

SECTIONS = ("data", "task", "init", "model", "target", "loss", "optimizer", "schedule", "run")

FLAT = {
    "train": "data.train",
    "val": "data.val",
    "split_seed": "data.split_seed",
    "cache_mb": "data.cache_mb",
    "new_head": "init.new_head",
    "freeze": "init.freeze",
    "backbone_lr_factor": "init.backbone_lr_factor",
    "head_warmup_steps": "init.head_warmup_steps",
    "preset": "model.preset",
    "readout": "model.heads.energy.readout",
    "forces": "model.heads.energy.forces",
    "linear": "target.linear",
    "centring": "target.centring",
    "scaling": "target.scaling",
    "blocks": "loss.fock.blocks",
    "loss_weights": "loss.fock.weights",
    "orbital_loss": "loss.fock.orbital",
    "orbital_weight": "loss.fock.orbital_weight",
    "orbital_stage": "loss.fock.orbital_stage",
    "energy_loss": "loss.energy",
    "energy_weight": "loss.energy_weight",
    "force_weight": "loss.force_weight",
    "hamiltonian_weight": "loss.fock_weight",
    "lr": "optimizer.lr",
    "muon_lr": "optimizer.muon_lr",
    "betas": "optimizer.betas",
    "momentum": "optimizer.momentum",
    "weight_decay": "optimizer.weight_decay",
    "clip_norm": "optimizer.clip_norm",
    "max_steps": "schedule.max_steps",
    "max_minutes": "schedule.max_minutes",
    "max_cpu_minutes": "schedule.max_cpu_minutes",
    "edges_per_batch": "schedule.edges_per_batch",
    "warmup_steps": "schedule.warmup_steps",
    "ema_decay": "schedule.ema_decay",
    "seed": "run.seed",
    "device": "run.device",
    "n_threads": "run.n_threads",
    "dtype": "run.dtype",
    "precision": "run.precision",
    "validate_every": "run.validate_every",
    "checkpoint_every": "run.checkpoint_every",
    "max_skipped": "run.max_skipped",
}
"""Where the keys of schema 1 stand now; those of :data:`MAIN`, ``task`` and ``model`` it had as well."""

MODEL_V1 = ("hamiltonian", "energy")
"""Keys that schema 1 wrote into ``model`` itself: what the task set."""


def config_v2(data: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a configuration, or a part of one, in sections without short forms.

    Args:
        data: keys of schema 1; or sections, in which a value may stand for the main key.

    Raises:
        ConfigError: keys of both schemas, an unknown key (the message names the nearest), or a newer schema.
    """
    schema = data.get("schema", 1)
    if schema not in (1, SCHEMA):
        raise ConfigError(f"schema {schema!r} of the configuration: this helmol reads 1 to {SCHEMA}")
    data = {key: value for key, value in data.items() if key != "schema"}
    flat = {key: value for key, value in data.items() if key in FLAT}
    for key in data:
        if key not in FLAT and key not in SECTIONS:
            raise ConfigError(f"unknown key {str(key)[:60]!r}; {_nearest(str(key)[:60], flat=bool(flat))}")
    inside = [key for key in data if _is_sectioned(key, data[key])]
    if flat and (inside or schema == SCHEMA):
        beside = f"beside the section {inside[0]!r}" if inside else f"in a file of schema {SCHEMA}"
        key = next(iter(flat))
        raise ConfigError(f"{key!r} stands {beside}: in sections it is {FLAT[key]!r}")
    result: dict[str, Any] = {}
    for key, value in data.items():
        if key in MAIN and value is not None and not _is_section(value):
            _put(result, MAIN[key], value)
        elif key == "init" and value is None:
            _put(result, MAIN[key], None)
        elif key not in FLAT:
            result[key] = {} if value is None else dict(value) if isinstance(value, Mapping) else value
    loss = result.get("loss")
    if isinstance(loss, dict) and "fock" in loss and not _is_section(loss["fock"]):
        loss["fock"] = {"kind": loss["fock"]}
    return _with_flat(result, flat) if flat else result


def combined(*parts: Mapping[Any, Any]) -> dict[str, Any]:
    """Return one configuration from parts in either schema; later ones go before, key by key.

    Raises:
        ConfigError: as :func:`config_v2`.
    """
    result: dict[str, Any] = {}
    for part in parts:
        result = merged(result, config_v2(part))
    return result


def setting_v2(setting: str, *, inside: str = "") -> str:
    """Return a ``key=value`` of the command line with the key where it stands now.

    Args:
        setting: as it was given.
        inside: how the names of training keys begin, ``base.`` in a sweep.
    """
    key, equals, value = setting.partition("=")
    if not key.startswith(inside) or value.lstrip().startswith("{"):
        return setting
    name = key.removeprefix(inside)
    return f"{inside}{FLAT.get(name, MAIN.get(name, name))}{equals}{value}"


def _with_flat(result: dict[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Put keys of schema 1 into the sections they have now."""
    network = result.get("model")
    if isinstance(network, dict):
        result["model"] = {key: value for key, value in network.items() if key not in MODEL_V1}
        if "heads" in network:  # a network that was resolved: readout and forces are there once more
            flat = {key: value for key, value in flat.items() if key not in ("readout", "forces")}
    for key, value in flat.items():
        _put(result, FLAT[key], value)
    return result


def _put(result: dict[str, Any], path: str, value: Any) -> None:
    """Set ``section.key`` in nested dictionaries."""
    *sections, leaf = path.split(".")
    for section in sections:
        result = result.setdefault(section, {})
    result[leaf] = value


def _is_section(value: Any) -> bool:
    """Return whether a value has keys of its own."""
    return isinstance(value, (Mapping, Config))


def _is_sectioned(key: str, value: Any) -> bool:
    """Return whether a key of the file has a form that schema 1 did not have."""
    if key in ("schedule", "run"):
        return True
    if key == "model":
        return not isinstance(value, Mapping) or "preset" in value
    return key in SECTIONS and _is_section(value)


def _nearest(key: str, *, flat: bool) -> str:
    """Return which known key an unknown one may mean."""
    known = {name: name if flat else path for name, path in FLAT.items()}
    known |= {path.rpartition(".")[2]: path for path in (*FLAT.values(), *MAIN.values()) if not flat}
    known |= {name: f"model.{name}" for name in ModelConfig.model_fields}
    known |= {name: name for name in (("task", *MAIN) if flat else SECTIONS)}
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {known[near[0]]!r}?" if near else f"known keys: {', '.join(SECTIONS)}"
