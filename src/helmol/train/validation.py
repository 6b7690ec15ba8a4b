"""Validation: the same errors as ``helmol evaluate``, of the averaged weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from helmol.evaluate import ErrorTable
from helmol.model import HamiltonianModel, predict_fock
from helmol.store import Store

AT_A_TIME = 64
"""Molecules in memory at once."""


class Validation:
    """Compute the error table of a network on the validation molecules of a store.

    Args:
        store: where the labels are.
        ids: the validation molecules.
    """

    def __init__(self, store: Store, ids: Sequence[str]) -> None:
        place = {identity: k for k, identity in enumerate(store.ids)}
        self._store, self._places = store, [place[identity] for identity in ids]

    def __call__(self, network: HamiltonianModel) -> dict[str, Any]:
        """Return the scalar keys of :func:`helmol.evaluate.errors` and ``seconds``."""
        start = time.perf_counter()
        table = ErrorTable(self._store.basis)
        for k in range(0, len(self._places), AT_A_TIME):
            samples = [self._store[place] for place in self._places[k : k + AT_A_TIME]]
            molecules = [sample.molecule for sample in samples]
            references = [sample.matrices.references for sample in samples]
            for sample, fock in zip(samples, predict_fock(network, molecules, references), strict=True):
                table.add(sample, {"model": fock})
        summary = table.summary("model")
        scalars = {
            key: value for key, value in summary.items() if value is None or isinstance(value, (int, float))
        }
        return {**scalars, "seconds": time.perf_counter() - start}
