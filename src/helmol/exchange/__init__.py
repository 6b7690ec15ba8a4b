"""Carry data into stores and out of them, complete them with cheap Fock matrices, and divide them.

Knows: what to recompute with PySCF so that a wrong orbital order, unit or functional cannot pass, how to
name the likely cause, and the containers that it writes itself. Does not know: the formats of published
files (:mod:`helmol.exchange.readers`), models.
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
