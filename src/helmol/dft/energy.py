"""The energy that belongs to a Fock matrix: of the density of its lowest orbitals, with a correction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyscf import gto

from helmol.basis import from_house
from helmol.dft.dispersion import dispersion
from helmol.dft.field import mean_field
from helmol.dft.integrals import house_shells
from helmol.dft.level import LevelConfig
from helmol.dft.mole import molecule_from_mole
from helmol.errors import InputError

Array = npt.NDArray[np.float64]

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
    """

    energy: float
    corrected: float
    correction: float
    residual: float


def energy_of_fock(mole: gto.Mole, level: LevelConfig, fock: Array) -> FockEnergy:
    """Evaluate a functional once, at the density that a Fock matrix makes.

    Args:
        mole: the molecule.
        level: functional, grid, fitting.
        fock: house order, ``[nao, nao]``, or ``[2, nao, nao]`` for an unrestricted level, Eh.

    Raises:
        InputError: the matrix has another size than the basis, or is not finite.
    """
    nao = int(mole.nao)
    if fock.shape[-2:] != (nao, nao):
        raise InputError(f"a Fock matrix of shape {fock.shape} for {nao} basis functions")
    if not np.isfinite(fock).all():
        raise InputError("the Fock matrix has elements that are not finite")
    mf = mean_field(mole, level)
    overlap = mf.get_ovlp()
    mo_energy, mo_coeff = mf.eig(from_house(fock, house_shells(mole), "pyscf"), overlap)
    mo_occ = mf.get_occ(mo_energy, mo_coeff)
    density = mf.make_rdm1(mo_coeff, mo_occ)
    hcore = mf.get_hcore()
    potential = mf.get_veff(mole, density)
    empirical, _ = dispersion(molecule_from_mole(mole), level)
    energy = float(mf.energy_tot(density, hcore, potential)) + empirical
    built = np.asarray(mf.get_fock(hcore, overlap, potential, density))
    gain, residual = 0.0, 0.0
    coefficients, occupied = np.asarray(mo_coeff), np.asarray(mo_occ)
    restricted = coefficients.ndim == 2
    for matrix, orbitals, filled in zip(
        built.reshape(-1, nao, nao),
        coefficients.reshape(-1, nao, coefficients.shape[-1]),
        occupied.reshape(-1, occupied.shape[-1]),
        strict=True,
    ):
        one, largest = _second_order(orbitals.T @ matrix @ orbitals, filled > 0)
        # Both spins of a restricted matrix gain the same.
        gain += (2 if restricted else 1) * one
        residual = max(residual, largest)
    return FockEnergy(energy, energy - gain, -gain, residual)


def _second_order(fock: Any, filled: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return ``Σ_ai |F_ai|² / (F_aa − F_ii)`` of one spin, Eh, and the largest ``|F_ai|``."""
    mixed = fock[np.ix_(~filled, filled)]
    if mixed.size == 0:
        return 0.0, 0.0
    levels = np.diagonal(fock)
    gaps = np.maximum(levels[~filled][:, None] - levels[filled][None], SMALLEST_GAP)
    return float((mixed**2 / gaps).sum()), float(np.abs(mixed).max())
