"""What a training run can be told, in sections; nothing here reads a disk."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from helmol.config import Config, PathName, parse
from helmol.errors import ConfigError
from helmol.model import MODEL_PRESETS, LossKind, LossWeights, ModelConfig, Precision
from helmol.model.heads import HEADS
from helmol.model.losses import OrbitalLoss
from helmol.target import TargetName
from helmol.train.updates import config_v2

ENDS = ("max_steps", "max_minutes", "max_cpu_minutes")
"""Keys that end a run."""

Count = Annotated[int, Field(le=1_000_000_000)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class DataConfig(Config):
    """Say which molecules are for training and which for validation. Short: ``data: water.h5``."""

    store: PathName
    """Store to train on."""
    train: str | Count = "train"
    """Training molecules: name of a split of the store, or how many to draw."""
    val: str | Count = "val"
    """Validation molecules: name of a split of the store, or how many to draw. Numbers are drawn from
    the store's split ``train`` if it has one, else from all molecules that stand in no split."""
    split_seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the draw."""
    cache_mb: float = Field(2000.0, ge=0, le=1e8)
    """Memory for prepared training molecules in MB (10⁶ bytes), of each process; the rest is read again each
    time."""

    @field_validator("train", "val")
    @classmethod
    def _at_least_one(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("a split needs at least one molecule")
        return value


class InitConfig(Config):
    """Start from the weights of another model. Short: ``init: runs/ethanol``."""

    model: PathName | None = None
    """Run or model folder whose weights to start from. The network is then that model's, whatever the
    preset says; its heads are kept where the task needs them."""
    new_head: bool = False
    """Start with an untrained energy head although the model has one."""
    freeze: bool = False
    """Leave the backbone as it is and train the heads alone."""
    backbone_lr_factor: float = Field(1.0, gt=0, le=1000)
    """Learning rates of the backbone in units of the others; below 1 to fine-tune gently."""
    head_warmup_steps: int = Field(0, ge=0, le=1_000_000_000)
    """Steps at the start in which only the heads are trained."""

    @model_validator(mode="after")
    def _freeze_makes_sense(self) -> InitConfig:
        if self.freeze and self.model is None:
            raise ValueError("freeze keeps the backbone of init.model, which is not given")
        return self


class ModelChoice(Config):
    """Choose the network: a preset, and what differs from it. Short: ``model: nano``.

    All keys of the network, see below, may stand here. Those that do not are the preset's; with ``init`` they
    are that model's, and one that stands here must be the same there.
    """

    model_config = ConfigDict(extra="allow")

    preset: str = "small"
    """Size of the network: nano, small, medium, large or helm-paper."""
    heads: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Settings of heads by name, ``{energy: {readout: linear}}``. Which heads there are is up to the task;
    settings of others do nothing."""

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, value: str) -> str:
        if value not in MODEL_PRESETS:
            near = difflib.get_close_matches(value, MODEL_PRESETS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known presets: {', '.join(MODEL_PRESETS)}"
            raise ValueError(f"unknown preset; {hint}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        asked = {key: value for key, value in data.items() if key not in ("preset", "heads")}
        heads = {"heads": data["heads"]} if data.get("heads") else {}
        try:
            known = parse(ModelConfig, {**asked, **heads}, source="network")
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("network: ")) from error
        return {**data, **{key: getattr(known, key) for key in (*asked, *heads)}}

    @property
    def asked(self) -> dict[str, Any]:
        """Keys of the network that were given."""
        return dict(self.model_extra or {})


class TargetConfig(Config):
    """Say what is learnt of Fock matrices. Short: ``target: fock-minus-minao-lite``."""

    matrix: Literal["auto"] | TargetName = "auto"
    """The Fock matrix, or its difference from a cheap reference. ``auto``: that of ``init``, else the
    first of ``minao-hartree``, ``minao-step``, ``minao-lite``, ``minao`` that all molecules have."""
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


class FockLossConfig(Config):
    """Set the loss of Fock matrices. Short: ``fock: mae``."""

    kind: LossKind = "mae"
    """Loss over all matrix elements, in units of the training set's spread."""
    blocks: Literal["all", "diagonal"] = "all"
    """Blocks of the Fock matrix that count: all, or those of an atom with itself alone (an ablation of
    pre-training; errors are still of the whole matrix)."""
    weights: LossWeights = "elements"
    """``elements``: all matrix elements count alike; ``scales``: blocks with small targets count more."""
    orbital: OrbitalLoss | None = None
    """Loss in the true orbitals, added in the last stage: ``energies`` (of occupied orbitals and LUMO) or
    ``occupied`` (all elements between an occupied orbital and any other)."""
    orbital_weight: float = Field(1.0, gt=0, le=1e9)
    """Weight of the orbital loss beside the other, which counts 1."""
    orbital_stage: float = Field(0.2, gt=0, le=1)
    """Share of the schedule, at its end, in which the orbital loss is added."""


class LossConfig(Config):
    """Set what is minimised: the sum of the task's losses, each times its weight. Short: ``loss: mae``."""

    fock: FockLossConfig = FockLossConfig()
    """Loss of Fock matrices."""
    energy: Literal["mae", "mse"] = "mae"
    """Mean absolute or mean square errors of energies and forces, in units of their spread."""
    fock_weight: float = Field(1.0, ge=0, le=1e9)
    """Weight of the loss of Fock matrices in task ``both``."""
    energy_weight: float = Field(1.0, ge=0, le=1e9)
    """Weight of the energies."""
    force_weight: float = Field(0.0, ge=0, le=1e9)
    """Weight of the forces; 0 trains on energies alone."""


class OptimizerConfig(Config):
    """Set the optimizer. Short: ``optimizer: adamw``."""

    kind: Literal["muon", "adamw"] = "muon"
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
    clip_norm: float = Field(1.0, gt=0, le=1e9)
    """Largest norm of the gradient; a longer one is scaled down."""


class ScheduleConfig(Config):
    """Set how long the run is and how it goes through the data.

    ``max_steps``, ``max_minutes`` and ``max_cpu_minutes`` may be given together: progress through the
    schedule is then the largest of the shares, and the run ends when one is used up. Without any, 10,000
    steps.
    """

    max_steps: int | None = Field(None, ge=1, le=1_000_000_000)
    """Optimizer steps of the whole run."""
    max_minutes: float | None = Field(None, gt=0, le=1e7)
    """Wall time of the whole run in minutes, validation included, interruptions not."""
    max_cpu_minutes: float | None = Field(None, gt=0, le=1e9)
    """CPU time in minutes, all threads and processes together, with the closed-form fit, without validation:
    a budget that other work on the machine does not change."""
    edges_per_batch: int = Field(120, ge=1, le=100_000_000)
    """Directed atom pairs inside the cutoff, n(n − 1) for a small molecule, that a batch may hold, of all
    processes together; a larger molecule makes a batch of its own."""
    warmup_steps: int = Field(100, ge=0, le=1_000_000_000)
    """Steps over which the learning rate rises linearly; then a cosine to zero."""
    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay per step of the running average of the weights, which is what is validated and saved. In
    step k it is at most k / (k + 10), so that early averages forget the start."""

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and all(data.get(end) is None for end in ENDS):
            return {**data, "max_steps": 10_000}
        return data

    @property
    def ends(self) -> dict[str, Any]:
        """The limits of the run by name, ``None`` where there is none."""
        return {end: getattr(self, end) for end in ENDS}


class RunConfig(Config):
    """Set where and in which precision is computed, and when something is written."""

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the weights and of the data order."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to train; ``auto`` takes a CUDA device if there is one."""
    n_threads: int | None = Field(None, ge=1, le=4096)
    """CPU threads of torch; unset means torch's own choice."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of weights and activations; labels and references are float64 in any case."""
    precision: Precision = "fp32"
    """Precision of the matrix products of edge features: ``tf32`` and ``bf16`` round their factors,
    ``tf32x3`` and ``bf16x3`` make up for it with three products. Faster on CUDA only; elsewhere emulated.
    Forces are trained in ``fp32``, and so is the first map of convolutions with ``radial: edge``."""
    validate_every: int = Field(200, ge=1, le=1_000_000_000)
    """Steps between validations."""
    checkpoint_every: int = Field(200, ge=1, le=1_000_000_000)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(2, ge=1, le=1000)
    """Checkpoints to go on from that are kept: ``last`` and those before it, in case it is damaged."""
    max_skipped: int = Field(10, ge=1, le=1_000_000)
    """Steps in a row with a non-finite loss or gradient after which the run gives up; each is skipped."""

    @model_validator(mode="after")
    def _precision_fits(self) -> RunConfig:
        if self.precision != "fp32" and self.dtype != "float32":
            raise ValueError(f"precision {self.precision} is of dtype float32: use fp32 with {self.dtype}")
        return self

    @model_validator(mode="after")
    def _mps_is_single(self) -> RunConfig:
        if self.device == "mps":
            raise ValueError("device mps has no float64, which targets and positions need; use cpu")
        return self


class TrainConfig(Config):
    """Set a training run; one YAML file per run.

    Where a section is given a value, this sets its main key: ``data: water.h5``, ``init: runs/ethanol``,
    ``model: nano``, ``target: fock``, ``loss: mae``, ``optimizer: adamw``. Files of helmol 0.1, which had no
    sections, are read as well.
    """

    data: DataConfig
    """Molecules for training and validation."""
    task: Literal["hamiltonian", "energy", "both"] = "hamiltonian"
    """What is learnt: Fock matrices, energies (and forces), or both with one backbone."""
    init: InitConfig = InitConfig()
    """The model to start from; random weights without."""
    model: ModelChoice = ModelChoice()
    """The network."""
    target: TargetConfig = TargetConfig()
    """What the network learns of Fock matrices."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How long, and in which batches."""
    run: RunConfig = RunConfig()
    """Seed, device, precision; intervals of validations and checkpoints."""

    @model_validator(mode="before")
    @classmethod
    def _sections(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        try:
            return config_v2(data)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _task_makes_sense(self) -> TrainConfig:
        if self.task == "hamiltonian":
            return self
        if not self.loss.energy_weight and not self.loss.force_weight:
            raise ValueError("loss.energy_weight and loss.force_weight are both 0: there is nothing to learn")
        if self.model.heads.get("energy", {}).get("forces") == "direct" and not self.loss.force_weight:
            raise ValueError("direct forces are learnt from forces only: loss.force_weight must be above 0")
        return self

    @property
    def heads(self) -> dict[str, dict[str, Any]]:
        """Settings of the heads that the task has."""
        there = {"hamiltonian": ("fock",), "energy": ("energy",), "both": ("fock", "energy")}[self.task]
        return {name: self.model.heads.get(name, {}) for name in HEADS if name in there}
