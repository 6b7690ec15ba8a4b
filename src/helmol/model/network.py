"""The model: backbone, heads, statistics, domain; and the way from outputs to matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from helmol.errors import ConfigError
from helmol.graph import Batch, EdgeGeometry, Item, collate, edge_geometry, prepare
from helmol.graph.batch import Key
from helmol.model.backbone import Backbone, NodeStates, run_block
from helmol.model.backbone.inputs import MatrixInput, edges_inside
from helmol.model.backbone.layers import FeedForward
from helmol.model.backbone.products import check_precision
from helmol.model.backbone.so2 import SO2Convolution
from helmol.model.blocks import rotate_pairs, table_of
from helmol.model.config import ModelConfig
from helmol.model.damping import damped
from helmol.model.domain import Domain, reference_matrix
from helmol.model.given import given_matrices, n_given, needed_references
from helmol.model.heads import EnergyHead, HamiltonianHead
from helmol.model.linear import LinearPart
from helmol.model.reference import EnergyReference, blank_reference
from helmol.model.statistics import Statistics, blank, fit
from helmol.system import Molecule
from helmol.system.sample import Array


@dataclass(frozen=True)
class BlockIrreps:
    """Hold the network's output.

    Attributes:
        normalised: for each bucket of the batch ``[n, n_spins, dim]``, ``(target − mean) / scale``;
            off-diagonal blocks in their edge frames.
        geometry: the frames.
    """

    normalised: list[Tensor]
    geometry: EdgeGeometry


class HamiltonianModel(nn.Module):
    """HELM with its heads; made by :func:`build`, read by :func:`helmol.model.load_model`."""

    def __init__(self, config: ModelConfig, domain: Domain) -> None:
        super().__init__()
        needed = max(2 * domain.basis.lmax, 1)
        lmax = needed if config.lmax is None else config.lmax
        if config.hamiltonian and lmax < needed:
            raise ConfigError(
                f"lmax = {lmax} cannot hold the blocks of basis {domain.basis.name!r}, whose largest shell "
                f"has l = {domain.basis.lmax}: lmax must be at least {needed} (or unset)"
            )
        self.config, self.domain = config, domain
        self.statistics: Statistics = blank(domain.basis, n_spins=domain.n_spins)
        self.linear: LinearPart | None = None
        self.backbone = Backbone(config, lmax, matrix_input(config, domain, lmax))
        signatures = {element.shells for element in domain.basis.elements.values()}
        self.head: HamiltonianHead | None = None
        if config.hamiltonian:
            self.head = HamiltonianHead(lmax, config.channels, signatures, n_spins=domain.n_spins)
        self.reference: EnergyReference = blank_reference()
        self.overlap_floor = 0.0
        """Below which predictions are damped, see :mod:`helmol.model.damping`."""
        self._precision = "fp32"
        self.energy = EnergyHead(lmax, config, config.energy) if config.energy is not None else None

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

    def set_precision(self, precision: str) -> HamiltonianModel:
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
        *,
        pairs_at_once: int | None = None,
        checkpoint: bool = False,
        states: NodeStates | None = None,
    ) -> BlockIrreps:
        """Compute the normalised irreps of every block of a batch.

        Args:
            batch: molecules.
            pairs_at_once: pairs whose edge features are in memory together; all by default. The result
                does not depend on it.
            checkpoint: for the gradient keep little and compute the rest again.
            states: node features of the batch, where another head has computed them already.

        Raises:
            ConfigError: the model has no Hamiltonian head.
        """
        if self.head is None:
            raise ConfigError("this model has no Hamiltonian head: it predicts energies only")
        if states is None:
            states = self.backbone.nodes(batch, checkpoint=checkpoint)
        nodes = self.head.node_gate(states.final)
        n_pairs = states.geometry.n_pairs
        step = pairs_at_once or max(n_pairs, 1)
        between = [b for b in batch.buckets if len(b.key) == 2]
        parts: list[list[Tensor]] = [[] for _ in between]
        orders: list[list[Tensor]] = [[] for _ in between]
        for start in range(0, n_pairs, step):
            part = None if step >= n_pairs else slice(start, min(start + step, n_pairs))
            geometry = states.geometry if part is None else states.geometry.select(part)
            stream = self.backbone.edges(states, part, checkpoint=checkpoint)
            found = [edges_inside(b.index, start, geometry.n_pairs, n_pairs) for b in between]
            kinds = [(b.key, local) for b, (_, local) in zip(between, found, strict=True)]
            blocks = run_block(self.read_pairs, stream, geometry, kinds, checkpoint=checkpoint)
            for k, (chosen, _) in enumerate(found):
                parts[k].append(blocks[k])
                orders[k].append(chosen)
        joined = (_in_order(*values) for values in zip(parts, orders, strict=True))
        outputs = [
            self.head.diagonal(nodes, b.key, b.index) if len(b.key) == 1 else next(joined)
            for b in batch.buckets
        ]
        return BlockIrreps(outputs, states.geometry)

    def read_pairs(
        self, stream: Tensor, geometry: EdgeGeometry, kinds: Sequence[tuple[Key, Tensor]]
    ) -> list[Tensor]:
        """Return blocks between two atoms, as the head's ``pairs``, from what the edge blocks left."""
        if self.head is None:
            raise ConfigError("this model has no Hamiltonian head: it predicts energies only")
        return self.head.pairs(self.head.edge_gate(self.backbone.edge_norm(stream)), geometry, kinds)

    def given_matrices(self, molecule: Molecule, known: Mapping[str, Array]) -> Array | None:
        """Return the matrices that the network reads, as :func:`helmol.model.given.given_matrices`."""
        domain = self.domain
        return given_matrices(self.config.inputs, domain.target, known, molecule, domain.basis)

    @property
    def needed_references(self) -> tuple[str, ...]:
        """Names of the reference matrices without which it predicts nothing."""
        return needed_references(self.domain.target, self.config.inputs)

    def prepare(self, molecule: Molecule, matrix: Array | None = None, given: Array | None = None) -> Item:
        """Prepare a molecule (its target matrix, the matrices it reads) for :func:`helmol.graph.collate`."""
        return prepare(molecule, self.domain.basis, cutoff=self.config.cutoff, matrix=matrix, given=given)


def _in_order(values: list[Tensor], places: list[Tensor]) -> Tensor:
    """Join values that came in parts, each to its place."""
    if len(values) == 1:
        return values[0]
    return torch.cat(values).index_select(0, torch.argsort(torch.cat(places)))


def build(
    config: ModelConfig, domain: Domain, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> HamiltonianModel:
    """Make a model with random weights that depend on ``seed`` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = HamiltonianModel(config, domain)
        _scale_residuals(network.backbone, config.residual_scale)
        return network.to(dtype)


@torch.no_grad()
def _scale_residuals(backbone: Backbone, factor: float) -> None:
    """Multiply the last maps of every block: blocks that add little at first train faster."""
    for block in [*backbone.node_blocks, *backbone.edge_blocks]:
        for last in (block.convolution.second, block.ffn.second):
            for parameter in last.parameters():
                parameter.mul_(factor)


def matrix_input(config: ModelConfig, domain: Domain, lmax: int) -> MatrixInput | None:
    """Return what reads the matrices that a configuration names.

    Raises:
        ConfigError: the target has no H₀, or there is an energy head.
    """
    if not config.inputs:
        return None
    if config.energy is not None or not config.hamiltonian:
        raise ConfigError("inputs are for models of Fock matrices alone: energies are read without H₀ and S")
    needed_references(domain.target, config.inputs)
    n_matrices = n_given(config.inputs, domain.n_spins)
    return MatrixInput(lmax, config.channels, domain.basis, n_matrices)


def fit_statistics(
    network: HamiltonianModel, items: Sequence[Item], *, centring: bool = True, scaling: bool = True
) -> None:
    """Set the model's centring and scaling from prepared training molecules (with targets).

    Args:
        network: its statistics are replaced.
        items: the molecules.
        centring: of the targets, see :func:`helmol.model.statistics.fit`; matrices that are read always are.
        scaling: as ``centring``.
    """
    reader = network.backbone.given
    if reader is not None:
        n_matrices = reader.n_matrices
        reader.set_statistics(fit(map(_given_as_target, items), network.domain.basis, n_spins=n_matrices))
    network.statistics = fit(
        items, network.domain.basis, n_spins=network.domain.n_spins, centring=centring, scaling=scaling
    )


def _given_as_target(item: Item) -> Item:
    """Return the item with the matrices it reads in the place of its target."""
    buckets = {key: replace(bucket, target=bucket.given) for key, bucket in item.buckets.items()}
    return replace(item, buckets=buckets)


def predict_fock(
    network: HamiltonianModel,
    molecules: Sequence[Molecule],
    references: Sequence[Mapping[str, Array]],
    *,
    max_edges: int = 20_000,
) -> list[Array]:
    """Predict Fock matrices, house order, Eh, float64; symmetric to the last bit.

    Args:
        network: the model.
        molecules: inside the model's domain.
        references: for each molecule its reference matrices by name (house order), and under ``overlap`` its
            overlap matrix, which some networks read and by which others damp what they predict (without it
            they do not); empty mappings serve for the target ``fock``.
        max_edges: molecules are processed together up to this many directed edges; a larger molecule
            is processed in parts.

    Raises:
        DomainError: an element, charge or spin that the model has not learnt.
        ConfigError: the model has no Hamiltonian head.
        InputError: a reference matrix that the target needs is missing.
    """
    for molecule in molecules:
        network.domain.check(molecule)
    starts = [reference_matrix(reference, network.domain.target) for reference in references]
    items = [
        network.prepare(molecule, given=network.given_matrices(molecule, known))
        for molecule, known in zip(molecules, references, strict=True)
    ]
    matrices: list[Array] = []
    for group in groups_of(items, max_edges):
        with torch.no_grad():
            batch = collate(group).to(network.device)
            matrices += assemble(network, network(batch, pairs_at_once=max(max_edges // 2, 1)), batch)
    floor = network.overlap_floor
    if floor:
        matrices = [
            damped(matrix, known["overlap"], floor) if "overlap" in known else matrix
            for matrix, known in zip(matrices, references, strict=True)
        ]
    return [matrix + start for matrix, start in zip(matrices, starts, strict=True)]


def groups_of(items: Sequence[Item], max_edges: int) -> list[list[Item]]:
    """Split molecules, in order, into runs of at most ``max_edges`` directed edges."""
    groups: list[list[Item]] = []
    room = -1
    for item in items:
        if item.n_edges > room:
            groups.append([])
            room = max_edges
        groups[-1].append(item)
        room -= item.n_edges
    return groups


def assemble(network: HamiltonianModel, output: BlockIrreps, batch: Batch) -> list[Array]:
    """Turn normalised irreps into dense symmetric matrices, one per molecule, float64.

    Blocks of pairs beyond the cutoff are zero (the target's value there).
    """
    basis = network.domain.basis
    offsets = [basis.offsets(molecule.numbers) for molecule in batch.molecules]
    sizes = np.array([offset[-1] for offset in offsets])
    base = np.concatenate([[0], np.cumsum(sizes**2)])
    ao_start = np.concatenate([offset[:-1] for offset in offsets])
    molecule = batch.molecule.cpu().numpy()
    n_spins = network.domain.n_spins
    flat = np.zeros((n_spins, base[-1]))
    geometry = edge_geometry(
        batch.positions, batch.pair_index, lmax=output.geometry.lmax, cutoff=network.config.cutoff,
        dtype=torch.float64,
    )  # fmt: skip
    linear = network.linear(batch) if network.linear is not None else [None] * len(batch.buckets)
    for bucket, normalised, part in zip(batch.buckets, output.normalised, linear, strict=True):
        mean, scale = network.statistics.of(bucket, batch.numbers)
        irreps = mean + scale * normalised.to(torch.float64)
        pairwise = len(bucket.key) == 2
        table = table_of(bucket.key)
        if pairwise:
            irreps = rotate_pairs(irreps, bucket.key, bucket.index, geometry, to_edge=False)
        irreps = irreps if part is None else irreps + part.to(irreps.device)
        edge_or_atom = bucket.index.cpu().numpy()
        first = geometry.source.cpu().numpy()[edge_or_atom] if pairwise else edge_or_atom
        second = geometry.target.cpu().numpy()[edge_or_atom] if pairwise else edge_or_atom
        width = sizes[molecule[first]][:, None, None]
        start = base[molecule[first]][:, None, None]
        i = ao_start[first][:, None, None] + np.arange(table.rows)[:, None]
        j = ao_start[second][:, None, None] + np.arange(table.columns)
        for spin in range(n_spins):
            blocks = table.to_blocks(irreps[:, spin].cpu().numpy())
            flat[spin, start + i * width + j] = blocks
            flat[spin, start + j * width + i] = blocks
    parts = [flat[:, a:b].reshape(n_spins, n, n) for a, b, n in zip(base[:-1], base[1:], sizes, strict=True)]
    return [_exactly_symmetric(part if n_spins == 2 else part[0]) for part in parts]


def _exactly_symmetric(matrix: Array) -> Array:
    """Return the mean of a matrix and its transpose; removes rounding in diagonal blocks."""
    return 0.5 * (matrix + np.swapaxes(matrix, -1, -2))
