"""From the file of a configuration to what it means: the network, and the model that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helmol.config import parse, read_yaml, with_overrides
from helmol.errors import ConfigError
from helmol.model import MODEL_PRESETS, ModelConfig, describe_model, find_model
from helmol.target import Domain
from helmol.train.config import TrainConfig
from helmol.train.updates import config_v2, setting_v2


@dataclass(frozen=True)
class Source:
    """Describe the model that a run starts from.

    Attributes:
        path: as the configuration names it.
        folder: the model folder there.
        network: its configuration.
        domain: what it has learnt.
    """

    path: Path
    folder: Path
    network: ModelConfig
    domain: Domain


@dataclass(frozen=True)
class Plan:
    """Hold a configuration with what had to be looked up for it.

    Attributes:
        config: the run's configuration.
        network: configuration of the network.
        source: the model that the run starts from, if any.
    """

    config: TrainConfig
    network: ModelConfig
    source: Source | None

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, the network's included; reading it back gives the same run."""
        data = self.config.model_dump(mode="json")
        network = self.network.model_dump(mode="json")
        return {**data, "model": {"preset": self.config.model.preset, **network}}


def read_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the configuration in a YAML file with ``key.sub=value`` settings applied.

    Raises:
        InputError: there is no such file, or no YAML in it.
        ConfigError: unknown key or bad value.
    """
    try:
        data = config_v2(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    settings = with_overrides(data, [setting_v2(setting) for setting in overrides])
    return parse(TrainConfig, settings, source=str(path))


def make_plan(config: TrainConfig) -> Plan:
    """Look up what a configuration means; the only file it may need is the description of ``init``.

    Raises:
        ConfigError: a key of the network that is not that of ``init``, or heads that do not fit it.
        InputError: there is no model in ``init``.
    """
    start, source = MODEL_PRESETS[config.model.preset].model_dump(), None
    if config.init.model is not None:
        source = _source(config.init.model)
        if "fock" in config.heads and "fock" not in source.network.heads:
            raise ConfigError(
                f"init: {source.path} learnt energies alone and has no features of atom pairs, which task "
                f"{config.task} needs: start from a run of task hamiltonian or both, or without init"
            )
        lmax = source.network.lmax or max(2 * source.domain.basis.lmax, 1)
        start = {**source.network.model_dump(), "lmax": lmax}
    asked = config.model.asked
    network = parse(ModelConfig, {**start, **asked, "heads": config.heads}, source="model")
    if source is not None:
        for key in asked:
            if getattr(network, key) != start[key]:
                raise ConfigError(f"model.{key} is {asked[key]!r}, but {start[key]!r} in {source.path}")
    return Plan(config, network, source)


def _source(path: Path) -> Source:
    """Read what describes the model in a run or model folder."""
    folder = find_model(path)
    network, domain, _ = describe_model(folder)
    return Source(path, folder, network, domain)
