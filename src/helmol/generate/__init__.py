"""Label many structures on one machine: a pool of processes fills a store, and may be killed.

Knows: where structures come from, the pool, what is done and what failed. Does not know: how a
label is made (``dft``) or kept (``store``). The parent process alone writes, so that the store
never sees two writers.

Beside ``OUT.h5`` lie ``OUT.h5.spec.json`` (what was asked for; a rerun must ask for the same),
``OUT.h5.structures.extxyz`` (sampled geometries) and ``OUT.h5.failed.jsonl`` (id and reason of
each molecule that has no label).
"""

from helmol.generate.run import run
from helmol.generate.spec import GenerateConfig, MdSource, StructuresConfig, read_spec

__all__ = ["GenerateConfig", "MdSource", "StructuresConfig", "read_spec", "run"]
