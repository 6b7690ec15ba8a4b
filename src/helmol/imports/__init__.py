"""Bring published data sets into a store, after checking that they are what they say.

Knows: what to recompute with PySCF so that a wrong orbital order, unit or functional cannot pass, and
how to name the likely cause. Does not know: the formats themselves (:mod:`helmol.store.readers`).
"""

from helmol.imports.check import check_fock, check_overlaps
from helmol.imports.run import run

__all__ = ["check_fock", "check_overlaps", "run"]
