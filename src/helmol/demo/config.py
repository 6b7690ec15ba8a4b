"""How large the demo is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from helmol.config import Config


class DemoConfig(Config):
    """Set the demo; the defaults fit into ten minutes on two cores."""

    molecule: Literal["water"] = "water"
    """What to learn."""
    temperature_k: float = Field(500.0, gt=0, le=5000)
    """Temperature of the molecular dynamics, K."""
    n_train: int = Field(300, ge=4, le=100_000)
    """Training molecules, from the first part of the trajectory."""
    n_val: int = Field(20, ge=1, le=100_000)
    """Validation molecules, drawn from the same part."""
    n_gap: int = Field(10, ge=1, le=100_000)
    """Frames left out between training and test, so that the test is a separate segment."""
    n_test: int = Field(60, ge=1, le=100_000)
    """Held-out molecules, from a later part of the trajectory."""
    xc: str = "pbe"
    """Functional of the labels."""
    basis: str = "def2-svp"
    """Basis of the labels."""
    target: Literal["fock", "fock-minus-minao-lite", "fock-minus-minao"] = "fock-minus-minao-lite"
    """What the network learns; the default costs nothing beside a label."""
    preset: str = "small"
    """Size of the network."""
    minutes: float = Field(9.0, gt=0, le=10_000)
    """Wall time of the whole demo that training may not exceed, less a reserve for what follows it."""
    train_minutes: float = Field(4.0, gt=0, le=10_000)
    """Longest training, minutes."""
    reserve_minutes: float = Field(0.75, ge=0, le=10_000)
    """Kept free for evaluation, prediction, SCF and the report."""
    workers: int = Field(2, ge=1, le=1024)
    """Processes for the DFT labels, threads of the training."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of trajectory, split, weights and data order."""

    @property
    def n_labels(self) -> int:
        """Number of DFT calculations for the data set."""
        return self.n_train + self.n_val + self.n_test

    @property
    def n_frames(self) -> int:
        """Frames of the trajectory: data, gap, and one more gap with the unseen geometry at its end."""
        return self.n_labels + 2 * self.n_gap
