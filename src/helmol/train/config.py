"""What a training run can be told."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from helmol.config import Config, parse
from helmol.errors import ConfigError
from helmol.model import (
    MODEL_PRESETS,
    LossKind,
    LossWeights,
    ModelConfig,
    Precision,
    describe_model,
    find_model,
)
from helmol.model.losses import OrbitalLoss
from helmol.target import TargetName

ENDS = ("max_steps", "max_minutes", "max_cpu_minutes")
"""Keys that end a run."""
TASK_SETS = ("heads", "hamiltonian", "energy")
"""Keys of a network that the task sets; the last two are those of helmol 0.1."""

Count = Annotated[int, Field(le=1_000_000_000)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(Config):
    """Set a training run; one YAML file per run.

    ``max_steps``, ``max_minutes`` and ``max_cpu_minutes`` may be given together: progress through the
    schedule is then the largest of the shares, and the run ends when one is used up. Without any, 10,000
    steps.
    """

    data: Path
    """Store to train on."""
    train: str | Count = "train"
    """Training molecules: name of a split of the store, or how many to draw."""
    val: str | Count = "val"
    """Validation molecules: name of a split of the store, or how many to draw. Numbers are drawn from
    the store's split ``train`` if it has one, else from all molecules that stand in no split."""
    split_seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the draw."""
    task: Literal["hamiltonian", "energy", "both"] = "hamiltonian"
    """What is learnt: Fock matrices, energies (and forces), or both with one backbone."""
    init: Path | None = None
    """Run or model folder whose weights to start from. The network is then that model's, whatever
    ``preset`` says; its heads are kept where the task needs them."""
    new_head: bool = False
    """Start with an untrained energy head although ``init`` has one."""
    freeze: bool = False
    """Leave the backbone of ``init`` as it is and train the heads alone."""
    backbone_lr_factor: float = Field(1.0, gt=0, le=1000)
    """Learning rates of the backbone in units of the others; below 1 to fine-tune ``init`` gently."""
    head_warmup_steps: int = Field(0, ge=0, le=1_000_000_000)
    """Steps at the start in which only the heads are trained."""
    readout: Literal["linear", "convolution", "elements"] = "convolution"
    """Energy head: ``linear`` map of each atom's scalar features; ``convolution`` and two hidden layers; or
    ``elements``, a linear map of scalars and lengths after every layer with weights for each element, which
    starts from the least-squares fit to the training energies (for few labels and a good ``init``)."""
    forces: Literal["conservative", "direct"] = "conservative"
    """Forces as the derivative of the energy, or read from the features (not for dynamics)."""
    energy_loss: Literal["mae", "mse"] = "mae"
    """Mean absolute or mean square errors of energies and forces, in units of their spread."""
    energy_weight: float = Field(1.0, ge=0, le=1e9)
    """Weight of the energies in the loss."""
    force_weight: float = Field(0.0, ge=0, le=1e9)
    """Weight of the forces in the loss; 0 trains on energies alone."""
    hamiltonian_weight: float = Field(1.0, ge=0, le=1e9)
    """Weight of the loss of Fock matrices in task ``both``."""
    target: Literal["auto"] | TargetName = "auto"
    """What the network learns: the Fock matrix, or its difference from a cheap reference. ``auto``: that of
    ``init``, else ``fock-minus-minao-step`` where all molecules have this reference, else
    ``fock-minus-minao``."""
    linear: Literal["auto", "none", "small", "large"] = "auto"
    """Part of the target that is fitted in closed form before training, to the surroundings of each atom and
    pair; the network learns the rest. ``large`` has more functions than ``small``. ``auto`` tries ``small``
    on a sample and takes ``large`` if it leaves less than 1 % of molecules that it was not fitted to, else
    none (nor with more than three elements): there the network alone is better."""
    centring: bool = True
    """Whether the network learns what the scalars of an atom's blocks differ by from their mean over the
    element. Switched off only to see what it is worth, as ``scaling``."""
    scaling: bool = True
    """Whether every irrep of every element and pair has a scale of its own; else one for all."""
    preset: str = "small"
    """Size of the network: nano, small, medium or large."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Keys of the network's configuration that differ from the preset."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of weights and activations; labels and references are float64 in any case."""
    precision: Precision = "fp32"
    """Precision of the matrix products of edge features: ``tf32`` and ``bf16`` round their factors,
    ``tf32x3`` and ``bf16x3`` make up for it with three products. Faster on CUDA only; elsewhere emulated.
    Forces are trained in ``fp32``."""
    loss: LossKind = "mae"
    """Loss over all matrix elements, in units of the training set's spread."""
    blocks: Literal["all", "diagonal"] = "all"
    """Blocks of the Fock matrix that count in the loss: all, or those of an atom with itself alone (an
    ablation of pre-training; errors are still of the whole matrix)."""
    loss_weights: LossWeights = "elements"
    """``elements``: all matrix elements count alike; ``scales``: blocks with small targets count more."""
    orbital_loss: OrbitalLoss | None = None
    """Loss in the true orbitals, added in the last stage: ``energies`` (of occupied orbitals and LUMO) or
    ``occupied`` (all elements between an occupied orbital and any other)."""
    orbital_weight: float = Field(1.0, gt=0, le=1e9)
    """Weight of the orbital loss beside the other, which counts 1."""
    orbital_stage: float = Field(0.2, gt=0, le=1)
    """Share of the schedule, at its end, in which the orbital loss is added."""
    max_steps: int | None = Field(None, ge=1, le=1_000_000_000)
    """Optimizer steps of the whole run."""
    max_minutes: float | None = Field(None, gt=0, le=1e7)
    """Wall time of the whole run in minutes, validation included, interruptions not."""
    max_cpu_minutes: float | None = Field(None, gt=0, le=1e9)
    """CPU time of the process in minutes, all threads together, with the closed-form fit, without validation:
    a budget that other work on the machine does not change."""
    edges_per_batch: int = Field(120, ge=1, le=100_000_000)
    """Directed atom pairs inside the cutoff, n(n − 1) for a small molecule, that a batch may hold; a larger
    molecule makes a batch of its own."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """``muon``: Muon for the matrices inside the network, AdamW for the rest. ``adamw``: AdamW for all."""
    lr: float = Field(4e-3, gt=0, le=10)
    """Peak learning rate of AdamW."""
    muon_lr: float = Field(0.02, gt=0, le=10)
    """Peak learning rate of Muon; its updates have the size that AdamW's have at this rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    """Decay rates of AdamW's averages."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Momentum of Muon."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """Decoupled weight decay of matrices (per unit learning rate); vectors have none."""
    warmup_steps: int = Field(100, ge=0, le=1_000_000_000)
    """Steps over which the learning rate rises linearly; then a cosine to zero."""
    clip_norm: float = Field(1.0, gt=0, le=1e9)
    """Largest norm of the gradient; a longer one is scaled down."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the running average of the weights, which is what is validated and saved. In
    step k it is at most k / (k + 10), so that early averages forget the start."""
    validate_every: int = Field(200, ge=1, le=1_000_000_000)
    """Steps between validations."""
    checkpoint_every: int = Field(200, ge=1, le=1_000_000_000)
    """Steps between checkpoints."""
    max_skipped: int = Field(10, ge=1, le=1_000_000)
    """Steps in a row with a non-finite loss or gradient after which the run gives up; each is skipped."""
    cache_mb: float = Field(2000.0, ge=0, le=1e8)
    """Memory for prepared training molecules in MB (10⁶ bytes); the rest is read again each time."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the weights and of the data order."""
    n_threads: int | None = Field(None, ge=1, le=4096)
    """CPU threads of torch; unset means torch's own choice."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; ``auto`` takes a CUDA device if there is one."""

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        if value not in MODEL_PRESETS:
            near = difflib.get_close_matches(value, MODEL_PRESETS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known presets: {', '.join(MODEL_PRESETS)}"
            raise ValueError(f"unknown preset; {hint}")
        return value

    @field_validator("train", "val")
    @classmethod
    def _at_least_one(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("a split needs at least one molecule")
        return value

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, data: Any) -> Any:
        if isinstance(data, dict) and all(data.get(end) is None for end in ENDS):
            return {**data, "max_steps": 10_000}
        return data

    @model_validator(mode="after")
    def _task_makes_sense(self) -> TrainConfig:
        if self.freeze and self.init is None:
            raise ValueError("freeze keeps the backbone of init, which is not given")
        if self.task != "hamiltonian" and not self.energy_weight and not self.force_weight:
            raise ValueError("energy_weight and force_weight are both 0: there is nothing to learn")
        if self.task != "hamiltonian" and self.forces == "direct" and not self.force_weight:
            raise ValueError("direct forces are learnt from forces only: force_weight must be above 0")
        return self

    @model_validator(mode="after")
    def _precision_fits(self) -> TrainConfig:
        if self.precision != "fp32" and self.dtype != "float32":
            raise ValueError(f"precision {self.precision} is of dtype float32: use fp32 with {self.dtype}")
        return self

    @model_validator(mode="after")
    def _mps_is_single(self) -> TrainConfig:
        if self.device == "mps":
            raise ValueError("device mps has no float64, which targets and positions need; use cpu")
        return self

    def network(self) -> ModelConfig:
        """Return the preset, or the network of ``init``, with the keys of ``model`` and the task's heads.

        Raises:
            ConfigError: unknown key or bad value, or one that is not that of ``init``.
            InputError: there is no model in ``init``.
        """
        start = MODEL_PRESETS[self.preset].model_dump()
        if self.init is not None:
            config, domain, _ = describe_model(find_model(self.init))
            if self.task != "energy" and "fock" not in config.heads:
                raise ConfigError(
                    f"init: {self.init} learnt energies alone and has no features of atom pairs, which task "
                    f"{self.task} needs: start from a run of task hamiltonian or both, or without init"
                )
            start = {**config.model_dump(), "lmax": config.lmax or max(2 * domain.basis.lmax, 1)}
        heads: dict[str, Any] = {} if self.task == "energy" else {"fock": {}}
        if self.task != "hamiltonian":
            heads["energy"] = {"readout": self.readout, "forces": self.forces}
        asked = {key: value for key, value in self.model.items() if key not in TASK_SETS}
        try:
            merged = parse(ModelConfig, {**start, **asked, "heads": heads}, source="model")
        except ConfigError as error:
            raise ConfigError(f"configuration of the network: {error}") from error
        if self.init is not None:
            for key, value in asked.items():
                if getattr(merged, key) != start[key]:
                    raise ConfigError(f"model.{key} is {value!r}, but {start[key]!r} in {self.init}")
        return merged

    def resolved(self) -> dict[str, Any]:
        """Return every key with its value, the network's included; reading it back gives the same run."""
        data = self.model_dump(mode="json")
        return {**data, "model": self.network().model_dump(mode="json")}
