"""The whole path on one molecule, from nothing to a faster SCF, with a report.

Knows: the order of the stages, their sizes, the time that there is, the bars a good run clears. Does not
know: how any stage works; each is a few calls of other rooms, and leaves files that the verbs of the
command line read.
"""

from helmol.demo.config import DemoConfig
from helmol.demo.run import run

__all__ = ["DemoConfig", "run"]
