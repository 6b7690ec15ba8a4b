"""From molecules to Fock matrices, energies and forces: prepared, computed in portions, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from helmol.arrays import Array
from helmol.brief import brief
from helmol.errors import DomainError
from helmol.graph import Item, collate
from helmol.model.model import Model
from helmol.system import Molecule
from helmol.target.matrix import reference_matrix

PAIRS_OF_A_THREAD = 512
"""Pairs whose features a thread of a CPU works on together: some MB for each step of a small network."""


def predict_fock(
    model: Model,
    molecules: Sequence[Molecule],
    references: Sequence[Mapping[str, Array]],
    *,
    max_edges: int = 20_000,
) -> list[Array]:
    """Predict Fock matrices, house order, Eh, float64; symmetric to the last bit.

    Args:
        model: with a Hamiltonian head.
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
    target = model.fock_target
    for molecule, known in zip(molecules, references, strict=True):
        model.domain.check(molecule)
        reference_matrix(known, model.domain.target)  # there before anything is computed
    items = [
        model.prepare(molecule, inputs=model.input_matrices(molecule, known))
        for molecule, known in zip(molecules, references, strict=True)
    ]
    matrices: list[Array] = []
    for group in groups_of(items, max_edges):
        mine = references[len(matrices) : len(matrices) + len(group)]
        with torch.no_grad():
            batch = collate(group).to(model.device)
            output = model(batch, ("fock",), pairs_at_once=pairs_at_once(model.device, max_edges))
            matrices += target.add(output.fock, batch, mine)
    return matrices


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


def pairs_at_once(device: torch.device, max_edges: int) -> int:
    """Return how many pairs a prediction works on together: on a CPU no more than its caches can hold.

    Args:
        device: of the model.
        max_edges: directed edges that there is memory for.
    """
    most = max(max_edges // 2, 1)
    return min(most, PAIRS_OF_A_THREAD * torch.get_num_threads()) if device.type == "cpu" else most


@dataclass(frozen=True)
class PredictedEnergy:
    """Hold one molecule's energy (Eh) and forces (Eh/bohr, ``[n_atoms, 3]``, or ``None``)."""

    energy: float
    forces: Array | None

    __repr__ = brief


@contextmanager
def _constant(model: Model) -> Iterator[None]:
    """Take the weights as constants, so that forces do not cost their gradients as well."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learnt:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)


def predict_energies(
    model: Model, molecules: Sequence[Molecule], *, forces: bool = True, max_edges: int = 20_000
) -> list[PredictedEnergy]:
    """Predict energies and forces.

    Args:
        model: with an energy head.
        molecules: inside the model's domain.
        forces: whether to compute forces.
        max_edges: molecules are processed together up to this many directed edges.

    Raises:
        DomainError: an element, charge, spin or composition that the model has not learnt, or forces of a
            model whose direct forces were never trained.
        ConfigError: the model has no energy head.
    """
    head, target = model.energy_head, model.energy_target
    for molecule in molecules:
        model.domain.check(molecule)
        target.check(molecule)
    if forces and head.direct is not None and float(target.force_scale) == 0:
        raise DomainError("the direct forces of this model were not trained: ask for energies only")
    predicted: list[PredictedEnergy] = []
    for group in groups_of([model.prepare(molecule) for molecule in molecules], max_edges):
        batch = collate(group).to(model.device)
        with torch.no_grad(), _constant(model):
            output = model(batch, ("energy",), forces=forces).energy
        sizes = [molecule.n_atoms for molecule in batch.molecules]
        parts = [None] * len(sizes) if output.forces is None else output.forces.cpu().split(sizes)
        for energy, part in zip(output.energy.tolist(), parts, strict=True):
            predicted.append(PredictedEnergy(energy, None if part is None else part.numpy().copy()))
    return predicted
