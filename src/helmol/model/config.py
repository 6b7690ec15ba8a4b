"""Size and switches of the network."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from helmol.config import Config
from helmol.model.given import MatrixName


class EnergyConfig(Config):
    """Set the energy head."""

    readout: Literal["linear", "convolution", "elements"] = "convolution"
    """``linear``: energy of an atom = a linear map of its scalar features. ``convolution``: one more
    convolution over its neighbours, then two hidden layers. ``elements``: a linear map, of each element's
    own, of the scalar features and the lengths of the others; fitted in closed form before training."""
    forces: Literal["conservative", "direct"] = "conservative"
    """``conservative``: minus the derivative of the energy. ``direct``: read from the l = 1 features;
    cheaper, but no energy belongs to them, so not for dynamics."""


class ModelConfig(Config):
    """Set the HELM network; the defaults are the recommended model."""

    channels: int = Field(64, ge=1, le=4096)
    """Channels C of every node and edge feature."""
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
    inputs: tuple[MatrixName, ...] = ()
    """Matrices that the network reads besides the geometry; their blocks become node and edge features. For
    models of Fock matrices alone. ``reference``: the H₀ of its delta target. ``density``: the density of the
    orbitals of H₀, with occupations smeared by 0.005 Eh. ``change``: what H₀ differs by from the reference
    ``minao``, for ``fock-minus-minao-step``. ``overlap``: S."""
    hamiltonian: bool = True
    """Whether there is a Hamiltonian head (and the edge blocks that serve only it)."""
    energy: EnergyConfig | None = None
    """The energy head; unset means none."""


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
