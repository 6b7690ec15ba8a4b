"""Carry data into stores and out of them: foreign files, conversions, cheap Fock matrices, splits.

Knows: the foreign formats (:mod:`helmol.exchange.readers`), what to recompute with PySCF so that a wrong
orbital order, unit or functional cannot pass, and how to name the likely cause. Does not know: torch,
networks.
"""

from helmol.exchange.check import check_fock, check_overlaps
from helmol.exchange.converting import export_store, import_store
from helmol.exchange.energies import import_energies, named_level
from helmol.exchange.importing import import_file
from helmol.exchange.references import add_references
from helmol.exchange.splitting import parse_sizes, split_store

__all__ = [
    "add_references",
    "check_fock",
    "check_overlaps",
    "export_store",
    "import_energies",
    "import_file",
    "import_store",
    "named_level",
    "parse_sizes",
    "split_store",
]
