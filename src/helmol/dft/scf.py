"""The SCF of labels: to a minimum, by what ladder it takes, cheaply where the grid is what costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from pyscf.scf import hf

from helmol.arrays import Array
from helmol.dft.coarse import on_coarse_grid
from helmol.dft.kept import SHARE_FOR_ORBITALS, KeptOrbitals
from helmol.dft.ladder import HOLE, Ladder, check_holes
from helmol.dft.level import LevelConfig
from helmol.dft.stability import UNSTABLE, is_due, lowest_mode, turned
from helmol.dft.two_grids import TwoGrids
from helmol.errors import ConvergenceError

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
        rough = on_coarse_grid(mf, level)
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
    """Converge most of the way on a coarse grid (:class:`helmol.dft.two_grids.TwoGrids`).

    Returns:
        Energy and Fock matrix of the final density, ``None`` if this way does not lead there. The mean field
        gets orbitals, ``converged`` and ``cycles`` (those on the coarse grid).

    Raises:
        ConvergenceError: a saddle point, or a hole below the occupied orbitals.
    """
    grids = TwoGrids(mf, max_memory=level.max_memory_mb)
    coarse, saddles = grids.coarse, 0
    tolerance = level.conv_tol, level.gradient_tolerance
    for found in grids.rounds(ladder.solve, None, conv_tol=tolerance[0], conv_tol_grad=tolerance[1]):
        check_holes(coarse, HOLE)
        if not found.converged(*tolerance):
            continue
        check_holes(coarse)
        if not (ladder.beyond_diis or is_due(coarse)) or _is_minimum(
            coarse, found.fock, ladder, last=saddles == DOWNHILL
        ):
            mf.mo_coeff, mf.mo_energy, mf.mo_occ = found.mo_coeff, found.mo_energy, found.mo_occ
            mf.e_tot, mf.converged, mf.cycles = found.energy, True, ladder.cycles
            return found.energy, found.fock
        saddles += 1
    if coarse.converged or grids.evaluations:
        return None
    # What does not converge on the coarse grid does not on the other.
    mf.e_tot, mf.converged, mf.cycles = coarse.e_tot, False, ladder.cycles
    return float(coarse.e_tot), np.empty(0)


def keep_orbitals(mf: Any, level: LevelConfig) -> None:
    """Let a mean field evaluate its basis functions on its grid once, if there is memory for the values.

    C5H5NO3 with fitted integrals, every cycle on its own grid: 20.1 CPU-s without, 15.7 with; the labels are
    the same to 1e-12 Eh.
    """
    mf._numint = KeptOrbitals(mf.grids, limit_mb=SHARE_FOR_ORBITALS * level.max_memory_mb)
