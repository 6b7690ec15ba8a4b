"""How fast every stage is on this machine, beside the least time its arithmetic could take.

The floor of a step is the number of multiplications and additions of the SO(2) convolutions, as the
plain formula counts them for both directions of every edge, at the rate that this machine reaches
in a large matrix product of the same precision. Tricks that save arithmetic may exceed 100 %.

Knows: the network, clocks, counters. Does not know: PySCF. The
rate of data is measured on a store, a made-up one or the user's.
"""

from helmol.bench.cases import CASES, Case, largest, untrained
from helmol.bench.data import data_rate, store_rate, usual_target
from helmol.bench.estimate import estimate
from helmol.bench.run import run

__all__ = [
    "CASES",
    "Case",
    "data_rate",
    "estimate",
    "largest",
    "run",
    "store_rate",
    "untrained",
    "usual_target",
]
