"""What about an electronic state somebody should look at, in words; the thresholds stand here alone."""

from __future__ import annotations

import numpy as np

SMALL_GAP = 0.01
"""Gap in Eh below which a second state of nearly the same energy is likely (0.27 eV)."""

FAR_SHARE = 0.01
"""Share of the electrons that the first SCF step may move before a density counts as far from the end: less
than that of PySCF's minao guess."""


def gap_flag(gap: float | None) -> str | None:
    """Return what is odd about a gap (Eh), ``None`` if nothing is or there is none (NaN)."""
    if gap is None or np.isnan(gap) or gap >= SMALL_GAP:
        return None
    return f"{'negative' if gap < 0 else 'small'} gap of {gap:.4f} Eh: another state may lie lower"


def density_flag(moved: float | None, n_electrons: float) -> str | None:
    """Return what is odd about a density whose first SCF step moves so many of its electrons.

    Args:
        moved: see :func:`helmol.properties.electrons_moved`; ``None`` if that was not computed.
        n_electrons: of all of them.
    """
    if moved is None or moved <= FAR_SHARE * n_electrons:
        return None
    share = f" ({moved / n_electrons:.1%})" if n_electrons else ""
    return f"density far from its first SCF step: that moves {moved:.2g} of {n_electrons:g} electrons{share}"
