"""Evaluate a model on a store and leave the table and its plots in a folder."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helmol.errors import DomainError, InputError
from helmol.evaluate import report
from helmol.evaluate.baselines import made_baseline, spread
from helmol.evaluate.energies import energy_table, predict_labels, read_label
from helmol.evaluate.from_fock import energies_from_fock
from helmol.evaluate.network import evaluate_model
from helmol.evaluate.precision import precision_table
from helmol.evaluate.published import comparable, set_name
from helmol.evaluate.remarks import remarks
from helmol.store import Store

if TYPE_CHECKING:
    from helmol.model import Model

MOLECULES_PLOTTED = 30

log = logging.getLogger("helmol.evaluate")


def evaluate_store(
    network: Model,
    path: Path,
    *,
    split: str | None = None,
    seen: Collection[str] = (),
    out: Path,
    max_edges: int = 20000,
    energy_from_h: int = 0,
    precisions: int = 0,
) -> dict[str, Any]:
    """Return the error table of a network on one split of a store; write it, a report and plots to ``out``.

    A model with a Hamiltonian head gets the keys of :func:`evaluate_model`, one with an energy head those of
    :func:`helmol.evaluate.energies.energy_table`, one with both heads all of them, or those of the one kind
    of label that the molecules have.

    Args:
        network: the model.
        path: the store.
        split: name of a split, or ``"all"``; by default ``"test"``, and in a store without one all
            molecules that are not in ``seen`` (reported as ``"unseen"``).
        seen: ids that the model was trained or chosen on.
        out: folder for ``evaluation.json``, ``report.md`` and the plots; those of before are removed.
        max_edges: atom pairs per batch.
        energy_from_h: of how many molecules to evaluate the energy that the predicted Fock matrix implies
            (:mod:`helmol.evaluate.from_fock`); each costs as much as one SCF cycle.
        precisions: on how many molecules to compare the precisions of matrix products, under ``precisions``
            (:func:`helmol.evaluate.precision.precision_table`).

    Returns:
        These keys, ``target``, ``parameters``, ``store``, ``split``; ``set``: the published test set that the
        molecules are, or ``None``; ``published``: what others reached there
        (:mod:`helmol.evaluate.published`); ``remarks``: what should be said aloud, in sentences.

    Raises:
        InputError: the store has no such split, or it is empty; molecules without labels to compare with.
        DomainError: the store's functional, dispersion (of energies) or basis is not the model's, or a
            molecule is outside its domain.
    """
    if "fock" not in network.heads and (energy_from_h or precisions):
        raise InputError("energies from Fock matrices and precisions need a model with a Hamiltonian head")
    with Store.open(path) as store:
        split = split or ("test" if "test" in store.splits else "unseen")
        chosen = split_indices(store, split, seen=seen)
        _check(network, store, chosen)
        fock, energy = _what_to_compare(network, store, chosen)
        result: dict[str, Any] = {"n_molecules": len(chosen), "baselines": {}, "missing": {}}
        if energy_from_h:
            _all_labelled(store, chosen[:energy_from_h], "energy", "energy")
        report.clear(out)
        notes: list[str] = []
        if fock:
            table = evaluate_model(
                network, (store[i] for i in chosen), total=len(chosen), level=store.level, max_edges=max_edges
            )
            if not table["baselines"]:
                some = [store[i] for i in spread(chosen)]
                table["baselines"], note = made_baseline(
                    some, network.domain.basis, store.level, store=path, total=len(chosen)
                )
                notes.append(note)
            _merge(result, table)
            _plot(network, store, chosen[:MOLECULES_PLOTTED], table, out=out, max_edges=max_edges)
            if energy_from_h:
                _merge(result, _from_fock(network, store, chosen[:energy_from_h], max_edges=max_edges))
            if precisions:
                some = [store[i] for i in chosen[:precisions]]
                result["precisions"] = precision_table(network, some, max_edges=max_edges)
        elif "fock" in network.heads:
            result["missing"]["h_mae_uEh"] = "the molecules have no Fock matrices"
        if energy:
            _merge(result, _energies(network, store, chosen, out=out, max_edges=max_edges))
        elif "energy" in network.heads:
            result["missing"]["energy_mae_meV"] = "the molecules have no energies"
        result |= {"target": network.domain.target, "parameters": network.n_parameters}
        result |= {"store": str(path), "split": split, "set": set_name(store, split, chosen)}
        result |= {"published": comparable(result["set"], xc=store.level.xc, basis=store.level.basis)}
        result |= {"remarks": [*remarks(result), *notes]}
        report.write(out, result)
    return result


def _check(network: Model, store: Store, indices: Sequence[int]) -> None:
    """Refuse a store of another level or basis, and molecules that the model has not learnt, by name.

    Elements that only other molecules of the store have do not matter.
    """
    domain = network.domain
    energies = "energy" in network.heads
    domain.check_data(store.level, store.basis.part(domain.basis.elements), energies=energies)
    for index in indices:
        molecule = store.molecule(index)
        try:
            domain.check(molecule)
        except DomainError as error:
            raise DomainError(f"{store.ids[index]} ({molecule.formula}): {error}") from error


def _what_to_compare(network: Model, store: Store, chosen: Sequence[int]) -> tuple[bool, bool]:
    """Return whether Fock matrices and whether energies are compared, known before anything is computed.

    Raises:
        InputError: a molecule lacks a label that is needed, or that others have.
    """
    columns = {"fock": "Fock matrix", "energy": "energy"}
    asked = [name for name in columns if name in network.heads]
    there = [name for name in asked if store.has(name)[chosen].any()] or asked
    for name in there:
        _all_labelled(store, chosen, name, columns[name])
    return "fock" in there, "energy" in there


def _all_labelled(store: Store, chosen: Sequence[int], column: str, what: str) -> None:
    """Raise InputError if a molecule lacks a label; the first is named."""
    there = store.has(column)
    if without := [i for i in chosen if not there[i]]:
        raise InputError(
            f"sample {store.ids[without[0]]!r} of {store.path} has no {what} to compare with "
            f"({len(without)} of {len(chosen)} lack it)"
        )


def _merge(result: dict[str, Any], table: dict[str, Any]) -> None:
    """Add a table to another; baselines and reasons of the same name are joined."""
    for name, part in table["baselines"].items():
        result["baselines"].setdefault(name, {}).update(part)
    result["missing"].update(table.get("missing", {}))
    result.update({key: value for key, value in table.items() if key not in ("baselines", "missing")})


def _from_fock(network: Model, store: Store, indices: Sequence[int], *, max_edges: int) -> dict[str, Any]:
    """Compare the energies that predicted and reference Fock matrices imply."""
    from helmol.model import predict_fock

    samples = [store[i] for i in indices]
    references = [sample.matrices.references for sample in samples]
    known = [sample.matrices.known for sample in samples]
    matrices = predict_fock(network, [s.molecule for s in samples], known, max_edges=max_edges)
    common = set.intersection(*({*names} for names in references))
    tables = energies_from_fock(
        samples,
        {"model": matrices, **{name: [r[name] for r in references] for name in sorted(common)}},
        store.level,
    )
    return {**tables.pop("model"), "baselines": tables}


def _energies(
    network: Model, store: Store, indices: Sequence[int], *, out: Path, max_edges: int
) -> dict[str, Any]:
    """Compare energies and forces with their labels and draw them."""
    from helmol.evaluate import plots

    labels = [read_label(store, i) for i in indices]
    predicted = predict_labels(network, labels, max_edges=max_edges)
    alone = [network.energy_target.energy_of(label.molecule) for label in labels]
    table = energy_table(network, labels, predicted)
    plots.energies(labels, predicted, alone, out / "energies.png", errors=table)
    return table


def split_indices(store: Store, split: str, *, seen: Collection[str] = ()) -> list[int]:
    """Return the positions of a split's samples.

    Raises:
        InputError: no such split, or nothing in it.
    """
    if split == "unseen" and split not in store.splits:
        indices = [i for i, id in enumerate(store.ids) if id not in seen]
        if not indices:
            raise InputError(
                f"the model was trained or chosen on all {len(store)} molecules of the store, which has "
                "no split 'test': --split all measures the errors on those"
            )
        return indices
    if split != "all" and split not in store.splits:
        have = ", ".join(store.splits) or "none"
        raise InputError(f"the store has no split {split!r} (it has {have}): use --split all or one of these")
    indices = list(range(len(store))) if split == "all" else [int(i) for i in store.indices(split)]
    if not indices:
        raise InputError(f"split {split!r} of the store is empty")
    return indices


def _plot(
    network: Model,
    store: Store,
    indices: Sequence[int],
    result: dict[str, Any],
    *,
    out: Path,
    max_edges: int,
) -> None:
    """Draw parity, levels and errors by shell pair for a few molecules."""
    from helmol.evaluate import plots
    from helmol.model import predict_fock

    samples = [store[i] for i in indices]
    predicted = predict_fock(
        network, [s.molecule for s in samples], [s.matrices.known for s in samples], max_edges=max_edges
    )
    plots.parity(samples, predicted, store.basis, out / "parity.png", errors=result)
    plots.shell_pairs(result["by_shell_pair"], out / "shell_pairs.png")
    sample = samples[0]
    if sample.matrices.overlap is not None:
        plots.levels(
            sample,
            predicted[0],
            out / "levels.png",
            basis=store.basis,
            overlap=sample.matrices.overlap,
            baseline=next((name for name in result["baselines"] if name in sample.matrices.references), None),
        )
