"""Energies and forces of a model with an energy head, in Hartree and Hartree/bohr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from helmol.errors import ConfigError, DomainError, InputError
from helmol.graph import Batch, collate
from helmol.model.backbone import NodeStates
from helmol.model.network import HamiltonianModel, groups_of
from helmol.system import Molecule
from helmol.system.sample import Array


@dataclass(frozen=True)
class EnergyOutput:
    """Hold energies ``[B]`` (Eh, float64) and forces ``[N, 3]`` (Eh/bohr, or ``None``) of a batch.

    ``states`` are the node features they were read from, for another head.
    """

    energy: Tensor
    forces: Tensor | None
    states: NodeStates


def energies(network: HamiltonianModel, batch: Batch, *, forces: bool, twice: bool = False) -> EnergyOutput:
    """Compute energies, and forces if asked for, of a batch.

    ``E = Σ_i E_ref(Z_i) + scale · e_i``; conservative forces are ``−∂E/∂R``.

    Args:
        network: a model with an energy head.
        batch: molecules.
        forces: whether to compute forces.
        twice: keep what the gradient of a loss on conservative forces needs.

    Raises:
        ConfigError: the model has no energy head.
    """
    head, reference = network.energy, network.reference
    if head is None or network.config.energy is None:
        raise ConfigError("this model has no energy head: it predicts Fock matrices only")
    conservative = forces and network.config.energy.forces == "conservative"
    if conservative:
        batch = replace(batch, positions=batch.positions.detach().requires_grad_())
    with torch.set_grad_enabled(conservative or torch.is_grad_enabled()):
        states = network.backbone.nodes(batch, twice=twice and conservative)
        near = network.backbone.messages(states.geometry, states.scalars)
        per_atom, direct = head(states, *near, batch.numbers)
        learnt = reference.scale * per_atom.to(torch.float64)
        rest = learnt.new_zeros(len(batch.molecules)).index_add(0, batch.molecule, learnt)
        if conservative:
            (gradient,) = torch.autograd.grad(
                rest.sum(), batch.positions, create_graph=twice, materialize_grads=True
            )
    start = reference.per_element.to(learnt.device)[batch.numbers]
    energy = rest + torch.zeros_like(rest).index_add(0, batch.molecule, start)
    if not forces:
        return EnergyOutput(energy, None, states)
    if conservative:
        return EnergyOutput(energy if twice else energy.detach(), -gradient, states)
    if direct is None:
        raise ConfigError("this model has no direct forces")
    return EnergyOutput(energy, reference.force_scale * direct.to(torch.float64), states)


def energy_loss(
    network: HamiltonianModel,
    output: EnergyOutput,
    batch: Batch,
    *,
    kind: str = "mae",
    energy_weight: float = 1.0,
    force_weight: float = 0.0,
) -> Tensor:
    """Compare energies and forces with their labels; invariant to the orientation of the molecules.

    With ``ΔE / (scale √n_atoms)`` per molecule and ``|ΔF| / (√3 force_scale)`` per atom, ``mae`` is their
    mean and ``mse`` their mean square; the loss is ``energy_weight`` times the one plus ``force_weight``
    times the other.

    Raises:
        InputError: a label that the weights ask for is missing.
        ConfigError: unknown ``kind``.
    """
    if kind not in ("mae", "mse"):
        raise ConfigError(f"unknown energy loss {kind!r}: expected one of mae, mse")
    total = output.energy.new_zeros(())
    if energy_weight:
        if batch.energy is None:
            raise InputError("a loss on energies needs molecules with energies")
        n_atoms = torch.bincount(batch.molecule, minlength=len(batch.molecules))
        error = (output.energy - batch.energy) / (network.reference.scale * n_atoms.sqrt())
        total = total + energy_weight * (error.abs() if kind == "mae" else error.square()).mean()
    if force_weight:
        if batch.forces is None or output.forces is None:
            raise InputError("a loss on forces needs molecules with forces")
        square = (output.forces - batch.forces).square().sum(dim=1) / (3 * network.reference.force_scale**2)
        # The root's slope is infinite at zero; 1e-16 is far below any error that matters.
        total = total + force_weight * ((square + 1e-16).sqrt() if kind == "mae" else square).mean()
    return total


@dataclass(frozen=True)
class PredictedEnergy:
    """Hold one molecule's energy (Eh) and forces (Eh/bohr, ``[n_atoms, 3]``, or ``None``)."""

    energy: float
    forces: Array | None


@contextmanager
def _constant(network: HamiltonianModel) -> Iterator[None]:
    """Take the weights as constants, so that forces do not cost their gradients as well."""
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)


def predict_energies(
    network: HamiltonianModel, molecules: Sequence[Molecule], *, forces: bool = True, max_edges: int = 20_000
) -> list[PredictedEnergy]:
    """Predict energies and forces.

    Args:
        network: a model with an energy head.
        molecules: inside the model's domain.
        forces: whether to compute forces.
        max_edges: molecules are processed together up to this many directed edges.

    Raises:
        DomainError: an element, charge, spin or composition that the model has not learnt, or forces of a
            model whose direct forces were never trained.
        ConfigError: the model has no energy head.
    """
    for molecule in molecules:
        network.domain.check(molecule)
        network.reference.check(molecule)
    direct = network.config.energy is not None and network.config.energy.forces == "direct"
    if forces and direct and network.reference.force_scale == 0:
        raise DomainError("the direct forces of this model were not trained: ask for energies only")
    predicted: list[PredictedEnergy] = []
    for group in groups_of([network.prepare(molecule) for molecule in molecules], max_edges):
        batch = collate(group).to(network.device)
        with torch.no_grad(), _constant(network):
            output = energies(network, batch, forces=forces)
        sizes = [molecule.n_atoms for molecule in batch.molecules]
        parts = [None] * len(sizes) if output.forces is None else output.forces.cpu().split(sizes)
        for energy, part in zip(output.energy.tolist(), parts, strict=True):
            predicted.append(PredictedEnergy(energy, None if part is None else part.numpy().copy()))
    return predicted
