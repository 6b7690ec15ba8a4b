"""A mean field on a coarse grid with fitted integrals, for what needs no more: curvatures, responses."""

from __future__ import annotations

from typing import Any

from helmol.dft.field import auxiliary_basis, on_grid
from helmol.dft.kept import SHARE_FOR_ORBITALS, KeptOrbitals
from helmol.dft.level import LevelConfig
from helmol.dft.two_grids import START_GRID_LEVEL


def on_coarse_grid(mf: Any, level: LevelConfig) -> Any:
    """Return a mean field of the same molecule whose potentials change with the density at a low price.

    Args:
        mf: mean field of a level.
        level: it.
    """
    coarse = on_grid(mf, START_GRID_LEVEL)
    coarse._numint = KeptOrbitals(coarse.grids, limit_mb=SHARE_FOR_ORBITALS * level.max_memory_mb)
    if not hasattr(coarse, "with_df"):
        coarse = coarse.density_fit(auxbasis=auxiliary_basis(mf.mol, level))
        coarse.direct_scf = False
    return coarse
