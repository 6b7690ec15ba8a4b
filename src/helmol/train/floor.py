"""Choose the floor of the overlap below which a finished model's predictions are damped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from helmol.basis import BasisSet
from helmol.evaluate import METRICS, ErrorTable
from helmol.evaluate.network import predictions
from helmol.files import write_json
from helmol.model import Model, load_model
from helmol.store import Store
from helmol.system import Sample
from helmol.target import damped, reference_matrix, reference_name
from helmol.train.folder import RECORD
from helmol.train.ranks import ALONE, Ranks
from helmol.train.state import replace_model

FLOORS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""What is tried."""
LARGEST_LOSS = 1.02
"""The error of F may become so many times larger at most."""
SMALLEST_GAIN = 0.95
"""The error of the density must become so many times smaller at least."""
N_MOLECULES = 64
"""Validation molecules that are looked at when a run is finished."""
FEW = 8
"""Validation molecules that are looked at before each validation."""
WORK = 5e9
"""No more molecules are looked at once the cubes of their numbers of orbitals add up to this (minutes)."""
log = logging.getLogger("helmol.train")


def best_floor(model: Model, samples: Sequence[Sample], basis: BasisSet) -> dict[str, Any]:
    """Return the floor with the smallest error of the density on some molecules.

    Args:
        model: with a Hamiltonian head; its own floor does not matter.
        samples: labelled molecules with overlap and H₀.
        basis: of their elements.

    Returns:
        ``floor``, ``n_molecules`` and, before and after (lists of two), ``h_mae_uEh``, ``eps_occ_mae_uEh``,
        ``density_error_per_electron``; only ``floor`` (0) where there are no molecules or no H₀.
    """
    if reference_name(model.domain.target) is None or not samples:
        return {"floor": 0.0}
    target = model.fock_target
    before = float(target.overlap_floor)
    target.overlap_floor.zero_()
    try:
        predicted = list(predictions(model, samples))
    finally:
        target.overlap_floor.fill_(before)
    table = ErrorTable(basis)
    for sample, fock, _ in predicted:
        start = reference_matrix(sample.matrices.references, model.domain.target)
        overlap = sample.matrices.known["overlap"]
        table.add(sample, {str(s): start + damped(fock - start, overlap, s) for s in FLOORS})
    found = _best({floor: table.summary(str(floor)) for floor in FLOORS})
    return {**found, "n_molecules": len(samples)}


class FloorChoice:
    """Give the averaged model of a run, before each validation, a floor chosen on a few molecules.

    So what is validated, logged and saved is one and the same model.

    Args:
        store: where the validation molecules are.
        ids: of the validation molecules.
        n_molecules: how many of them are looked at.
        ranks: processes with the same model; the first looks.
    """

    def __init__(
        self, store: Store, ids: Sequence[str], *, n_molecules: int = FEW, ranks: Ranks = ALONE
    ) -> None:
        self._basis, self._ranks = store.basis, ranks
        self._samples = _some(store, ids[:n_molecules]) if ranks.first else []

    def __call__(self, model: Model) -> dict[str, Any]:
        """Set the floor and return what :func:`best_floor` says."""
        found = self._ranks.from_first(lambda: best_floor(model, self._samples, self._basis))
        model.fock_target.overlap_floor.fill_(found["floor"])
        return found


def settle_floor(
    out: Path,
    store: Store,
    ids: Sequence[str],
    validate: Callable[[Model], dict[str, Any]],
    *,
    ready: Callable[[Model], Model] = lambda model: model,
) -> dict[str, Any]:
    """Give the models of a finished run the floor with the smallest error of the density, and validate them.

    Killed in between, it can be called again.

    Args:
        out: run folder; its models, ``validation.json``, the counters of ``last`` and ``overlap_floor.json``
            are replaced.
        store: where the validation molecules are.
        ids: of the validation molecules.
        validate: error table of a model.
        ready: moves a model that was loaded to the device and precision of the run.

    Returns:
        What ``overlap_floor.json`` holds too, see :func:`best_floor`.
    """
    checkpoints = out / "checkpoints"
    best = ready(load_model(checkpoints / "best")) if (checkpoints / "best").exists() else None
    last = ready(load_model(checkpoints / "last"))
    found = best_floor(last if best is None else best, _some(store, ids), store.basis)
    for name, model in (("best", best), ("last", last)):
        if model is not None and float(model.fock_target.overlap_floor) != found["floor"]:
            model.fock_target.overlap_floor.fill_(found["floor"])
            replace_model(checkpoints, name, model, validate(model))
    if found["floor"]:
        changes = [
            f"{METRICS[key].symbol} {found[key][0]:.4g} → {found[key][1]:.4g} {METRICS[key].unit}"
            for key in ("h_mae_uEh", "eps_occ_mae_uEh")
        ]
        log.info(
            "predictions are damped where the overlap is below %g: on %d validation molecules that makes %s",
            found["floor"], found["n_molecules"], ", ".join(changes),
        )  # fmt: skip
    write_json(out / RECORD, found)
    return found


def _some(store: Store, ids: Sequence[str]) -> list[Sample]:
    """Return the first molecules with an overlap matrix, as many as can be looked at in some minutes."""
    samples: list[Sample] = []
    work = 0.0
    for identity in ids[:N_MOLECULES]:
        sample = store[store.row(identity)]
        if sample.matrices.overlap is not None:
            work += len(sample.matrices.overlap) ** 3
            if samples and work > WORK:
                break
            samples.append(sample)
    return samples


def _best(errors: dict[float, dict[str, Any]]) -> dict[str, Any]:
    """Return the floor with the smallest density error, among those that pay and leave F as it is."""
    key, plain = "density_error_per_electron", errors[0.0]
    if plain.get(key) is None:
        return {"floor": 0.0}
    allowed = [s for s in FLOORS if errors[s]["h_mae_uEh"] <= LARGEST_LOSS * plain["h_mae_uEh"]]
    floor = min(allowed, key=lambda s: errors[s][key], default=0.0)
    if errors[floor][key] > SMALLEST_GAIN * plain[key]:
        floor = 0.0
    names = ("h_mae_uEh", "eps_occ_mae_uEh", key)
    return {"floor": floor, **{name: [errors[0.0][name], errors[floor][name]] for name in names}}
