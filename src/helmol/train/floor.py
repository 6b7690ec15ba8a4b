"""Choose the floor of the overlap below which a finished model's predictions are damped."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from helmol.evaluate import ErrorTable
from helmol.files import write_json
from helmol.model import damped, load_model, predict_fock, reference_matrix, reference_name, set_overlap_floor
from helmol.store import Store
from helmol.system import Sample

FLOORS = (0.0, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""What is tried."""
LARGEST_LOSS = 1.02
"""The error of F may become so many times larger at most."""
SMALLEST_GAIN = 0.95
"""The error of the density must become so many times smaller at least."""
N_MOLECULES = 64
"""Validation molecules that are looked at."""
WORK = 5e9
"""No more molecules are looked at once the cubes of their numbers of orbitals add up to this (minutes)."""
RECORD = "overlap_floor.json"
"""File in the run folder that says what was chosen."""

log = logging.getLogger("helmol.train")


def choose_floor(out: Path, store: Store, ids: Sequence[str]) -> dict[str, Any]:
    """Give the models of a finished run the floor with the smallest error of the density.

    Args:
        out: run folder.
        store: where the validation molecules are.
        ids: of the validation molecules.

    Returns:
        What ``overlap_floor.json`` holds too: ``floor`` and, before and after (lists of two), ``h_mae_uEh``,
        ``eps_occ_mae_uEh``, ``density_error_per_electron``; only ``floor`` (0) where there is no overlap or
        no H₀.
    """
    folders = [folder for name in ("best", "last") if (folder := out / "checkpoints" / name).exists()]
    network = load_model(folders[0])
    network.overlap_floor = 0.0
    samples = _some(store, ids)
    found: dict[str, Any] = {"floor": 0.0}
    if network.head is not None and reference_name(network.domain.target) is not None and samples:
        known = [sample.matrices.known for sample in samples]
        predicted = predict_fock(network, [sample.molecule for sample in samples], known)
        table = ErrorTable(store.basis)
        for sample, fock in zip(samples, predicted, strict=True):
            start = reference_matrix(sample.matrices.references, network.domain.target)
            overlap = sample.matrices.known["overlap"]
            table.add(sample, {str(s): start + damped(fock - start, overlap, s) for s in FLOORS})
        errors = {floor: table.summary(str(floor)) for floor in FLOORS}
        found = _best(errors)
    for folder in folders:
        set_overlap_floor(folder, found["floor"])
    if found["floor"]:
        (h, h_now), (eps, eps_now) = found["h_mae_uEh"], found["eps_occ_mae_uEh"]
        log.info(
            "predictions are damped where the overlap is below %g: H %.4g → %.4g µEh, ε_occ %.4g → %.4g µEh",
            found["floor"], h, h_now, eps, eps_now,
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
