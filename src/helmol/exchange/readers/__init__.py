"""Read published sets of Fock matrices, one file per format, row by row.

Knows: each format's schema, units, orbital order and official splits. Does not know: PySCF, torch,
or whether a file says the truth; :mod:`helmol.exchange.check` recomputes what it can.

A reader never holds more than one row's matrices. What a file lacks is ``None`` in the samples.
"""

from helmol.exchange.readers.arrangement import ARRANGEMENTS, Arrangement
from helmol.exchange.readers.entry import Entry, Reader, Source, read_sample, select
from helmol.exchange.readers.md17 import Md17Reader
from helmol.exchange.readers.nabladft import NablaDftReader
from helmol.exchange.readers.omol_csh import OmolCshReader
from helmol.exchange.readers.qh9 import Qh9DynamicReader, Qh9StableReader

READERS: dict[str, type[Reader]] = {
    "md17": Md17Reader,
    "qh9-stable": Qh9StableReader,
    "qh9-dynamic": Qh9DynamicReader,
    "nabladft": NablaDftReader,
    "omol-csh": OmolCshReader,
}
"""Readers by the name of their format."""

__all__ = [
    "ARRANGEMENTS",
    "READERS",
    "Arrangement",
    "Entry",
    "Reader",
    "Source",
    "read_sample",
    "select",
]
