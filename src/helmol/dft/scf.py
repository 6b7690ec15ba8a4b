"""The SCF: most of its cycles on a coarse grid, what every cycle needs kept in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from pyscf.dft import numint
from pyscf.scf import hf

from helmol.arrays import Array
from helmol.dft.field import auxiliary_basis, on_grid
from helmol.dft.ladder import HOLE, ROUNDING, Ladder, check_holes
from helmol.dft.level import LevelConfig
from helmol.dft.stability import UNSTABLE, is_due, lowest_mode, turned
from helmol.errors import ConvergenceError

Evaluated = tuple[Any, ...]
"""Electrons, energy and potential."""

SHARE_FOR_ORBITALS = 0.35
"""Share of ``max_memory_mb`` that values of the basis functions on the grid may take."""

START_GRID_LEVEL = 0
"""PySCF grid level of the cycles whose functional is corrected."""

FIRST_TOLERANCE = 1e-6
"""Convergence of the energy on the coarse grid before the first correction, Eh."""

CORRECTIONS = 8
"""Corrections after which the SCF goes on on its own grid."""

DOWNHILL = 3
"""Saddle points that are left, at most."""


def converge(mf: Any, level: LevelConfig, steps: list[str] | None = None) -> tuple[float, Array]:
    """Run the SCF and return the energy and the Fock matrix of the final density, that of a minimum.

    Where DIIS makes no progress :class:`helmol.dft.ladder.Ladder` goes on. Where a look is due
    (:func:`helmol.dft.stability.is_due`, and after every other rung than the first) a saddle point is left
    downhill. On a GPU there is DIIS alone, and no such look.

    Args:
        mf: PySCF's mean field, or gpu4pyscf's behind :class:`helmol.dft.gpu.GpuField`.
        level: its level of theory.
        steps: gets what was done where DIIS was not all: ``diis``, ``newton``, ``smearing``, ``swap``,
            ``downhill`` (from a saddle point), ``stable`` (found to be a minimum).

    Returns:
        Eh; ``[nao, nao]`` or ``[2, nao, nao]``, the mean field's order, Eh.

    Raises:
        ConvergenceError: the SCF broke down, needs more than ``max_cycle`` cycles, ends at a saddle point, or
            leaves an orbital empty that lies below an occupied one.
    """
    ladder = Ladder()
    try:
        if not isinstance(mf, hf.SCF):
            energy, fock = float(mf.kernel()), np.asarray(mf.get_fock())
        else:
            found = _on_two_grids(mf, level, ladder) if coarse_pays(mf) else None
            energy, fock = found or _on_one_grid(mf, level, ladder)
    except np.linalg.LinAlgError as error:
        raise ConvergenceError(f"the SCF broke down: {error}") from error
    if not mf.converged:
        raise ConvergenceError(
            f"the SCF did not converge to {level.conv_tol:.0e} Eh in {_said(mf, level)} "
            f"(energy {energy:.6f} Eh)"
        )
    if not np.isfinite(energy):
        raise ConvergenceError(f"the SCF energy is {energy}")
    if steps is not None and ladder.steps != ["diis"]:
        steps += ladder.steps
    return energy, fock


def _said(mf: Any, level: LevelConfig) -> str:
    """Return in words how many cycles were of no use."""
    cycles = getattr(mf, "cycles", None)
    return f"{level.max_cycle} cycles" if not cycles or cycles > level.max_cycle else f"{cycles} cycles"


def coarse_pays(mf: Any) -> bool:
    """Return whether the functional on the grid is what a cycle of this mean field costs.

    It is, where fitted integrals are in memory and there is a functional. Without fitting, labels stay to the
    last digits those of PySCF's own SCF, as published data sets have them.
    """
    fitted = isinstance(mf, hf.SCF) and hasattr(mf, "with_df") and mf.with_df._cderi is not None
    return fitted and mf._numint._xc_type(mf.xc) != "HF"


def _on_one_grid(mf: Any, level: LevelConfig, ladder: Ladder) -> tuple[float, Array]:
    """Converge a mean field on its own grid; return energy and Fock matrix of the final density."""
    ladder.solve(mf, mf.make_rdm1() if ladder.beyond_diis else None)
    for attempt in range(DOWNHILL + 1):
        check_holes(mf)
        fock = np.asarray(mf.get_fock())
        if not mf.converged or not (ladder.beyond_diis or is_due(mf)):
            break
        # The sign of a curvature needs neither a fine grid nor exact integrals.
        rough = on_grid(mf, START_GRID_LEVEL)
        rough._numint = KeptOrbitals(rough.grids, limit_mb=SHARE_FOR_ORBITALS * level.max_memory_mb)
        if not hasattr(rough, "with_df"):
            rough = rough.density_fit(auxbasis=auxiliary_basis(mf.mol, level))
            rough.direct_scf = False
        if _is_minimum(rough, fock, ladder, last=attempt == DOWNHILL):
            break
        ladder.newton(mf, rough.mo_coeff, mf.mo_occ, max_cycle=level.max_cycle)
    mf.cycles = ladder.cycles
    return float(mf.e_tot), fock


def _is_minimum(mf: Any, fock: Array, ladder: Ladder, *, last: bool) -> bool:
    """Return whether a mean field is at a minimum; else turn its orbitals downhill.

    Raises:
        ConvergenceError: it is at a saddle point, and this was the last look.
    """
    curvature, mode = lowest_mode(mf, fock)
    if curvature >= UNSTABLE:
        ladder.steps.append("stable")
        return True
    if last:
        raise ConvergenceError(
            f"the SCF ends at a saddle point: the energy curves down by {curvature:.4f} Eh along a "
            f"rotation of orbitals (energy {float(mf.e_tot):.6f} Eh)"
        )
    ladder.steps.append("downhill")
    mf.mo_coeff = turned(mf, mode)
    return False


def _on_two_grids(mf: Any, level: LevelConfig, ladder: Ladder) -> tuple[float, Array] | None:
    """Converge on the coarse grid plus a linear correction to the mean field's own, renewed until it stands.

    With ``E_f, V_f`` energy and potential of the functional on the mean field's grid and ``E_c, V_c`` on the
    coarse one, a round minimises the energy with ``E_c(D) + [E_f − E_c](D₀) + Tr [V_f − V_c](D₀) (D − D₀)``
    in the place of ``E_f(D)``, where D₀ is the density of the round before. A density that reproduces itself
    is one of the SCF on the mean field's grid: there the gradient of the energy is the same.
    C6H7NO2 at PBE/def2-SVP: 195,432 points, 14,096 of them in the coarse grid; gradients after each round
    0.03, 6e-5, 3e-6 Eh: three evaluations on the grid instead of fifteen.

    Returns:
        Energy and Fock matrix of the final density, ``None`` if this way does not lead there. The mean field
        gets orbitals, ``converged`` and ``cycles`` (those on the coarse grid).

    Raises:
        ConvergenceError: a saddle point, or a hole below the occupied orbitals.
    """
    coarse = on_grid(mf, START_GRID_LEVEL)
    corrected = CorrectedFunctional(coarse.grids, limit_mb=SHARE_FOR_ORBITALS * level.max_memory_mb)
    coarse._numint = corrected
    density, saddles = None, 0
    for step in range(CORRECTIONS + DOWNHILL):
        # The first density is only as good as the coarse grid, a later one may be the last.
        coarse.conv_tol = 0.1 * level.conv_tol if step else max(FIRST_TOLERANCE, level.conv_tol)
        coarse.conv_tol_grad = 0.1 * level.gradient_tolerance if step else coarse.conv_tol**0.5
        ladder.solve(coarse, density)
        if not coarse.converged:
            # What does not converge on the coarse grid does not on the other.
            _hand_over(coarse, mf, ladder)
            return (float(coarse.e_tot), np.empty(0)) if density is None else None
        check_holes(coarse, HOLE)
        density = coarse.make_rdm1()
        potential = mf.get_veff(dm=density)
        fock = np.asarray(mf.get_fock(vhf=potential, dm=density))
        energy = float(mf.energy_tot(density, vhf=potential))
        gradient = np.linalg.norm(mf.get_grad(coarse.mo_coeff, coarse.mo_occ, fock))
        if gradient <= level.gradient_tolerance and abs(energy - coarse.e_tot) <= max(
            level.conv_tol, ROUNDING * abs(energy)
        ):
            check_holes(coarse)
            due = ladder.beyond_diis or is_due(coarse)
            if not due or _is_minimum(coarse, fock, ladder, last=saddles == DOWNHILL):
                _hand_over(coarse, mf, ladder)
                mf.mo_energy = mf.eig(fock, mf.get_ovlp())[0]
                mf.e_tot = energy
                return energy, fock
            saddles += 1
        corrected.correct(density, potential, coarse.get_veff(dm=density))
    return None


def _hand_over(coarse: Any, mf: Any, ladder: Ladder) -> None:
    """Give a mean field the orbitals of the one on the coarse grid."""
    mf.mo_coeff, mf.mo_occ, mf.mo_energy = coarse.mo_coeff, coarse.mo_occ, coarse.mo_energy
    mf.e_tot, mf.converged, mf.cycles = coarse.e_tot, coarse.converged, ladder.cycles


def keep_orbitals(mf: Any, level: LevelConfig) -> None:
    """Let a mean field evaluate its basis functions on its grid once, if there is memory for the values.

    C5H5NO3 with fitted integrals, every cycle on its own grid: 20.1 CPU-s without, 15.7 with; the labels are
    the same to the last bit.
    """
    mf._numint = KeptOrbitals(mf.grids, limit_mb=SHARE_FOR_ORBITALS * level.max_memory_mb)


class KeptOrbitals(numint.NumInt):
    """PySCF's numerical integration, with the values of the basis functions on one grid kept.

    ``8 · 4 · n_points · n_ao`` bytes for a GGA; beyond the limit they are evaluated anew every time, as
    PySCF does. Other grids, and higher derivatives than the first ones asked for, are not kept.

    Args:
        grids: whose values are kept.
        limit_mb: what they may take, MB.
    """

    def __init__(self, grids: Any, *, limit_mb: float) -> None:
        super().__init__()
        self.grids, self.limit_mb = grids, limit_mb
        self._key: tuple[Any, ...] | None = None
        self._kept: list[tuple[Any, ...]] = []

    def block_loop(
        self,
        mol: Any,
        grids: Any,
        nao: int | None = None,
        deriv: int = 0,
        max_memory: float = 2000,
        **other: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Yield orbital values, mask, weights and coordinates, block by block (PySCF's interface)."""
        if grids.coords is None:
            grids.build(with_non0tab=True)
        n_values = (deriv + 1) * (deriv + 2) * (deriv + 3) // 6 * len(grids.coords) * int(mol.nao)
        mine = grids is self.grids and mol is grids.mol and not other and 8e-6 * n_values <= self.limit_mb
        if not mine or (self._key is not None and self._key[0] is grids.coords and self._key[1] != deriv):
            yield from super().block_loop(mol, grids, nao, deriv, max_memory, **other)
            return
        if self._key is None or self._key[0] is not grids.coords:
            # The buffer of a block is written over by the next one.
            blocks = super().block_loop(mol, grids, nao, deriv, max_memory)
            self._kept = [(orbitals.copy(order="K"), *rest) for orbitals, *rest in blocks]
            self._key = (grids.coords, deriv)
        yield from self._kept


class CorrectedFunctional(KeptOrbitals):
    """PySCF's numerical integration on one grid, with a term ``c + Tr(V D)`` added to the energy.

    Non-local correlation, which has a grid of its own, is left to that term.
    """

    _constant: float = 0.0
    _potential: Array | float = 0.0

    def correct(self, density: Any, exact: Any, mine: Any) -> None:
        """Change the term so that energy and potential become exact at a density.

        Args:
            density: ``[nao, nao]`` or ``[2, nao, nao]``.
            exact: the potential wanted, as PySCF's ``get_veff`` gives it, with the energy ``exc``.
            mine: the same, as it comes from this object.
        """
        change = np.asarray(exact) - np.asarray(mine)
        self._potential = self._potential + change
        self._constant += float(exact.exc - mine.exc) - float(np.sum(change * np.asarray(density)))

    def nr_rks(
        self, mol: Any, grids: Any, xc_code: str, dms: Any, *rest: Any, **other: Any
    ) -> tuple[Any, ...]:
        """Return electrons, energy and potential of a closed shell (PySCF's interface)."""
        return self._corrected(super().nr_rks(mol, grids, xc_code, dms, *rest, **other), dms)

    def nr_uks(
        self, mol: Any, grids: Any, xc_code: str, dms: Any, *rest: Any, **other: Any
    ) -> tuple[Any, ...]:
        """Return electrons, energy and potential of both spins (PySCF's interface)."""
        return self._corrected(super().nr_uks(mol, grids, xc_code, dms, *rest, **other), dms)

    def nr_nlc_vxc(self, *_: Any, **__: Any) -> tuple[float, float, float]:
        """Return nothing for non-local correlation (PySCF's interface)."""
        return 0.0, 0.0, 0.0

    def _corrected(self, found: tuple[Any, ...], dms: Any) -> tuple[Any, ...]:
        """Add the term to what the coarse grid gives."""
        electrons, energy, potential = found
        energy += self._constant + float(np.sum(self._potential * np.asarray(dms)))
        return electrons, energy, potential + self._potential
