"""What a scanner knows of the geometries before, from which the next SCF can start."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from helmol import dft
from helmol.errors import DomainError

MODEL, LAST, EXTRAPOLATED = "model", "last density", "extrapolated density"
"""Starts of a scanner."""

NEARLY_EXACT = 1e-6
"""Electrons that the first step moves from a start that no other one needs to be compared with."""

RENEWED = 10
"""Geometries of a scanner after which all its starts are looked at again."""


class Geometries:
    """What a scanner knows of the geometries before: orbitals, and how good each kind of start was.

    A build tells how good a start is. Each kind is looked at when it can be had first, when the one in use
    has become twice as bad, and every :data:`RENEWED` geometries.
    """

    def __init__(self) -> None:
        self._points: list[tuple[dft.Occupied, Any, Any]] = []
        self.moved: dict[str, float] = {}
        self._age = 0

    def add(self, mf: Any) -> None:
        """Take the orbitals with which an SCF has ended; what cannot be carried on ends the path."""
        if mf.mo_coeff is None or mf.mo_occ is None:
            return
        occupied = dft.split_spins(mf.mo_coeff, mf.mo_occ) if mf.converged else None
        if occupied is None:
            self._points.clear()
            return
        self._points = [*self._points[-1:], (occupied, mf.get_ovlp(), mf.mol.ao_loc)]

    def densities(self, mf: Any, mol: Any) -> dict[str, Any]:
        """Return the densities that follow from the geometries before."""
        found: dict[str, Any] = {}
        if not self._points or not np.array_equal(self._points[-1][2], mol.ao_loc):
            self._points.clear()
            return found
        overlap, (last, _, _) = mf.get_ovlp(mol), self._points[-1]
        with suppress(DomainError):
            found[LAST] = dft.density_of(mf, dft.carried(last, overlap))
            if len(self._points) > 1:
                before, overlap_before, _ = self._points[0]
                found[EXTRAPOLATED] = dft.density_of(
                    mf, dft.extrapolated(last, before, overlap_before, overlap)
                )
        return found

    def to_look_at(self, names: Sequence[str]) -> list[str]:
        """Return which of these kinds of start to look at, the one that was best first."""
        known = sorted((name for name in names if name in self.moved), key=self.moved.__getitem__)
        new = [name for name in names if name not in self.moved]
        self._age += 1
        if self._age > RENEWED:
            self._age = 0
            return known + new
        return known[:1] + new

    def is_worse(self, name: str, moved: float) -> bool:
        """Return whether a start has become much worse than it was, and is not nearly exact."""
        return name in self.moved and moved > max(2 * self.moved[name], NEARLY_EXACT)
