"""Size and switches of the backbone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from helmol.config import Config


class BackboneConfig(Config):
    """Set the HELM backbone; the defaults are the recommended ones."""

    channels: int = Field(64, ge=1, le=4096)
    """Channels C of every node and edge feature."""
    unnatural: int = Field(0, ge=0, le=4095)
    """How many of the channels of every degree l > 0 are of unnatural parity −(−1)^l, the others of natural
    parity (−1)^l. With some the network knows mirrors: exact O(3), where enantiomers have equal energies; a
    quarter or a fifth of the channels is best. 0: parity is not told apart, SO(3) (HELM paper)."""
    lmax: int | None = Field(None, ge=1, le=12)
    """Largest degree L; unset means twice the largest shell of the basis (4 for def2-SVP)."""
    n_layers: int = Field(3, ge=1, le=64)
    """Layers, each a node block followed by an edge block."""
    cutoff: float = Field(28.0, gt=0, le=1000)
    """Distance in bohr at which messages and pair outputs have faded to zero (28 bohr = 14.8 Å)."""
    message_cutoff: float | None = Field(None, gt=0, le=1000)
    """Shorter distance in bohr for messages between nodes; unset means the cutoff of the pairs."""
    mmax: int | None = Field(None, ge=0, le=12)
    """Largest order |m| in the convolutions; unset means all (no truncation)."""
    n_radial: int = Field(128, ge=4, le=4096)
    """Gaussians of the radial basis, spread evenly from 0 to the cutoff, as wide as their spacing."""
    element_channels: int = Field(32, ge=1, le=4096)
    """Length of the element embeddings in the edge scalars."""
    radial_channels: int = Field(64, ge=1, le=4096)
    """Hidden width of the radial networks."""
    radial: Literal["pair", "edge"] = "pair"
    """What has radial weights of its own in a convolution: each end of a pair, the same in both directions,
    which halves the arithmetic of the first map; or (HELM paper) each directed edge."""
    message_scale: float = Field(5.0, gt=0, le=1e6)
    """The edge-degree embedding, a sum over neighbours, is divided by this."""
    edge_norm: Literal["pre", "post"] = "pre"
    """Normalise the nodes before the edge convolution, or (HELM paper) its output after it."""
    gate: Literal["sigmoid", "tanh"] = "sigmoid"
    """Squashing of the gates between the convolutions (paper's code: tanh)."""
    envelope: bool = True
    """Fade messages and pair outputs smoothly at the cutoff (paper: no)."""
    residual_scale: float = Field(0.1, gt=0, le=1000)
    """Size of what blocks add at the start: factor on the initial weights of their last maps (paper: 1)."""

    @model_validator(mode="after")
    def _some_natural(self) -> BackboneConfig:
        if self.unnatural >= self.channels:
            raise ValueError(
                f"unnatural = {self.unnatural} leaves none of {self.channels} channels natural: take fewer"
            )
        return self
