"""Training: from a store and a configuration to a run folder with a model in it, and to tables of many runs.

Knows: the split, batches, optimizers, the loop, checkpoints, the run folder, sweeps. Does not know:
PySCF, how a model is built inside, how errors are defined (validation is :mod:`helmol.evaluate`).

A step-based run (``schedule.max_steps``) resumes bit-exactly on the same machine, number of threads and
torch: parameters, averages, optimizers, data order and random state are all in ``checkpoints/last``. With
``schedule.max_minutes`` the schedule follows the clock, so a resumed run is sound but not bit-identical.
"""

from helmol.train.config import TrainConfig
from helmol.train.launch import run
from helmol.train.plan import read_config
from helmol.train.updates import combined

__all__ = ["TrainConfig", "combined", "read_config", "run"]
