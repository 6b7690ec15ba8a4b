"""Losses in the true orbitals: what an error of the Fock matrix does where electrons are.

Most of a Fock matrix's error sits among virtual orbitals, where it costs nothing. With C* the
orbitals of the label, ``C*ᵀ ΔF C*`` says it apart: its diagonal is the error of the orbital energies to
first order (of a degenerate level, the eigenvalues of its block are), its occupied–virtual block what turns
the density. Nothing is differentiated through an eigensolver. Source: WALoss, Li et al., arXiv 2406.16419
(diagonal, occupied and lowest unoccupied).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from helmol import properties
from helmol.basis import BasisSet
from helmol.errors import ConfigError, InputError
from helmol.graph import Batch
from helmol.model.blocks import rotate_pairs, table_of
from helmol.model.losses import block_errors
from helmol.model.network import BlockIrreps, HamiltonianModel
from helmol.system import Molecule, Sample
from helmol.system.sample import Array

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
    levels: npt.NDArray[np.int64]


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
    network: HamiltonianModel,
    output: BlockIrreps,
    batch: Batch,
    orbitals: Mapping[bytes, Orbitals],
    *,
    kind: str = "energies",
) -> Tensor:
    """Return a root mean square over elements of ``C*ᵀ ΔF C*``, in units of the spread of the labels.

    ``energies``: its diagonal for occupied orbitals and the lowest unoccupied level, with all elements inside
    a degenerate level, so that it does not depend on the choice of orbitals there; divided by their number.
    ``occupied``: all its rows of occupied orbitals, ``n_occ · n`` elements.

    Args:
        network: holds the statistics.
        output: of the network for the batch.
        batch: molecules with targets.
        orbitals: by :func:`molecule_key`.
        kind: one of the above.

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
    for state, error in zip(states, matrix_errors(network, output, batch), strict=True):
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
    return torch.as_tensor((squares / max(count, 1) + 1e-16).sqrt())


def matrix_errors(network: HamiltonianModel, output: BlockIrreps, batch: Batch) -> list[Tensor]:
    """Return predicted minus target matrix of each molecule, ``[n_spins, nao, nao]``, differentiable.

    In units of the loss and the network's precision, house order.
    """
    basis, geometry = network.domain.basis, output.geometry
    offsets = [basis.offsets(molecule.numbers) for molecule in batch.molecules]
    sizes = np.array([offset[-1] for offset in offsets])
    base = np.concatenate([[0], np.cumsum(sizes**2)])
    ao_start = np.concatenate([offset[:-1] for offset in offsets])
    molecule = batch.molecule.cpu().numpy()
    values, places = [], []
    for bucket, predicted in zip(batch.buckets, output.normalised, strict=True):
        error, _ = block_errors(network, output, batch, bucket, predicted)
        index = bucket.index.cpu().numpy()
        first = second = index
        if len(bucket.key) == 2:
            error = rotate_pairs(error, bucket.key, bucket.index, geometry, to_edge=False)
            first, second = geometry.source.cpu().numpy()[index], geometry.target.cpu().numpy()[index]
        table = table_of(bucket.key)
        columns = torch.from_numpy(table.matrix.toarray()).to(error)
        blocks = (error @ columns.T).transpose(0, 1)
        start, width = base[molecule[first]][:, None, None], sizes[molecule[first]][:, None, None]
        i = ao_start[first][:, None, None] + np.arange(table.rows)[:, None]
        j = ao_start[second][:, None, None] + np.arange(table.columns)
        for place in [start + i * width + j, start + j * width + i][: len(bucket.key)]:
            values.append(blocks.reshape(len(blocks), -1))
            places.append(place.reshape(-1))
    return _matrices(values, places, base, sizes.tolist())


def _matrices(
    values: Sequence[Tensor], places: Sequence[np.ndarray], base: np.ndarray, sizes: Sequence[int]
) -> list[Tensor]:
    """Put values to their places in matrices that stand one after the other."""
    where = torch.from_numpy(np.concatenate(places)).to(values[0].device)
    flat = values[0].new_zeros(int(base[-1]), len(values[0]))
    flat = flat.index_put((where,), torch.cat(list(values), dim=1).T)
    return [
        flat[start:stop].T.unflatten(1, (n, n))
        for start, stop, n in zip(base[:-1], base[1:], sizes, strict=True)
    ]
