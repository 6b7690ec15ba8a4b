"""Evaluate a model on a store and leave the table and its plots in a folder."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helmol.errors import InputError
from helmol.evaluate import report
from helmol.evaluate.baselines import made_baseline, spread
from helmol.evaluate.energies import EnergyLabel, energy_table, predict_labels, read_label
from helmol.evaluate.from_fock import energies_from_fock
from helmol.evaluate.network import evaluate_model, predictions
from helmol.evaluate.precision import precision_table
from helmol.evaluate.published import comparable, set_name
from helmol.evaluate.remarks import remarks
from helmol.inputs import STORE_SUFFIXES
from helmol.places import PathLike, Places, files_at
from helmol.repeats import in_one_call
from helmol.skipped import FAULTS, Skips
from helmol.store import Stores
from helmol.system import Sample

if TYPE_CHECKING:
    from helmol.model import Model

MOLECULES_PLOTTED = 30

log = logging.getLogger("helmol.evaluate")


@in_one_call()
def evaluate_store(
    model: Model,
    path: Places,
    *,
    split: str | None = None,
    seen: Collection[str] = (),
    out: PathLike,
    max_edges: int = 20000,
    energy_from_h: int = 0,
    precisions: int = 0,
    strict: bool = False,
) -> dict[str, Any]:
    """Return the error table of a model on one split of a store; write it, a report and plots to ``out``.

    A model with a Hamiltonian head gets the keys of :func:`evaluate_model`, one with an energy head those of
    :func:`helmol.evaluate.energies.energy_table`, one with both heads all of them, or those of the one kind
    of label that the molecules have.

    A molecule outside the model's domain, a damaged one, or one without the labels that others have is left
    out of the table, named and counted.

    Args:
        model: the model.
        path: the store, or several (folders and patterns too), whose molecules make one table.
        split: name of a split, or ``"all"``; by default ``"test"``, and in a store without one all
            molecules that are not in ``seen`` (reported as ``"unseen"``).
        seen: ids that the model was trained or chosen on.
        out: folder for ``evaluation.json``, ``report.md`` and the plots; those of before are removed.
        max_edges: atom pairs per batch.
        energy_from_h: of how many molecules to evaluate the energy that the predicted Fock matrix implies
            (:mod:`helmol.evaluate.from_fock`); each costs as much as one SCF cycle.
        precisions: on how many molecules to compare the precisions of matrix products, under ``precisions``
            (:func:`helmol.evaluate.precision.precision_table`).
        strict: whether the first molecule that cannot be evaluated is an error.

    Returns:
        These keys, ``target``, ``parameters``, ``store``, ``split``; ``set``: the published test set that the
        molecules are, or ``None``; ``published``: what others reached there
        (:mod:`helmol.evaluate.published`); ``remarks``: what should be said aloud, in sentences;
        ``n_skipped`` and ``skipped`` (:class:`helmol.skipped.Skipped`).

    Raises:
        InputError: the store has no such split, or it is empty; no molecule has labels to compare with.
        DomainError: the store's functional, dispersion (of energies) or basis is not the model's, or no
            molecule is in its domain.
    """
    if "fock" not in model.heads and (energy_from_h or precisions):
        raise InputError("energies from Fock matrices and precisions need a model with a Hamiltonian head")
    out, skips = Path(out), Skips(strict=strict)
    with Stores(files_at(path, suffixes=STORE_SUFFIXES, what="stores with labels")) as stores:
        split = split or ("test" if stores.have_split("test") else "unseen")
        _check_data(model, stores)
        chosen = _in_domain(model, stores, stores.indices(split, seen=seen), skips)
        with_fock, with_energy = _what_to_compare(model, stores, chosen, skips)
        labelled = stores.has("energy")
        if energy_from_h and not any(labelled[i] for i in with_fock):
            raise InputError(f"no molecule of {stores.names} has an energy to compare with")
        report.clear(out)
        result: dict[str, Any] = {"baselines": {}, "missing": {}}
        compared: set[int] = set()
        notes: list[str] = []
        if with_fock:
            samples = _Samples(model, stores, skips)
            table = evaluate_model(
                model, samples.of(with_fock), total=len(with_fock), level=stores.level, max_edges=max_edges
            )
            skips.refuse_nothing_left(len(samples.read))
            if not table["baselines"]:
                table["baselines"], note = made_baseline(
                    samples.some(spread(samples.read)), model.domain.basis, stores.level,
                    store=stores.names, total=len(samples.read),
                )  # fmt: skip
                notes.append(note)
            _merge(result, table)
            plotted = samples.some(samples.read[:MOLECULES_PLOTTED])
            _plot(model, plotted, table, out=out, max_edges=max_edges)
            if energy_from_h:
                some = samples.some([i for i in samples.read if labelled[i]][:energy_from_h])
                _merge(result, _from_fock(model, some, stores, max_edges=max_edges))
            if precisions:
                some = samples.some(samples.read[:precisions])
                result["precisions"] = precision_table(model, some, max_edges=max_edges)
            compared.update(samples.read)
        elif "fock" in model.heads:
            result["missing"]["h_mae_uEh"] = "the molecules have no Fock matrices"
        if with_energy:
            labels = _labels(model, stores, with_energy, skips)
            skips.refuse_nothing_left(len(labels))
            _merge(result, _energies(model, list(labels.values()), out=out, max_edges=max_edges))
            compared.update(labels)
        elif "energy" in model.heads:
            result["missing"]["energy_mae_meV"] = "the molecules have no energies"
        result |= {"n_molecules": len(compared), **skips.json()}
        result |= {"target": model.domain.target, "parameters": model.n_parameters}
        result |= {"store": stores.names, "split": split, "set": _set_name(stores, split, chosen, skips)}
        result |= {"published": comparable(result["set"], xc=stores.level.xc, basis=stores.level.basis)}
        result |= {"remarks": [*remarks(result), *notes]}
        report.write(out, result)
    return result


def _check_data(model: Model, stores: Stores) -> None:
    """Refuse stores of another level or basis; elements of other molecules do not matter."""
    domain = model.domain
    for store in stores.stores:
        basis = store.basis.part(domain.basis.elements)
        domain.check_data(store.level, basis, energies="energy" in model.heads)


def _set_name(stores: Stores, split: str, chosen: Sequence[int], skips: Skips) -> str | None:
    """Return the name of the published test set that the molecules are, all of them."""
    if len(stores.stores) > 1 or skips.found:
        return None
    return set_name(stores.stores[0], split, chosen)


def _in_domain(model: Model, stores: Stores, indices: Sequence[int], skips: Skips) -> list[int]:
    """Return the molecules that the model has learnt.

    Raises:
        DomainError: there is none.
    """
    kept = []
    for index in indices:
        try:
            model.domain.check(stores.molecule(index))
            kept.append(index)
        except FAULTS as error:
            _skip(skips, stores, index, error)
    skips.refuse_nothing_left(len(kept))
    return kept


def _skip(skips: Skips, stores: Stores, index: int, error: BaseException) -> None:
    """Leave a molecule out."""
    store, row = stores.place(index)
    skips.add(error, item=store.id(row), file=store.path, row=row)


def _what_to_compare(
    model: Model, stores: Stores, chosen: Sequence[int], skips: Skips
) -> tuple[list[int], list[int]]:
    """Return the molecules with Fock matrices and those with energies, known before anything is computed.

    A molecule that lacks what others have is named; it may still be compared in what it has.

    Raises:
        InputError: no molecule has anything to compare with.
    """
    columns = {"fock": "a Fock matrix", "energy": "an energy"}
    found: dict[str, list[int]] = {"fock": [], "energy": []}
    for name in (name for name in columns if name in model.heads):
        there = stores.has(name)
        found[name] = [index for index in chosen if there[index]]
    if not any(found.values()):
        what = " or ".join(text for name, text in columns.items() if name in model.heads)
        raise InputError(f"no molecule of {stores.names} has {what} to compare with")
    for name, what in columns.items():
        if found[name]:
            for index in sorted({*chosen} - {*found[name]}):
                _skip(skips, stores, index, InputError(f"it lacks {what} to compare with"))
    return found["fock"], found["energy"]


class _Samples:
    """Read samples, remember which of them are whole, and read some of these again.

    Attributes:
        read: what could be read.
    """

    def __init__(self, model: Model, stores: Stores, skips: Skips) -> None:
        self._needed, self._stores, self._skips = model.needed_references, stores, skips
        self.read: list[int] = []

    def of(self, indices: Sequence[int]) -> Iterator[Sample]:
        """Yield the samples that are whole."""
        for index in indices:
            try:
                sample = self._stores[index]
                if missing := [name for name in self._needed if name not in sample.matrices.known]:
                    raise InputError(
                        f"it has no {missing[0]!r} matrix, from which the model starts: 'helmol references' "
                        "adds it"
                    )
            except FAULTS as error:
                _skip(self._skips, self._stores, index, error)
                continue
            self.read.append(index)
            yield sample

    def some(self, indices: Sequence[int]) -> list[Sample]:
        """Return samples that have been read before."""
        return [self._stores[index] for index in indices]


def _labels(model: Model, stores: Stores, indices: Sequence[int], skips: Skips) -> dict[int, EnergyLabel]:
    """Return the energies that can be read, of molecules whose energies the model has learnt."""
    found = {}
    for index in indices:
        store, row = stores.place(index)
        try:
            label = read_label(store, row)
            model.energy_target.check(label.molecule)
            found[index] = label
        except FAULTS as error:
            _skip(skips, stores, index, error)
    return found


def _merge(result: dict[str, Any], table: dict[str, Any]) -> None:
    """Add a table to another; baselines and reasons of the same name are joined."""
    for name, part in table["baselines"].items():
        result["baselines"].setdefault(name, {}).update(part)
    result["missing"].update(table.get("missing", {}))
    own = ("baselines", "missing", "n_molecules")
    result.update({key: value for key, value in table.items() if key not in own})


def _from_fock(model: Model, some: Sequence[Sample], stores: Stores, *, max_edges: int) -> dict[str, Any]:
    """Compare the energies that predicted and cheap Fock matrices imply."""
    samples, matrices, _ = zip(*predictions(model, some, max_edges=max_edges), strict=True)
    references = [sample.matrices.references for sample in samples]
    common = set.intersection(*({*names} for names in references))
    tables = energies_from_fock(
        samples,
        {"model": matrices, **{name: [r[name] for r in references] for name in sorted(common)}},
        stores.level,
    )
    return {**tables.pop("model"), "baselines": tables}


def _energies(model: Model, labels: Sequence[EnergyLabel], *, out: Path, max_edges: int) -> dict[str, Any]:
    """Compare energies and forces with their labels and draw them."""
    from helmol.evaluate import plots

    predicted = predict_labels(model, labels, max_edges=max_edges)
    alone = [model.energy_target.energy_of(label.molecule) for label in labels]
    table = energy_table(model, labels, predicted)
    plots.energies(labels, predicted, alone, out / "energies.png", errors=table)
    return table


def _plot(
    model: Model,
    some: Sequence[Sample],
    result: dict[str, Any],
    *,
    out: Path,
    max_edges: int,
) -> None:
    """Draw parity and levels for a few molecules, and where the error sits for all."""
    from helmol.evaluate import plots

    basis = model.domain.basis
    samples, matrices, _ = zip(*predictions(model, some, max_edges=max_edges), strict=True)
    plots.parity(samples, matrices, basis, out / "parity.png", errors=result)
    plots.shell_pairs(result["by_shell_pair"], out / "shell_pairs.png")
    plots.elements(result["by_element"], out / "elements.png")
    if result["by_distance"]:
        tables = {"model": result, **result["baselines"]}
        far = {name: table["by_distance"] for name, table in tables.items() if table.get("by_distance")}
        plots.distances(far, out / "distances.png")
    sample = samples[0]
    if sample.matrices.overlap is not None:
        plots.levels(
            sample,
            matrices[0],
            out / "levels.png",
            basis=basis,
            overlap=sample.matrices.overlap,
            baseline=next((name for name in result["baselines"] if name in sample.matrices.references), None),
        )
