"""Size and switches of the whole network."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from helmol.config import parse
from helmol.errors import ConfigError
from helmol.model.backbone.config import BackboneConfig
from helmol.model.heads import HEADS
from helmol.target.matrix import MatrixName


class ModelConfig(BackboneConfig):
    """Set the HELM network; the defaults are the recommended model."""

    inputs: tuple[MatrixName, ...] = ()
    """Matrices that the network reads besides the geometry; their blocks become node and edge features. For
    models of Fock matrices alone. ``reference``: the H₀ of its delta target. ``density``: the density of the
    orbitals of H₀, with occupations smeared by 0.005 Eh. ``change``: what H₀ differs by from the reference
    ``minao``, for ``fock-minus-minao-step``. ``overlap``: S."""
    heads: dict[str, dict[str, Any]] = Field({"fock": {}}, validate_default=True)
    """What is read from the features, by name, each with its settings: ``fock`` (matrix blocks), ``energy``
    (energies and forces). A run's task sets it."""

    @field_validator("heads")
    @classmethod
    def _known_heads(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if not value:
            raise ValueError("a model needs a head")
        if unknown := [name for name in value if name not in HEADS]:
            raise ValueError(f"unknown head {unknown[0]!r}; known: {', '.join(HEADS)}")
        try:
            return {
                name: parse(HEADS[name].Settings, value[name], source=f"head {name}").model_dump(mode="json")
                for name in HEADS
                if name in value
            }
        except ConfigError as error:
            raise ValueError(str(error)) from error


MODEL_PRESETS: dict[str, ModelConfig] = {
    "nano": ModelConfig(channels=16, n_layers=2, radial_channels=32, element_channels=16),
    "small": ModelConfig(channels=32),
    "medium": ModelConfig(channels=64),
    "large": ModelConfig(channels=128, radial_channels=128),
    "helm-paper": ModelConfig(
        channels=128,
        radial_channels=128,
        radial="edge",
        edge_norm="post",
        gate="tanh",
        envelope=False,
        residual_scale=1.0,
    ),
}
