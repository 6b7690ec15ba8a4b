"""Structures that take for ever to make, or all memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from helmol.generate.plans import Plan
from helmol.structures import Structure
from helmol.system import Molecule

H2 = Molecule.from_angstrom([1, 1], [[0, 0, 0], [0, 0, 0.74]])


@dataclass(frozen=True)
class Stuck(Plan):
    """Behave as a library that never returns (``sleep``), does not even listen (``hang``), or takes all."""

    how: str = "sleep"

    def make(self) -> Structure:
        """Return hydrogen, some time."""
        if self.how == "sleep":
            time.sleep(600)
        if self.how == "hang":
            hang()
        if self.how == "memory":
            np.ones(int(4e9), dtype=np.uint8)
        return Structure(self.id, H2, {})


def hang() -> None:
    """Compute for hours without a look at signals, as a library can."""
    sum(range(10**14))
