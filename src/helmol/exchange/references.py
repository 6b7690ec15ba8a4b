"""Cheap Fock matrices for samples that lack them or have outdated ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helmol import dft
from helmol.errors import InputError
from helmol.exchange.check import refuse_other_functions
from helmol.places import PathLike
from helmol.progress import Progress
from helmol.repeats import in_one_call
from helmol.shards import shard_of
from helmol.skipped import FAULTS, Skips
from helmol.store import Store
from helmol.store.unfinished import unfinished
from helmol.system import Sample, outdated_references
from helmol.system.references import MARK

SAMPLES_PER_APPEND = 16


@in_one_call()
def add_references(
    path: PathLike,
    names: Sequence[str],
    *,
    out: PathLike,
    strict: bool = False,
    shard: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Write a copy of a store whose samples have further cheap Fock matrices.

    PySCF computes with as many threads as it is given (``OMP_NUM_THREADS``). After a kill the same call
    goes on. A sample that is damaged, or of which PySCF makes no such matrix, is left out of the copy.

    Args:
        path: the store; it is left as it is.
        names: see :func:`helmol.dft.reference_fock`; what a sample has already is kept, unless it was made
            of a density that lacks electrons (:mod:`helmol.system.references`): then all such references of
            the sample are made anew.
        out: the new store.
        strict: whether the first sample that would be left out is an error.
        shard: ``(i, n)`` takes the i-th of n parts of the samples, i from 1 to n, for the jobs of an array,
            each with a store of its own; :func:`helmol.store.merge` makes one of them.

    Returns:
        ``n_molecules``, ``n_new`` (matrices computed in this call), ``n_renewed`` (of them those that replace
        an outdated one), ``references``, ``content_hash``, ``out``, ``n_skipped`` and ``skipped``
        (:class:`helmol.skipped.Skipped`).

    Raises:
        InputError: nothing to add, an unknown name, no such shard or nothing in it, a level or basis that
            PySCF cannot make, or not one sample to which anything could be added.
        StoreError: ``out`` is there.
    """
    if not names:
        raise InputError("nothing to add: name a reference, such as minao-lite")
    if unknown := [name for name in names if name not in dft.FOCK_BUILDS]:
        raise InputError(f"unknown reference {unknown[0]!r}: known are {', '.join(dft.FOCK_BUILDS)}")
    out, skips = Path(out), Skips(strict=strict)
    with Store.open(path) as store:
        level = dft.level_from(store.level)
        refuse_other_functions(store, level)
        order = hashlib.sha256("\n".join(store.ids).encode()).hexdigest()
        rows = shard_of(range(len(store)), shard)
        of = f"{store.content_hash} {order} {sorted(names)} {MARK} {shard or ''}".rstrip()
        n_new = n_renewed = 0
        with (
            unfinished(out, of=of, level=store.level, basis=store.basis) as target,
            Progress("References", total=len(rows), unit="molecules") as bar,
        ):
            bar.advance(len(target))
            waiting: list[Sample] = []
            for row in rows:
                if (id := store.ids[row]) in target:
                    continue
                try:
                    sample = store[row]
                    there = sample.matrices.references
                    old = outdated_references(there, sample.molecule.numbers, store.basis, sample.provenance)
                    missing = [*old, *(name for name in names if name not in there)]
                    waiting.append(_with_references(sample, missing, level))
                except FAULTS as error:
                    skips.add(error, item=id, file=path, row=row)
                else:
                    n_new, n_renewed = n_new + len(missing), n_renewed + len(old)
                if len(waiting) == SAMPLES_PER_APPEND:
                    target.append(waiting)
                    waiting = []
                bar.advance()
            target.append(waiting)
            skips.refuse_nothing_left(len(target))
            target.set_splits(
                {name: [id for id in ids if id in target] for name, ids in store.splits.items()}
            )
            return {
                "n_molecules": len(target), "n_new": n_new, "n_renewed": n_renewed,
                "references": list(target.references),
                "content_hash": target.content_hash, "out": out, **skips.json(),
            }  # fmt: skip


def _with_references(sample: Sample, names: Sequence[str], level: dft.LevelConfig) -> Sample:
    """Return a sample with further cheap Fock matrices."""
    if not names:
        return sample
    mole = dft.build_mole(sample.molecule, level)
    new = {name: dft.reference_fock(mole, level, name) for name in names}
    return replace(
        sample,
        matrices=replace(sample.matrices, references={**sample.matrices.references, **new}),
        provenance={**sample.provenance, **(MARK if mole.has_ecp() else {})},
    )
