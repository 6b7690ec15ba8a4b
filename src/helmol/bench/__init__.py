"""How fast every stage is on this machine, beside the least time its arithmetic could take.

The floor of a step is the number of multiplications and additions of the SO(2) convolutions, as the
plain formula counts them for both directions of every edge, at the rate that this machine reaches
in a large matrix product of the same precision. Tricks that save arithmetic may exceed 100 %.

Knows: the stages of a model, clocks, counters; made-up molecules, and from :mod:`helmol.dft` their basis
sets. Does not know: labels, training runs. The rate of data is measured on a store, a made-up one or the
user's; what a molecule needs (``helmol estimate``) follows from a probe of the same model.
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
