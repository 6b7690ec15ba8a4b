"""Let a model of Fock matrices read energies from them: a new model folder, from some energy labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.errors import DomainError, InputError
from helmol.evaluate.energies import MEV, EnergyLabel, energy_errors, read_label
from helmol.places import PathLike
from helmol.predict.matrix_energy import WAYS, MatrixEnergy, Reading, Way, fit_matrix_energy
from helmol.predict.trained import TrainedModel
from helmol.progress import Progress
from helmol.skipped import FAULTS, Skips
from helmol.store import Store
from helmol.store.split import random_split


def learn_energies(
    model: PathLike,
    store: PathLike,
    *,
    out: PathLike,
    way: Way = "density",
    split: str | None = None,
    test: str | None = None,
    number: int | None = None,
    seed: int = 0,
    device: str = "auto",
    strict: bool = False,
) -> dict[str, Any]:
    """Fit :class:`helmol.predict.MatrixEnergy` to energies of a store and write the model with it.

    Molecules that cannot be used are left out, named and counted.

    Args:
        model: run, model folder or name; of Fock matrices, without a head of energies.
        store: with energies at the model's level; its Fock matrices are not read.
        out: new model folder, which every verb takes.
        way: ``density`` or ``matrix``.
        split: of the energies to learn; ``None``: ``train`` if there is one, else all but ``test``.
        test: split to predict and compare; ``None``: ``test`` if there is one.
        number: of energies, drawn from the split; ``None``: all.
        seed: of the draw.
        device: where the network runs.
        strict: whether the first molecule that cannot be used is an error.

    Returns:
        ``out``, ``way``, ``n_labels``, ``elements``, ``left_out_mae_meV``; ``test``: the table of
        :func:`helmol.evaluate.energies.energy_errors`, or ``None`` where nothing could be compared;
        ``n_skipped``, ``skipped``.

    Raises:
        InputError: no such split, too few energies, or a model whose energies cannot be read.
        DomainError: a store of another level.
    """
    from helmol.model import copy_model, find_model

    if way not in WAYS:
        raise InputError(f"way {way!r}: expected {' or '.join(WAYS)}")
    folder, out, skips = find_model(str(model)), Path(out), Skips(strict=strict)
    trained = TrainedModel.load(folder, device=device)
    if not trained.has_fock or "energy" in trained.model.heads:
        raise InputError("energies are read from models of Fock matrices without a head of energies")
    with Store.open(store) as data:
        trained.domain.check_data(data.level, data.basis.part(trained.domain.basis.elements))
        learnt, tested = _rows(data, split, test, number, seed)
        labels, readings = _read(trained, data, learnt, way, skips)
        skips.refuse_nothing_left(len(labels))
        fitted = fit_matrix_energy(
            readings, [label.energy for label in labels], way=way, model=trained.fingerprint
        )
        table = None if tested is None else _errors(trained, data, tested, fitted, skips)
    copy_model(folder, out)
    fitted.save(out)
    return {
        "out": str(out),
        "way": way,
        "n_labels": fitted.n_labels,
        "elements": list(fitted.elements),
        "left_out_mae_meV": MEV * fitted.left_out,
        "test": table,
        **skips.json(),
    }


def _rows(
    data: Store, split: str | None, test: str | None, number: int | None, seed: int
) -> tuple[list[int], list[int] | None]:
    """Return which rows are learnt and which are tested.

    Raises:
        InputError: no such split, or fewer molecules than are wanted.
    """
    for name in (split, test):
        if name not in (None, "all", *data.splits):
            raise InputError(f"{data.path} has no split {name!r}: it has {', '.join(data.splits) or 'none'}")
    test = test or ("test" if "test" in data.splits else None)
    tested = None if test is None else _of(data, test)
    if split is not None:
        learnt = _of(data, split)
    elif "train" in data.splits:
        learnt = data.indices("train")
    else:
        learnt = [row for row in range(len(data)) if row not in {*(tested or [])}]
    if both := {*learnt} & {*(tested or [])}:
        raise InputError(f"{len(both)} molecules would be both learnt and tested: choose --split and --test")
    if number is not None:
        if not 0 < number <= len(learnt):
            raise InputError(f"{number} energies wanted, {len(learnt)} can be drawn")
        drawn = random_split([data.ids[row] for row in learnt], sizes={"drawn": number}, seed=seed)["drawn"]
        learnt = sorted(data.row(id) for id in drawn)
    return learnt, tested


def _of(data: Store, split: str) -> list[int]:
    """Return the rows of a split, or all."""
    return list(range(len(data))) if split == "all" else data.indices(split)


def _read(
    trained: TrainedModel, data: Store, rows: Sequence[int], way: Way, skips: Skips
) -> tuple[list[EnergyLabel], list[Reading]]:
    """Return labels and readings of the molecules that can be used."""
    labels: list[EnergyLabel] = []
    readings: list[Reading] = []
    with Progress("Read energies", total=len(rows), unit="molecules") as bar:
        for row in rows:
            bar.advance()
            try:
                label = read_label(data, row)
                found = trained.readings([data.read(row)], way)[0]
                if not np.isfinite(found.energy):
                    raise DomainError("the energy of its predicted matrix is not finite")
            except FAULTS as error:
                skips.add(error, item=data.ids[row], file=data.path, row=row)
                continue
            labels.append(label)
            readings.append(found)
    return labels, readings


def _errors(
    trained: TrainedModel, data: Store, rows: Sequence[int], fitted: MatrixEnergy, skips: Skips
) -> dict[str, Any] | None:
    """Return the error table of a test split, ``None`` if not one of its molecules can be used."""
    known = []
    for row in rows:
        try:
            fitted.check(data.molecule(row))
            known.append(row)
        except DomainError as error:
            skips.add(error, item=data.ids[row], file=data.path, row=row)
    labels, readings = _read(trained, data, known, fitted.way, skips)
    if not labels:
        return None
    return energy_errors(labels, [(fitted.energy(reading), None) for reading in readings])
