"""Validation: the same errors as ``helmol evaluate``, of the averaged weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from helmol.evaluate import ErrorTable, evaluate_energies
from helmol.evaluate.energies import energy_table, predict_labels, read_label
from helmol.evaluate.network import predictions
from helmol.model import Model
from helmol.store import Store
from helmol.train.ranks import ALONE, Ranks, collected, spread


class EnergyValidation:
    """Compute the errors of energies and forces of a model on the validation molecules of a store.

    Args:
        store: where the labels are.
        ids: the validation molecules.
        ranks: processes that share them.
    """

    def __init__(self, store: Store, ids: Sequence[str], ranks: Ranks = ALONE) -> None:
        self._labels = [read_label(store, store.row(identity)) for identity in ids]
        self._ranks = ranks

    def __call__(self, model: Model) -> dict[str, Any]:
        """Return the scalar keys of :func:`helmol.evaluate.energies.energy_errors` and ``seconds``."""
        start = time.perf_counter()
        own = predict_labels(model, spread(self._labels, self._ranks), among=self._labels)
        predicted = collected(self._ranks.gather(own))
        table = scalars(energy_table(model, self._labels, predicted))
        return {**table, "seconds": time.perf_counter() - start}


class Together:
    """Join the tables of several validations; ``seconds`` are added."""

    def __init__(self, *parts: Callable[[Model], dict[str, Any]]) -> None:
        self._parts = parts

    def __call__(self, model: Model) -> dict[str, Any]:
        """Return one table."""
        tables = [part(model) for part in self._parts]
        joined = {key: value for table in tables for key, value in table.items()}
        return {**joined, "seconds": sum(table["seconds"] for table in tables)}


def scalars(table: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of an error table, and what is missing as ``None``."""
    return {key: value for key, value in table.items() if value is None or isinstance(value, (int, float))}


class Validation:
    """Compute the error table of a model on the validation molecules of a store.

    Args:
        store: where the labels are.
        ids: the validation molecules.
        ranks: processes that share them.
    """

    def __init__(self, store: Store, ids: Sequence[str], ranks: Ranks = ALONE) -> None:
        place = {identity: k for k, identity in enumerate(store.ids)}
        self._store, self._ranks = store, ranks
        self._places = spread([place[identity] for identity in ids], ranks)

    def __call__(self, model: Model) -> dict[str, Any]:
        """Return the scalar keys of :func:`helmol.evaluate.errors` and ``seconds``."""
        start = time.perf_counter()
        table = ErrorTable(self._store.basis)
        for one in predictions(model, (self._store[place] for place in self._places)):
            table.add(one.sample, {"model": one.fock})
        whole = ErrorTable.joined(self._ranks.gather(table))
        return {**scalars(whole.summary("model")), "seconds": time.perf_counter() - start}


def fock_baselines(store: Store, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return by name the numbers of :class:`Validation` of cheap Fock matrices that all molecules have."""
    table, common = ErrorTable(store.basis), set(store.references)
    for identity in ids if common else ():
        sample = store[store.row(identity)]
        common &= sample.matrices.references.keys()
        table.add(sample, {name: sample.matrices.references[name] for name in sorted(common)})
    return {name: scalars(table.summary(name)) for name in sorted(common)}


def energy_baselines(model: Model, store: Store, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return by name the numbers of :class:`EnergyValidation` of what the composition alone explains."""
    tables = evaluate_energies(model, [read_label(store, store.row(identity)) for identity in ids])
    return {name: scalars(table) for name, table in tables["baselines"].items()}
