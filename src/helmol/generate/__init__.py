"""Label many structures: processes or a cluster fill a store, and any of them may be killed.

Knows: where structures come from, executors, what is done and what failed. Does not know: how a
label is made (``dft``) or kept (``store``). The parent process alone writes, so that the store
never sees two writers.

Beside ``OUT.h5`` lie ``OUT.h5.spec.json`` (what was asked for; a rerun must ask for the same),
``OUT.h5.structures.extxyz`` (geometries of dynamics and normal modes), ``OUT.h5.failed.jsonl`` (id and
reason of each molecule that has no label), ``OUT.h5.card.md`` and ``OUT.h5.splits.json``.
"""

from helmol.generate.cluster import ExecutorConfig
from helmol.generate.run import run
from helmol.generate.sources import (
    ComplexesSource,
    DimersSource,
    MdSource,
    ModesSource,
    SmilesSource,
    StructuresConfig,
)
from helmol.generate.spec import GenerateConfig, read_spec

__all__ = [
    "ComplexesSource",
    "DimersSource",
    "ExecutorConfig",
    "GenerateConfig",
    "MdSource",
    "ModesSource",
    "SmilesSource",
    "StructuresConfig",
    "read_spec",
    "run",
]
