"""What about a result should be said aloud, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helmol.evaluate.metrics import METRICS

COMPARED = (
    "h_mae_uEh",
    "eps_occ_mae_uEh",
    "homo_mae_uEh",
    "lumo_mae_uEh",
    "gap_mae_uEh",
    "density_error",
    "dipole_mae_debye",
    "energy_mae_meV",
    "force_mae_meV_per_angstrom",
    "energy_from_h_mae_meV",
)
"""Errors in which a model has to be better than what costs nothing."""

NAMED = 5
"""Molecules that are named one by one."""


def no_better(model: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return one sentence for every cheap guess that a model does not beat in all of :data:`COMPARED`."""
    lines = []
    for name, table in baselines.items():
        lost = [
            f"{METRICS[key].text(model[key])} against {table[key]:.4g}"
            for key in COMPARED
            if model.get(key) is not None and table.get(key) is not None and not model[key] < table[key]
        ]
        if lost:
            lines.append(f"NO BETTER THAN THE CHEAP GUESS {name!r}: {', '.join(lost)}")
    return lines


def no_gain(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence for every start of an SCF that takes no more Fock builds than the model.

    Args:
        runs: per start ``fock_builds`` and ``cycles``, see :func:`helmol.pyscf.compare_starts`.
    """
    model = runs.get("model")
    return [
        f"NO BETTER THAN THE START {name!r}: {model['fock_builds']} Fock builds in {model['cycles']} cycles "
        f"against {run['fock_builds']} in {run['cycles']}"
        for name, run in runs.items()
        if model is not None and name != "model" and model["fock_builds"] >= run["fock_builds"]
    ]


def flagged(flags: Sequence[Mapping[str, str]], total: int, what: str) -> list[str]:
    """Return a sentence about molecules with something odd, the first of them named; none if there are none.

    Args:
        flags: ``id`` and ``text`` of each.
        total: molecules looked at.
        what: is odd.
    """
    if not flags:
        return []
    named = "; ".join(f"{flag['id']}: {flag['text']}" for flag in flags[:NAMED])
    more = f"; and {len(flags) - NAMED} more" if len(flags) > NAMED else ""
    return [f"{len(flags)} of {total} molecules have {what} ({named}{more})"]


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Return what to say about a result of :func:`helmol.evaluate.run.evaluate_store`."""
    gaps = "a small or negative predicted gap where DFT has none"
    far = "a predicted density far from its first SCF step"
    n, some = result["n_molecules"], result.get("energy_from_h_n_molecules", 0)
    few = [f"energies of predicted Fock matrices are of {some} of {n} molecules"] if 0 < some < n else []
    return [
        *few,
        *no_better(result, result["baselines"]),
        *flagged(result.get("flags", []), result["n_molecules"], gaps),
        *flagged(result.get("energy_from_h_flags", []), result.get("energy_from_h_n_molecules", 0), far),
    ]
