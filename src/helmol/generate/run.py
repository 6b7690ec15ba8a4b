"""From a spec to a store of labelled molecules."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helmol import dft, structures
from helmol.basis import BasisSet
from helmol.errors import ConvergenceError, InputError, StoreError
from helmol.files import beside
from helmol.generate.cluster import cluster_outcomes, started
from helmol.generate.plans import Work, elements, spin
from helmol.generate.pool import outcomes
from helmol.generate.records import SPEC, Records, begun_references, check_spec
from helmol.generate.sources import Sources, refuse_equal_ids, with_files
from helmol.generate.spec import GenerateConfig, identity
from helmol.generate.worker import Outcome, Task
from helmol.locks import Claim
from helmol.places import PathLike
from helmol.progress import Progress
from helmol.repeats import in_one_call
from helmol.shards import check_shard, part_of
from helmol.skipped import Skips
from helmol.store import Store, random_split
from helmol.store.card import remove_beside, write_beside
from helmol.structures import Structure
from helmol.system import LevelOfTheory

SHARE_OF_MEMORY = 0.8
"""Share of the machine's memory that workers may use together."""

log = logging.getLogger("helmol.generate")


@in_one_call()
def run(
    config: GenerateConfig,
    *,
    out: PathLike,
    workers: int | None = None,
    seed: int | None = None,
    progress: bool = True,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """Label all structures of a spec, or those still missing after an interruption.

    A structure that cannot be read, is of elements or of a spin that the level is not for, or whose SCF does
    not converge is left out. At the end the data card and the splits are written beside the store.

    Args:
        config: what to generate.
        out: the store (``.h5``); made, or continued if it was begun with the same spec.
        workers: processes, each with one thread; default one per core, one in all with a GPU.
        seed: overrides ``config.seed``.
        progress: whether to show how far the dynamics is.
        retry_failed: whether to try molecules again that failed before.
        shard: ``(i, n)`` takes the i-th of n parts, i from 1 to n, for the jobs of an array, each with a
            store of its own; splits are drawn after merging, not here.
        strict: whether the first structure that would be left out is an error.

    Returns:
        ``n_structures``, ``n_labelled`` and ``n_failed`` in all, ``n_new`` of this call,
        ``failures`` (id, formula, reason), ``splits`` (sizes), ``seconds``, ``cpu_seconds``,
        ``molecules_per_core_hour`` (``None`` if nothing was left to do), ``content_hash``, ``level``,
        ``n_skipped`` and ``skipped`` (:class:`helmol.skipped.Skipped`; failures are among them).

    Raises:
        InputError: no usable structure, a bad level (before any work), or a store of another spec.
        BusyError, StoreError: another process generates into ``out``.
        ConvergenceError: not one molecule could be labelled.
        OSError: the disk is full; what was written stays readable.
    """
    begin = time.perf_counter()
    workers = _default_workers(config) if workers is None else workers
    if workers < 1:
        raise InputError(f"{workers} workers: at least one is needed")
    check_shard(shard)
    seed = config.seed if seed is None else seed
    out, skips = Path(out), Skips(strict=strict)
    config = config.model_copy(update={"structures": with_files(config.structures)})
    sources = Sources(config.structures, seed=seed, skips=skips)
    if "references" not in config.model_fields_set:
        # The default of the helmol that began it, which may have been another.
        config = config.model_copy(update={"references": begun_references(out, config.references)})
    config, level, basis = _check(config, sources, skips)
    with contextlib.ExitStack() as held:
        # The name of the spec, before anything is compared with it; the store holds its own.
        held.enter_context(Claim(beside(out, SPEC)))
        check_spec(out, identity(config, seed=seed))
        todo = part_of(_works(sources, out, progress=progress), shard)
        store = held.enter_context(_open(out, level, basis))
        records = held.enter_context(Records(store, out, retry_failed=retry_failed))
        missing = [work for work in todo if work.id not in store and work.id not in records.failed]
        if len(missing) < len(todo):
            log.info("%d of %d structures are done already", len(todo) - len(missing), len(todo))
        if missing:
            remove_beside(out)
        n_before = len(store)
        for entry in records.failed.values():
            _skip_failed(sources, entry)
        cpu_seconds = _label(missing, config, records, workers, sources)
        if len(store) == 0 and records.failed:
            first = next(iter(records.failed.values()))
            raise ConvergenceError(
                f"none of {len(todo)} molecules could be labelled; {first['id']}: {first['reason']} "
                f"(all reasons in {beside(out, '.failed.jsonl')})"
            )
        splits = _split(store, {} if shard else config.splits, seed)
        write_beside(store)
        return {
            "store": out, "level": level.label, "n_structures": len(todo), "n_labelled": len(store),
            "n_failed": len(records.failed), "n_new": len(store) - n_before,
            "failures": list(records.failed.values()), "splits": splits, "workers": workers,
            "seconds": time.perf_counter() - begin, "cpu_seconds": cpu_seconds,
            "molecules_per_core_hour": 3600 * (len(store) - n_before) / cpu_seconds if cpu_seconds else None,
            "content_hash": store.content_hash, **skips.json(),
        }  # fmt: skip


def _memory_mb(config: GenerateConfig, workers: int) -> float | None:
    """Return what one worker may use, MB, or ``None`` if that is not known."""
    if config.memory_per_worker_mb is not None:
        return float(config.memory_per_worker_mb)
    if config.executor.kind != "processes" or not hasattr(os, "sysconf"):
        return None
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    return SHARE_OF_MEMORY * physical / workers


def _default_workers(config: GenerateConfig) -> int:
    """Return the number of processes: one per core, or one that has the GPU for itself."""
    on_gpu = config.engine != "cpu" and config.executor.kind == "processes" and dft.gpu_obstacle() is None
    return 1 if on_gpu else _cores()


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check(
    config: GenerateConfig, sources: Sources, skips: Skips
) -> tuple[GenerateConfig, LevelOfTheory, BasisSet]:
    """Leave out before any work what could not be labelled; fix the method for the whole store."""
    if config.engine == "gpu" and config.executor.kind == "processes" and (why := dft.gpu_obstacle()):
        raise InputError(f"engine 'gpu': {why}")
    dft.level_of_theory(config.level, method="rks")  # a functional that is unknown is nobody's fault
    _leave_out(config, sources)
    known = (*sources.fixed, *sources.starts)
    # "uks" comes last: one open shell makes the whole store unrestricted.
    method = max(dft.method_for(config.level, two_s) for two_s in {spin(work) for work in known})
    config = config.model_copy(update={"level": config.level.model_copy(update={"method": method})})
    numbers = set().union(*map(elements, known))
    basis = dft.basis_set(config.level, numbers)
    level = dft.level_of_theory(
        config.level, method=method, auxbasis=dft.auxiliary_name(config.level, numbers)
    )
    shares = list(config.splits.values())
    n_structures = sources.n_structures + len(skips.found)
    wanted, there = sum(shares), n_structures if isinstance(sum(shares), int) else 1.0
    if wanted > there + 1e-9:
        raise InputError(f"the splits ask for {wanted} in all, there are {there} structures")
    return config, level, basis


def _leave_out(config: GenerateConfig, sources: Sources) -> None:
    """Leave out what the level of theory is not for.

    Raises:
        InputError: nothing is left.
    """
    numbers = set().union(*map(elements, (*sources.fixed, *sources.starts)))
    lacking = dft.elements_without(config.level, numbers)
    if "sap" in config.references:
        there = (
            dft.basis_set(config.level, numbers - lacking.keys()).elements if numbers - lacking.keys() else {}
        )
        why = "the reference 'sap' has no potentials for elements with an ECP: use 'minao'"
        lacking |= {number: why for number, entry in there.items() if entry.core_electrons}

    def reason(work: Work) -> str | None:
        if unknown := lacking.keys() & elements(work):
            return lacking[min(unknown)]
        try:
            dft.method_for(config.level, spin(work))
        except InputError as error:
            return str(error)
        return None

    sources.leave_out(reason)


def _skip_failed(sources: Sources, entry: Mapping[str, Any]) -> None:
    """Leave out what could not be labelled."""
    sources.skip(str(entry["id"]), ConvergenceError(str(entry["reason"])))


def _works(sources: Sources, out: Path, *, progress: bool) -> list[Work]:
    """Return what is to be labelled; sampled structures are kept beside the store and read from there."""
    path = beside(out, ".structures.extxyz")
    sampled: list[Structure] = []
    if sources.starts:
        if not path.exists():
            structures.write(path, sources.sampled(progress=progress))
        # Always what the file says, so that a rerun labels the same geometries to the last bit.
        sampled = structures.read(path)
        sources.skip_unsampled(sampled)
    # Frames of dynamics are called NAME-00000, as those of a file with several are.
    refuse_equal_ids([*sources.fixed, *sampled])
    works = sources.chosen([*sources.fixed, *sampled])
    if not works:
        most = sources.config.max_atoms
        raise InputError(f"no structure is left: all have more than max_atoms = {most} atoms")
    return works


def _open(out: Path, level: LevelOfTheory, basis: BasisSet) -> Store:
    """Make the store, or open it and check that it is of this level."""
    if not out.exists():
        return Store.create(out, level=level, basis=basis)
    store = Store.open(out, "a")
    if store.level.auxbasis is None:
        # Of before auxiliary bases were written down; the spec has not changed.
        level = replace(level, auxbasis=None)
    if store.level != level or store.basis.elements != basis.elements:
        store.close()
        what = store.level.differences(level) or store.basis.difference(basis)
        what = what or f"the store lacks elements: {basis.difference(store.basis)}"
        raise StoreError(f"{out} is of another level than asked for ({what}): choose another --out")
    return store


def _label(
    missing: Sequence[Work], config: GenerateConfig, records: Records, workers: int, sources: Sources
) -> float:
    """Label what is missing and return the CPU seconds it took."""
    seconds, failed, done = 0.0, 0, 0
    if not missing:
        return seconds
    with (
        Progress("Labels", total=len(missing), unit="molecules") as bar,
        _stream(missing, config, workers) as stream,
    ):
        for outcome in stream:
            if outcome is not None:
                records.add(outcome)
                if outcome.sample is None:
                    _skip_failed(sources, records.failed[outcome.work.id])
                for text in outcome.warned:
                    log.warning("%s", text)
                seconds += outcome.seconds
                failed, done = failed + (outcome.sample is None), done + 1
                rate = f"{3600 * (done - failed) / seconds:.0f} per core-hour" if seconds else ""
                bar.advance(note=f"{rate}, {failed} failed" if failed else rate)
            records.flush()
    records.flush(force=True)
    return seconds


@contextlib.contextmanager
def _stream(
    missing: Sequence[Work], config: GenerateConfig, workers: int
) -> Iterator[Iterator[Outcome | None]]:
    """Provide the outcomes of the executor that the spec names; it ends with the block."""
    task = Task(
        config.level, config.forces, config.references, config.density, config.dipole,
        _memory_mb(config, workers), config.engine,
        None if config.minutes_per_molecule is None else 60 * config.minutes_per_molecule,
    )  # fmt: skip
    if config.executor.kind == "processes":
        with contextlib.closing(outcomes(missing, task, workers=workers)) as stream:
            yield stream
        return
    attempts = config.executor.attempts
    with (
        started(config.executor, workers=workers) as workforce,
        contextlib.closing(cluster_outcomes(missing, task, workforce, attempts=attempts)) as stream,
    ):
        yield stream


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
