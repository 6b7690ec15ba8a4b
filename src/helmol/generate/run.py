"""From a spec to a store of labelled molecules."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from helmol import dft, structures
from helmol.basis import BasisSet
from helmol.errors import ConvergenceError, InputError, StoreError
from helmol.generate.pool import outcomes
from helmol.generate.records import Records, beside, check_spec
from helmol.generate.spec import GenerateConfig, identity
from helmol.generate.worker import Task
from helmol.progress import Progress
from helmol.store import Store, random_split
from helmol.structures import Structure
from helmol.system import LevelOfTheory

log = logging.getLogger("helmol.generate")


@dataclass(frozen=True)
class _Sources:
    """Hold what the files of a spec hold: structures to label, start geometries, the sum to come."""

    given: tuple[Structure, ...]
    starts: tuple[Structure, ...]
    n_structures: int


def run(
    config: GenerateConfig,
    *,
    out: Path,
    workers: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    retry_failed: bool = False,
) -> dict[str, Any]:
    """Label all structures of a spec, or those still missing after an interruption.

    Args:
        config: what to generate.
        out: the store (``.h5``); made, or continued if it was begun with the same spec.
        workers: processes, each with one thread; default one per core.
        seed: overrides ``config.seed``.
        progress: whether to show how far the dynamics is.
        retry_failed: whether to try molecules again that failed before.

    Returns:
        ``n_structures``, ``n_labelled`` and ``n_failed`` in all, ``n_new`` of this call,
        ``failures`` (id, formula, reason), ``splits`` (sizes), ``seconds``, ``cpu_seconds``,
        ``molecules_per_core_hour`` (``None`` if nothing was left to do), ``content_hash``, ``level``.

    Raises:
        InputError: bad structures, elements or level (before any work), or a store of another spec.
        ConvergenceError: not one molecule could be labelled.
        OSError: the disk is full; what was written stays readable.
    """
    begin = time.perf_counter()
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise InputError(f"{workers} workers: at least one is needed")
    seed = config.seed if seed is None else seed
    sources = _read_sources(config)
    config, level, basis = _check(config, sources)
    check_spec(out, identity(config, seed=seed))
    todo = _structures(config, sources, out, seed=seed, progress=progress)
    task = Task(config.level, config.forces, config.references, config.density)
    with _open(out, level, basis) as store, Records(store, out, retry_failed=retry_failed) as records:
        missing = [s for s in todo if s.id not in store and s.id not in records.failed]
        if len(missing) < len(todo):
            log.info("%d of %d structures are done already", len(todo) - len(missing), len(todo))
        n_before = len(store)
        cpu_seconds = _label(missing, task, records, workers)
        if len(store) == 0:
            first = next(iter(records.failed.values()))
            raise ConvergenceError(
                f"none of {len(todo)} molecules could be labelled; {first['id']}: {first['reason']} "
                f"(all reasons in {beside(out, '.failed.jsonl')})"
            )
        splits = _split(store, config.splits, seed)
        return {
            "store": out, "level": level.label, "n_structures": len(todo), "n_labelled": len(store),
            "n_failed": len(records.failed), "n_new": len(store) - n_before,
            "failures": list(records.failed.values()), "splits": splits, "workers": workers,
            "seconds": time.perf_counter() - begin, "cpu_seconds": cpu_seconds,
            "molecules_per_core_hour": 3600 * len(missing) / cpu_seconds if cpu_seconds else None,
            "content_hash": store.content_hash,
        }  # fmt: skip


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read_sources(config: GenerateConfig) -> _Sources:
    """Read the structure files and the start geometries of dynamics."""
    sources = config.structures
    given = tuple(structure for file in sources.files for structure in structures.read(file))
    starts = tuple(structures.read(sources.md.start)) if sources.md else ()
    if not given + starts:
        raise InputError("the spec names no structures: give structures.files or structures.md")
    ids = [structure.id for structure in given + starts]
    if twice := sorted({id for id in ids if ids.count(id) > 1}) if len(set(ids)) < len(ids) else []:
        raise InputError(f"two structures are called {twice[0]!r}: give the files different names")
    return _Sources(given, starts, len(given) + (len(starts) * sources.md.n_frames if sources.md else 0))


def _check(config: GenerateConfig, sources: _Sources) -> tuple[GenerateConfig, LevelOfTheory, BasisSet]:
    """Refuse before any work what could not be labelled; fix the method for the whole store."""
    molecules = {structure.id: structure.molecule for structure in sources.given + sources.starts}
    # "uks" comes last: one open shell makes the whole store unrestricted.
    method = max(dft.method_for(config.level, molecule.spin) for molecule in molecules.values())
    config = config.model_copy(update={"level": config.level.model_copy(update={"method": method})})
    level = dft.level_of_theory(config.level, method=method)
    basis = dft.basis_set(config.level, {int(n) for m in molecules.values() for n in m.numbers})
    if "sap" in config.references and any(e.core_electrons for e in basis.elements.values()):
        raise InputError("the reference 'sap' has no potentials for elements with an ECP: use 'minao'")
    shares = list(config.splits.values())
    wanted, there = sum(shares), sources.n_structures if isinstance(sum(shares), int) else 1.0
    if wanted > there + 1e-9:
        raise InputError(f"the splits ask for {wanted} in all, there are {there} structures")
    return config, level, basis


def _structures(
    config: GenerateConfig, sources: _Sources, out: Path, *, seed: int, progress: bool
) -> list[Structure]:
    """Return all structures; sampled ones are kept beside the store and read back from there."""
    source, path = config.structures.md, beside(out, ".structures.extxyz")
    if source is None:
        return list(sources.given)
    if not path.exists():
        sampled = [
            frame
            for k, s in enumerate(sources.starts)
            for frame in structures.md(s.molecule, source, seed=seed + k, name=s.id, progress=progress)
        ]
        structures.write(path, sampled)
    # Always what the file says, so that a rerun labels the same geometries to the last bit.
    origin = {"source": "md", "surface": "GFN2-xTB", "temperature_k": source.temperature_k, "seed": seed}
    return [
        *sources.given,
        *(replace(s, provenance={**s.provenance, **origin}) for s in structures.read(path)),
    ]


def _open(out: Path, level: LevelOfTheory, basis: BasisSet) -> Store:
    """Make the store, or open it and check that it is of this level."""
    if not out.exists():
        return Store.create(out, level=level, basis=basis)
    store = Store.open(out, "a")
    if store.level != level or store.basis.elements != basis.elements:
        store.close()
        raise StoreError(
            f"{out} holds {store.level.label} made with {store.level.code}, now asked for {level.label} "
            f"with {level.code}: choose another --out"
        )
    return store


def _label(missing: Sequence[Structure], task: Task, records: Records, workers: int) -> float:
    """Label what is missing and return the CPU seconds it took."""
    seconds, failed = 0.0, 0
    if not missing:
        return seconds
    with (
        Progress("Labels", total=len(missing), unit="molecules") as bar,
        contextlib.closing(outcomes(missing, task, workers=workers)) as stream,
    ):
        for outcome in stream:
            if outcome is not None:
                records.add(outcome)
                seconds += outcome.seconds
                failed += outcome.sample is None
                bar.advance(note=f"{failed} failed" if failed else "")
            records.flush()
    records.flush(force=True)
    return seconds


def _split(store: Store, shares: dict[str, int | float], seed: int) -> dict[str, int]:
    """Draw the splits and return their sizes."""
    if not shares:
        return {name: len(ids) for name, ids in store.splits.items()}
    if all(isinstance(share, int) for share in shares.values()):
        sizes = {name: int(share) for name, share in shares.items()}
        if (lacking := sum(sizes.values()) - len(store)) > 0:
            largest = max(sizes, key=lambda name: sizes[name])
            log.warning("%d molecules failed: split %r gets that many fewer", lacking, largest)
            sizes[largest] = max(0, sizes[largest] - lacking)
        splits = random_split(store.ids, sizes=sizes, seed=seed)
    else:
        splits = random_split(store.ids, fractions=dict(shares), seed=seed)
    if splits != store.splits:
        store.set_splits(splits)
    return {name: len(ids) for name, ids in splits.items()}
