"""From a Fock matrix to the density of its lowest orbitals, and from that to an energy and F again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import dft, gto

from helmol import properties
from helmol.arrays import Array, BoolArray
from helmol.basis import from_house
from helmol.brief import brief
from helmol.dft.dispersion import dispersion
from helmol.dft.field import mean_field
from helmol.dft.integrals import house, house_shells, overlap, symmetric
from helmol.dft.level import LevelConfig
from helmol.dft.mole import molecule_from_mole
from helmol.errors import InputError

SMALLEST_GAP = 0.05
"""Orbital energy differences below this (Eh) are taken as this in the correction, which would diverge."""


@dataclass(frozen=True)
class FockEnergy:
    """Hold what one Fock build says about a guessed Fock matrix.

    Attributes:
        energy: ``E[D]`` of the density D of its lowest orbitals, Eh; never below the converged energy
            but for grid and fitting errors, and off by the square of the error of D.
        corrected: ``energy`` plus :attr:`correction`.
        correction: ``−Σ_σ Σ_ai |F_ai|² / (F_aa − F_ii)`` with F the Fock matrix built from D and i, a the
            occupied and empty orbitals of D, Eh: the energy that one more step would gain, to second order
            and with the potential held still. It overshoots where charge moves far (a minao density, say).
        residual: largest ``|F_ai|``, Eh.
        moved: electrons that the first SCF step moves from D (:func:`helmol.properties.electrons_moved`).
        fock: ``F[D]``, house order, Eh, of the guess's shape; equal to the guess if that is self-consistent.
        density: D, house order.
    """

    energy: float
    corrected: float
    correction: float
    residual: float
    moved: float
    fock: Array
    density: Array

    __repr__ = brief


def energy_of_fock(mole: gto.Mole, level: LevelConfig, fock: Array) -> FockEnergy:
    """Evaluate a functional once, at the density that a Fock matrix makes.

    Args:
        mole: the molecule.
        level: functional, grid, fitting.
        fock: house order, ``[nao, nao]``, or ``[2, nao, nao]`` for an unrestricted level, Eh.

    Raises:
        InputError: the matrix does not fit the basis or the method, or is not finite.
    """
    mf, nao = mean_field(mole, level), int(mole.nao)
    shape = (2, nao, nao) if isinstance(mf, dft.uks.UKS) else (nao, nao)
    if fock.shape != shape:
        raise InputError(f"a Fock matrix of shape {fock.shape} where the level of theory has {shape}")
    metric = overlap(mole)
    mo_energy, mo_coeff = properties.orbitals(fock, metric)
    mo_occ = properties.occupations(mo_energy, int(mole.nelectron), spin=int(mole.spin))
    density = properties.density(mo_coeff, mo_occ)
    turned = from_house(density, house_shells(mole), "pyscf")
    hcore = mf.get_hcore()
    potential = mf.get_veff(mole, turned)
    empirical, _ = dispersion(molecule_from_mole(mole), level)
    energy = float(mf.energy_tot(turned, hcore, potential)) + empirical
    built = house(symmetric(mf.get_fock(hcore, mf.get_ovlp(), potential, turned)), mole)
    gain, residual = 0.0, 0.0
    for matrix, orbitals, filled in zip(
        built.reshape(-1, nao, nao), mo_coeff.reshape(-1, *mo_coeff.shape[-2:]), np.atleast_2d(mo_occ) > 0,
        strict=True,
    ):  # fmt: skip
        one, largest = _second_order(orbitals.T @ matrix @ orbitals, filled)
        # Both spins of a restricted matrix gain the same.
        gain += (2 if fock.ndim == 2 else 1) * one
        residual = max(residual, largest)
    _, step = properties.orbitals(built, metric)  # filled as before: the lowest
    moved = properties.electrons_moved(density, properties.density(step, mo_occ), metric)
    return FockEnergy(energy, energy - gain, -gain, residual, moved, built, density)


def forces_from(mole: gto.Mole, level: LevelConfig, density: Array) -> Array:
    """Return ``−dE/dR`` of the SCF that a density leads to, Eh/bohr, ``[n_atoms, 3]``.

    Args:
        mole: the molecule.
        level: functional, grid, fitting.
        density: where the SCF starts, house order.
    """
    mf = mean_field(mole, level)
    mf.kernel(dm0=from_house(density, house_shells(mole), "pyscf"))
    gradient = mf.nuc_grad_method()
    gradient.verbose = 0
    _, slope = dispersion(molecule_from_mole(mole), level)
    return np.asarray(-gradient.kernel() - slope, dtype=np.float64)


def _second_order(fock: Any, filled: BoolArray) -> tuple[float, float]:
    """Return ``Σ_ai |F_ai|² / (F_aa − F_ii)`` of one spin, Eh, and the largest ``|F_ai|``."""
    mixed = fock[np.ix_(~filled, filled)]
    if mixed.size == 0:
        return 0.0, 0.0
    levels = np.diagonal(fock)
    gaps = np.maximum(levels[~filled][:, None] - levels[filled][None], SMALLEST_GAP)
    return float((mixed**2 / gaps).sum()), float(np.abs(mixed).max())
