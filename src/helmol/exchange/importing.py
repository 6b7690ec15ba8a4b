"""From a published file to a store."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from helmol import dft
from helmol.basis import BasisSet
from helmol.damage import understood
from helmol.errors import ConvergenceError, InputError, StoreError
from helmol.exchange.check import check_config, check_fock, check_overlaps
from helmol.exchange.labels import SMALLEST_FORCES, Meaning, understand
from helmol.exchange.readers import READERS, Arrangement, Entry, Reader, Source, read_sample, select
from helmol.places import PathLike
from helmol.progress import Progress
from helmol.repeats import in_one_call
from helmol.skipped import Skips
from helmol.store import Store
from helmol.system import LevelOfTheory, Sample

VALUES_PER_APPEND = 4_000_000
"""Matrix elements that are written together, 32 MB of them."""

SECONDS_BETWEEN_APPENDS = 5.0
"""What a kill can cost."""

MOST_LOOKED_AT = 100
"""Small molecules among which one with energy and forces is looked for."""

log = logging.getLogger("helmol.exchange")


@in_one_call()
def import_file(
    format: str,
    path: PathLike,
    *,
    out: PathLike,
    limit: int | None = None,
    elements: Collection[int] | None = None,
    max_atoms: int | None = None,
    split: str | None = None,
    n_checked: int = 5,
    strict: bool = False,
) -> dict[str, Any]:
    """Check a published file and bring it into a store, or go on where an earlier call was stopped.

    A row that is damaged or empty, of elements that the basis does not have, or whose SCF did not converge is
    left out.

    Args:
        format: key of :data:`helmol.exchange.readers.READERS`.
        path: the file.
        out: the store; made, or continued if it was begun with the same file.
        limit: molecules to read at most, the first of the file.
        elements: read only molecules of these atomic numbers.
        max_atoms: read only molecules of at most so many atoms.
        split: official split to write, ``None`` for the usual one if the whole file is there.
        n_checked: molecules whose overlap is recomputed.
        strict: whether the first row that would be left out is an error.

    Returns:
        ``n_selected``, ``n_stored``, ``n_new``, ``n_unconverged``, ``checks``, ``energies``,
        ``forces``, ``split``, ``splits`` (published and stored sizes), ``seconds``, ``level``,
        ``content_hash``, ``n_skipped`` and ``skipped`` (:class:`helmol.skipped.Skipped`).

    Raises:
        InputError: another format, not one row that can be read, or labels that are not what the format says.
        StoreError: ``out`` holds something else.
    """
    begin = time.perf_counter()
    path, out, skips = Path(path), Path(out), Skips(strict=strict)
    if format not in READERS:
        raise InputError(f"unknown format {format!r}: known are {', '.join(READERS)}")
    with READERS[format](path) as reader:
        if split is not None and split not in reader.schemes:
            raise InputError(f"{format} has no split {split!r}: it has {', '.join(reader.schemes)}")
        if split is not None:
            # Before hours of reading: does the file have this split?
            _official(reader, split, [])
        log.info("looking through %s", path)
        entries = select(reader, elements=elements, max_atoms=max_atoms, limit=limit, skips=skips)
        n_selected = len(entries) + len(skips.found)
        entries = _in_basis(reader, entries, skips)
        skips.refuse_nothing_left(len(entries), what="rows")
        if not entries:
            raise InputError(f"{path} holds no molecule that was asked for")
        arrangement, level = _expected(reader, entries)
        checks, meaning = _check(reader, entries, arrangement, n_checked)
        with _open(
            out, level, arrangement.basis, source=reader.file_name, ids={e.id for e in entries}
        ) as store:
            n_before = len(store)
            unconverged = _read(reader, entries, arrangement, meaning, store, skips)
            skips.refuse_nothing_left(len(store), what="rows")
            splits = _splits(reader, store, split)
            return {
                "store": out, "format": format, "level": level.label, "n_selected": n_selected,
                "n_stored": len(store), "n_new": len(store) - n_before, "n_unconverged": unconverged,
                "checks": checks, "energies": meaning.energy,
                "energy_difference_Eh": meaning.energy_difference, "forces": meaning.forces,
                **splits, "seconds": time.perf_counter() - begin, "content_hash": store.content_hash,
                **skips.json(),
            }  # fmt: skip


def _label_config(source: Source) -> dft.LevelConfig:
    """Return the level at which a format's labels were made."""
    return check_config(source).model_copy(update={"density_fit": False, "conv_tol": source.conv_tol})


def _in_basis(reader: Reader, entries: Sequence[Entry], skips: Skips) -> list[Entry]:
    """Return the molecules of elements for which the format's basis has functions."""
    source = reader.source
    lacking = dft.elements_without(
        _label_config(source), {int(n) for entry in entries for n in entry.numbers}
    )
    kept = []
    for entry in entries:
        if unknown := lacking.keys() & set(entry.numbers.tolist()):
            reason = f"read with the basis of {source.name}: {lacking[min(unknown)]}"
            skips.add(InputError(reason), item=entry.id, file=reader.path, row=entry.key)
        else:
            kept.append(entry)
    return kept


def _expected(reader: Reader, entries: Iterable[Entry]) -> tuple[Arrangement, LevelOfTheory]:
    """Return order and level of theory of a format's labels."""
    source = reader.source
    config = _label_config(source)
    numbers = sorted({int(n) for entry in entries for n in entry.numbers})
    basis = dft.basis_set(config, numbers)
    appended = {}
    if source.base is not None:
        appended = dft.appended_shells(numbers, basis=source.basis, base=source.base)
    level = replace(dft.level_of_theory(config), code=source.code)
    return Arrangement(basis, source.order, appended), level


def _check(
    reader: Reader, entries: Sequence[Entry], arrangement: Arrangement, n_checked: int
) -> tuple[dict[str, Any], Meaning]:
    """Recompute overlaps of some samples and the Fock matrix of the smallest one."""
    source, where = reader.source, str(reader.path)
    rows = np.unique(np.linspace(0, len(entries) - 1, max(n_checked, 1)).astype(int))
    drawn = _drawn(reader, [entries[row] for row in rows], arrangement)
    log.info("recomputing overlaps and one Fock matrix at %s/%s", source.xc, source.basis)
    overlap_error = check_overlaps(drawn, source, arrangement, where=where)
    sample = _telling(reader, entries, arrangement)
    error, built, forces = check_fock(
        sample, source, arrangement, where=where, forces=sample.forces is not None
    )
    checks = {
        "n_overlaps": sum(s.matrices.overlap is not None for s in drawn),
        "overlap_error": overlap_error,
        "fock_id": sample.id,
        "fock_error_Eh": error,
    }
    return checks, understand(sample, built.energy, forces, shifts=reader.energy_shifts())


def _drawn(reader: Reader, entries: Sequence[Entry], arrangement: Arrangement) -> list[Sample]:
    """Return those of some molecules that can be read.

    Raises:
        InputError: none can.
    """
    found: list[Sample] = []
    faults: list[InputError] = []
    for entry in entries:
        try:
            sample = read_sample(reader, entry, arrangement)
        except InputError as error:
            faults.append(error)
            continue
        if sample is not None:
            found.append(sample)
    if len(faults) == len(entries):
        raise faults[0]
    return found


def _telling(reader: Reader, entries: Sequence[Entry], arrangement: Arrangement) -> Sample:
    """Return a small converged closed-shell sample, with energy and forces if one of the smallest has them.

    Forces of nearly nothing do not tell their unit, so those of an atom or a relaxed molecule do not count.
    """
    size = {entry.id: int(arrangement.basis.offsets(entry.numbers)[-1]) for entry in entries}
    best: Sample | None = None
    fault: InputError | None = None
    for seen, entry in enumerate(sorted(entries, key=lambda entry: size[entry.id])):
        if best is not None and seen >= MOST_LOOKED_AT:
            break
        try:
            sample = read_sample(reader, entry, arrangement)
        except InputError as error:
            # The row is named when its turn comes.
            fault = fault or error
            continue
        if sample is None or sample.molecule.spin:
            continue
        if best is None or _n_telling(sample) > _n_telling(best):
            best = sample
        if _n_telling(best) == 2:
            break
    if best is None:
        nothing = f"{reader.path} holds no converged closed-shell molecule: nothing can be checked"
        raise InputError(nothing if fault is None else f"{nothing} ({fault})")
    return best


def _n_telling(sample: Sample) -> int:
    """Return of how many kinds of labels the meaning can be told."""
    forces = sample.forces is not None and float(np.linalg.norm(sample.forces)) > SMALLEST_FORCES
    return (sample.energy is not None) + forces


def _open(out: Path, level: LevelOfTheory, basis: BasisSet, *, source: str, ids: Collection[str]) -> Store:
    """Make the store, or open it and check that it was begun with this file."""
    if not out.exists():
        return Store.create(out, level=level, basis=basis)
    store = Store.open(out, "a")
    try:
        if store.level != level:
            raise StoreError(
                f"{out} is of another level than the file ({store.level.differences(level)}): "
                "choose another --out"
            )
        other = next((id for id in store.ids if id not in ids), None)
        begun = store.read(0, matrices=()).provenance.get("source") if len(store) else source
        if other is not None or begun != source:
            what = (
                f"{other!r}, which is not among the molecules asked for now" if other else f"data of {begun}"
            )
            raise StoreError(f"{out} holds {what}: choose another --out")
        store.extend_basis(basis)
    except BaseException:
        store.close()
        raise
    return store


def _read(
    reader: Reader,
    entries: Sequence[Entry],
    arrangement: Arrangement,
    meaning: Meaning,
    store: Store,
    skips: Skips,
) -> int:
    """Read what is missing into the store; return how many samples had not converged."""
    missing = [entry for entry in entries if entry.id not in store]
    if len(missing) < len(entries):
        log.info("%d of %d molecules are there already", len(entries) - len(missing), len(entries))
    waiting: list[Sample] = []
    unconverged, values, last = 0, 0, time.monotonic()
    lost: Counter[str] = Counter()
    with Progress("Import", total=len(missing), unit="molecules") as bar:
        try:
            for entry in missing:
                try:
                    sample = read_sample(reader, entry, arrangement)
                    if sample is None:
                        unconverged += 1
                        raise ConvergenceError("its SCF did not converge, the file says")
                    label = meaning.apply(sample)
                except (InputError, ConvergenceError) as error:
                    skips.add(error, item=entry.id, file=reader.path, row=entry.key)
                else:
                    lost.update(meaning.unexpected(sample))
                    waiting.append(label)
                    values += sample.matrices.fock.size
                if values > VALUES_PER_APPEND or time.monotonic() - last > SECONDS_BETWEEN_APPENDS:
                    store.append(waiting)
                    waiting, values, last = [], 0, time.monotonic()
                bar.advance(note=f"{len(skips.found)} skipped" if skips.found else "")
        finally:
            # Also before an error: what was read is good and need not be read again.
            store.append(waiting)
    for name, count in lost.items():
        log.warning("%s of %d molecules left out: the small ones that were looked at have none", name, count)
    return unconverged


def _official(reader: Reader, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
    """Return an official split; an error names the file."""
    try:
        with understood(f"split {scheme!r}"):
            return reader.splits(scheme, ids)
    except InputError as error:
        raise InputError(f"{reader.path}, split {scheme!r}: {error}") from error


def _splits(reader: Reader, store: Store, scheme: str | None) -> dict[str, Any]:
    """Write the official split, as far as its molecules are in the store."""
    if scheme is None and not reader.schemes:
        return {"split": None, "splits": {}}
    name = scheme or reader.schemes[0]
    try:
        official = _official(reader, name, store.ids)
    except InputError as error:
        if scheme is not None:
            raise
        log.warning("no official split: %s", error)
        return {"split": None, "splits": {}}
    kept = {part: [id for id in ids if id in store] for part, ids in official.items()}
    store.set_splits(kept)
    sizes = {part: {"published": len(ids), "stored": len(kept[part])} for part, ids in official.items()}
    return {"split": name, "splits": sizes}
