"""Losses in the true orbitals: what an error of the Fock matrix does where electrons are.

Most of a Fock matrix's error sits among virtual orbitals, where it costs nothing. With C* the
orbitals of the label, ``C*ᵀ ΔF C*`` says it apart: its diagonal is the error of the orbital energies to
first order (of a degenerate level, the eigenvalues of its block are), its occupied–virtual block what turns
the density. Nothing is differentiated through an eigensolver. Source: WALoss, Li et al., arXiv 2406.16419
(diagonal, occupied and lowest unoccupied).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from helmol import properties
from helmol.arrays import Array, IntArray
from helmol.basis import BasisSet
from helmol.brief import brief
from helmol.errors import ConfigError, InputError
from helmol.graph import Batch
from helmol.graph.blocks import assemble, rotate_pairs
from helmol.model.losses.fock import block_errors
from helmol.model.losses.sums import Total, alone
from helmol.system import Molecule, Sample
from helmol.target import FockOutput

OrbitalLoss = Literal["energies", "occupied"]

DEGENERATE = 1e-4
"""Largest distance of neighbours in one level, Eh: a DFT grid splits a level by up to about 1e-5."""


@dataclass(frozen=True)
class Orbitals:
    """Hold the true orbitals of one molecule.

    Attributes:
        coefficients: ``[n_spins, nao, n]``, house order, by energy.
        n_occupied: how many of them are occupied, for each spin.
        levels: the number of each one's energy level, from 0; degenerate orbitals share it. ``[n_spins, n]``.
    """

    coefficients: Array
    n_occupied: tuple[int, ...]
    levels: IntArray

    __repr__ = brief


def true_orbitals(sample: Sample, basis: BasisSet) -> Orbitals:
    """Diagonalise the label of a molecule.

    Raises:
        InputError: the sample has no overlap, or one Fock matrix and unpaired electrons.
    """
    matrices, molecule = sample.matrices, sample.molecule
    if matrices.overlap is None:
        raise InputError(f"an orbital loss needs overlaps, sample {sample.id!r} has none")
    mo_energy, coefficients = properties.orbitals(matrices.fock, matrices.overlap)
    electrons = basis.n_electrons(molecule.numbers, molecule.charge)
    occupied = properties.occupations(mo_energy, electrons, spin=molecule.spin) > 0
    n_occupied = tuple(int(n) for n in np.atleast_2d(occupied).sum(axis=1))
    gaps = np.diff(mo_energy.reshape(len(n_occupied), -1), axis=1, prepend=-np.inf)
    levels = np.cumsum(gaps > DEGENERATE, axis=1) - 1
    return Orbitals(coefficients.reshape(len(n_occupied), *coefficients.shape[-2:]), n_occupied, levels)


def molecule_key(molecule: Molecule) -> bytes:
    """Return what tells a molecule from all others of a data set."""
    state = f"{molecule.charge},{molecule.spin},".encode()
    return state + molecule.numbers.tobytes() + molecule.positions.tobytes()


def orbital_loss(
    output: FockOutput,
    batch: Batch,
    orbitals: Mapping[bytes, Orbitals],
    *,
    basis: BasisSet,
    kind: str = "energies",
    total: Total = alone,
) -> Tensor:
    """Return a root mean square over elements of ``C*ᵀ ΔF C*``, in units of the spread of the labels.

    ``energies``: its diagonal for occupied orbitals and the lowest unoccupied level, with all elements inside
    a degenerate level, so that it does not depend on the choice of orbitals there; divided by their number.
    ``occupied``: all its rows of occupied orbitals, ``n_occ · n`` elements.

    Args:
        output: of the network for the batch.
        batch: molecules with targets, without what is known of them.
        orbitals: by :func:`molecule_key`.
        basis: shells of the elements.
        kind: one of the above.
        total: sums over the whole batch, where this is a part of it; the root is of the whole.

    Raises:
        ConfigError: unknown ``kind``.
        InputError: the batch has no targets.
    """
    if kind not in get_args(OrbitalLoss):
        raise ConfigError(
            f"unknown orbital loss {kind!r}: expected one of {', '.join(get_args(OrbitalLoss))}"
        )
    squares = output.geometry.distance.new_zeros(())
    count = 0
    states = [orbitals[molecule_key(molecule)] for molecule in batch.molecules]
    for state, error in zip(states, matrix_errors(output, batch, basis), strict=True):
        spins = zip(state.coefficients, state.n_occupied, state.levels, error, strict=True)
        for coefficients, n_occupied, level, one in spins:
            inside = level <= level[min(n_occupied, len(level) - 1)]
            n = n_occupied if kind == "occupied" else int(inside.sum())
            all_c = torch.from_numpy(coefficients).to(error)
            rows = all_c[:, :n].T @ one
            if kind == "occupied":
                wanted = rows @ all_c
            else:
                wanted = rows @ all_c[:, :n] * torch.from_numpy(level[:n, None] == level[:n]).to(error)
            squares = squares + wanted.square().sum()
            count += wanted.numel() if kind == "occupied" else n
    squares, n_all = total(squares, squares.new_full((), count))
    return torch.as_tensor((squares / n_all.clamp(min=1) + 1e-16).sqrt())


def matrix_errors(output: FockOutput, batch: Batch, basis: BasisSet) -> list[Tensor]:
    """Return predicted minus target matrix of each molecule, ``[n_spins, nao, nao]``, differentiable.

    In units of the loss and the network's precision, house order.
    """
    errors = []
    for k, bucket in enumerate(batch.buckets):
        error, _ = block_errors(output, bucket, k)
        if len(bucket.key) == 2:
            error = rotate_pairs(error, bucket.key, bucket.index, output.geometry, to_edge=False)
        errors.append(error)
    return assemble(errors, batch, basis, n_spins=output.normalised[0].shape[1])
