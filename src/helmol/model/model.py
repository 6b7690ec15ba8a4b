"""The model: a backbone, named heads, and for each what is known of its labels before the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from helmol.arrays import Array
from helmol.brief import brief
from helmol.elements import some_symbols
from helmol.errors import ConfigError
from helmol.graph import Batch, EdgeGeometry, Item, prepare
from helmol.model.backbone import Backbone, NodeStates
from helmol.model.backbone.layers import FeedForward
from helmol.model.backbone.products import check_precision
from helmol.model.backbone.so2 import SO2Convolution
from helmol.model.config import ModelConfig
from helmol.model.heads import HEADS, Ask, EnergyHead, Features, FockHead, Head
from helmol.model.heads.energy import EnergyOutput
from helmol.model.matrix_input import MatrixInput
from helmol.system import Molecule
from helmol.target import Domain, EnergyTarget, FockOutput, FockTarget, Sizes, input_matrices
from helmol.target.matrix import n_inputs, needed_references

M = TypeVar("M", bound=nn.Module)

WITHOUT = {
    "fock": "this model has no Hamiltonian head: it predicts energies only",
    "energy": "this model has no energy head: it predicts Fock matrices only",
}


@dataclass(frozen=True)
class Output:
    """Hold what the heads say of a batch.

    Attributes:
        heads: by name of the head.
        nodes: the features that they were read from.
    """

    heads: dict[str, Any]
    nodes: NodeStates

    __repr__ = brief

    @property
    def fock(self) -> FockOutput:
        """Irreps of the matrix blocks."""
        found: FockOutput = self.heads["fock"]
        return found

    @property
    def energy(self) -> EnergyOutput:
        """Energies and forces."""
        found: EnergyOutput = self.heads["energy"]
        return found


class Model(nn.Module):
    """HELM with its heads; made by :func:`build`, read by :func:`helmol.model.load_model`.

    Its ``state_dict`` is all that was learnt: weights, statistics, closed-form parts, element energies,
    damping.

    Args:
        config: size and heads of the network.
        domain: what it learns.
        targets: by head the description of a target whose numbers will be loaded.
    """

    def __init__(
        self, config: ModelConfig, domain: Domain, targets: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__()
        lmax = max(2 * domain.basis.lmax, 1) if config.lmax is None else config.lmax
        self.config, self.domain, self.lmax = config, domain, lmax
        self._precision = "fp32"
        edges = any(HEADS[name].reads_edges for name in config.heads)
        self.matrix_input = _matrix_input(config, domain, lmax)
        self.backbone = Backbone(config, lmax, edges=edges)
        sizes, described = Sizes(lmax, config.cutoff), targets or {}
        self.heads, self.targets = nn.ModuleDict(), nn.ModuleDict()
        for name, settings in config.heads.items():
            self.heads[name] = HEADS[name].make(lmax, config, domain, settings)
            target = HEADS[name].target(domain, sizes, described.get(name))
            if target is not None:
                self.targets[name] = target

    def __repr__(self) -> str:
        return f"Model({self.summary})"

    @property
    def learnt(self) -> str:
        """What it predicts, in words."""
        found = [f"Fock matrices as {self.domain.target}"] if "fock" in self.heads else []
        found += ["energies"] if "energy" in self.heads else []
        found += [name for name in self.heads if name not in ("fock", "energy")]
        return " and ".join(found) or "nothing"

    @property
    def summary(self) -> str:
        """What it predicts, at which level and of which elements, how large it is and where, in a line."""
        size = f"{self.n_parameters:,} parameters, {str(self.dtype).removeprefix('torch.')}, {self.device}"
        elements = some_symbols(self.domain.basis.elements)
        return f"{self.learnt}, {self.domain.level.label}, {elements}; {size}"

    @property
    def fock_head(self) -> FockHead:
        """The Hamiltonian head; raises ConfigError if there is none."""
        return self._found(self.heads, "fock", FockHead)

    @property
    def energy_head(self) -> EnergyHead:
        """The energy head; raises ConfigError if there is none."""
        return self._found(self.heads, "energy", EnergyHead)

    @property
    def fock_target(self) -> FockTarget:
        """What is known of Fock matrices; raises ConfigError if the model has none."""
        return self._found(self.targets, "fock", FockTarget)

    @property
    def energy_target(self) -> EnergyTarget:
        """What is known of energies; raises ConfigError if the model has none."""
        return self._found(self.targets, "energy", EnergyTarget)

    def _found(self, among: nn.ModuleDict, name: str, kind: type[M]) -> M:
        found = among[name] if name in among else None
        if not isinstance(found, kind):
            raise ConfigError(WITHOUT[name])
        return found

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def precision(self) -> str:
        """How matrix products of edge features are done, see :mod:`helmol.model.backbone.products`."""
        return self._precision

    def set_precision(self, precision: str) -> Model:
        """Choose the precision of the matrix products of edge features; return the model.

        It is a setting of the computation, not of the model: it is not saved. Training on forces takes second
        derivatives and stays in ``fp32``.

        Raises:
            ConfigError: unknown name, or reduced precision of a float64 network.
        """
        check_precision(precision, self.dtype)
        self._precision = precision
        for module in self.modules():
            if isinstance(module, (FeedForward, SO2Convolution)):
                module.precision = precision
        return self

    @property
    def n_parameters(self) -> int:
        """Number of learnable numbers."""
        return sum(p.numel() for p in self.parameters())

    def forward(
        self,
        batch: Batch,
        want: Sequence[str] | None = None,
        *,
        forces: bool = False,
        create_graph: bool = False,
        pairs_at_once: int | None = None,
        checkpoint: bool = False,
    ) -> Output:
        """Evaluate heads on a batch.

        Args:
            batch: molecules.
            want: names of heads; all by default. The nodes are computed once for all of them.
            forces: whether forces are wanted from the head of energies.
            create_graph: keep what the gradient of a loss on conservative forces needs.
            pairs_at_once: pairs whose features are in memory together; all by default. The result does not
                depend on it.
            checkpoint: for the gradient keep little and compute the rest again.

        Raises:
            ConfigError: the model has no such head.
        """
        names = tuple(self.heads) if want is None else tuple(want)
        if missing := [name for name in names if name not in self.heads]:
            raise ConfigError(WITHOUT.get(missing[0], f"this model has no head {missing[0]!r}"))
        ask = Ask(forces, create_graph, pairs_at_once, checkpoint)
        moving = any(self._found(self.heads, name, Head).moves_atoms(ask) for name in names)
        if moving:
            batch = replace(batch, positions=batch.positions.detach().requires_grad_())
        with torch.set_grad_enabled(moving or torch.is_grad_enabled()):
            extra = None if self.matrix_input is None else self.matrix_input.nodes(batch)
            states = self.backbone.nodes(
                batch, extra=extra, checkpoint=checkpoint, twice=moving and create_graph,
                pairs_at_once=pairs_at_once,
            )  # fmt: skip

            def edge_inputs(geometry: EdgeGeometry, start: int) -> Tensor | None:
                if self.matrix_input is None:
                    return None
                return self.matrix_input.edges(batch.buckets, geometry, start, states.geometry.n_pairs)

            features = Features(batch, states, self.backbone, edge_inputs)
            found = {
                name: self.heads[name](features, self.targets[name] if name in self.targets else None, ask)
                for name in names
            }
        return Output(found, states)

    @property
    def needed_references(self) -> tuple[str, ...]:
        """Names of the reference matrices without which it predicts nothing."""
        return needed_references(self.domain.target, self.config.inputs)

    def input_matrices(self, molecule: Molecule, known: Mapping[str, Array]) -> Array | None:
        """Return the matrices that the network reads, as :func:`helmol.target.input_matrices`."""
        domain = self.domain
        return input_matrices(self.config.inputs, domain.target, known, molecule, domain.basis)

    def prepare(self, molecule: Molecule, matrix: Array | None = None, inputs: Array | None = None) -> Item:
        """Prepare a molecule (its target matrix, the matrices it reads) for :func:`helmol.graph.collate`."""
        return prepare(molecule, self.domain.basis, cutoff=self.config.cutoff, matrix=matrix, inputs=inputs)


def build(config: ModelConfig, domain: Domain, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Model:
    """Make a model with random weights that depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(config, domain)
        _scale_residuals(model.backbone, config.residual_scale)
        return model.to(dtype)


@torch.no_grad()
def _scale_residuals(backbone: Backbone, factor: float) -> None:
    """Multiply the last maps of every block: blocks that add little at first train faster."""
    for block in [*backbone.node_blocks, *backbone.edge_blocks]:
        for last in (block.convolution.second, block.ffn.second):
            for parameter in last.parameters():
                parameter.mul_(factor)


def _matrix_input(config: ModelConfig, domain: Domain, lmax: int) -> MatrixInput | None:
    """Return what reads the matrices that a configuration names.

    Raises:
        ConfigError: the target has no H₀, or there is another head than that of Fock matrices.
    """
    if not config.inputs:
        return None
    if tuple(config.heads) != ("fock",):
        raise ConfigError("inputs are for models of Fock matrices alone: energies are read without H₀ and S")
    needed_references(domain.target, config.inputs)
    n_matrices = n_inputs(config.inputs, domain.n_spins)
    return MatrixInput(lmax, config.channels, domain.basis, n_matrices, unnatural=config.unnatural)


def fit_statistics(
    model: Model, items: Sequence[Item], *, centring: bool = True, scaling: bool = True, linear: str = "none"
) -> Sequence[Item]:
    """Fit what is known of Fock matrices to prepared training molecules (with targets ``H − H₀``).

    Args:
        model: its target, and the statistics of the matrices that it reads, are replaced.
        items: the molecules.
        centring: of the targets; matrices that are read always are.
        scaling: whether every irrep has its own scale.
        linear: setting of :class:`helmol.target.LinearPart`.

    Returns:
        The molecules without what is known of their targets, as a loss wants them.
    """
    if model.matrix_input is not None:
        model.matrix_input.fit(items, model.domain.basis)
    return model.fock_target.fit(items, {"means": centring, "linear": linear}, scaling=scaling)
