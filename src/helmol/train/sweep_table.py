"""The table of a sweep: means over seeds, their 95 % intervals, and the ratio to the first case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from helmol.evaluate import METRICS
from helmol.markdown import table

COLUMNS = ("h_mae_uEh", "eps_occ_mae_uEh", "gap_mae_uEh")
"""Errors in the table."""


def summarise(
    rows: Mapping[str, Sequence[Mapping[str, Any]]], changes: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the summary of every case that has runs.

    Args:
        rows: runs of each case, with ``seed``; the first case is the one to compare with.
        changes: what each case changes.

    Returns:
        For each case ``changes``, ``n_seeds``, ``mean`` and ``ci95`` of the errors over seeds, ``ratio`` of
        the H error to the first case's and ``ratio_ci95``, ``steps``, ``cpu_minutes``, ``parameters``,
        ``target``, ``runs``.
    """
    first = next(iter(rows))
    result = {}
    for case, runs in rows.items():
        if not runs:
            continue
        values = {key: [run[key] for run in runs if run.get(key) is not None] for key in COLUMNS}
        ratio, ratio_interval = compare(runs, rows[first])
        result[case] = {
            "changes": dict(changes[case]),
            "n_seeds": len(runs),
            "mean": {key: float(np.mean(some)) if some else None for key, some in values.items()},
            "ci95": {key: interval(some) for key, some in values.items()},
            "ratio": ratio,
            "ratio_ci95": ratio_interval,
            "steps": float(np.mean([run["steps"] for run in runs])),
            "cpu_minutes": float(np.mean([run["cpu_minutes"] for run in runs])),
            "parameters": runs[0]["parameters"],
            "target": runs[0]["target"],
            "runs": [dict(run) for run in runs],
        }
    return result


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of a few values (Student's t); ``None`` below two."""
    n = len(values)
    if n < 2:
        return None
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    centre = float(np.mean(values))
    return centre - half, centre + half


def compare(
    runs: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the geometric mean over seeds of the ratio of H errors, and its 95 % interval.

    Runs of the same seed are compared with each other: they had the same molecules in the same order.
    """
    there = {run["seed"]: run["h_mae_uEh"] for run in first}
    logs = [float(np.log(run["h_mae_uEh"] / there[run["seed"]])) for run in runs if run["seed"] in there]
    if not logs:
        return None, None
    bounds = interval(logs)
    spread = None if bounds is None else (float(np.exp(bounds[0])), float(np.exp(bounds[1])))
    return float(np.exp(np.mean(logs))), spread


def cells(case: str, summary: Mapping[str, Any]) -> list[str]:
    """Return the row of a case as text."""
    errors = [_with_interval(summary["mean"][key], summary["ci95"][key]) for key in COLUMNS]
    ratio = _with_interval(summary["ratio"], summary["ratio_ci95"])
    return [
        case, *errors, ratio, str(summary["n_seeds"]), f"{summary['steps']:.0f}",
        f"{summary['cpu_minutes']:.1f}", f"{summary['parameters']:,}", summary["target"],
    ]  # fmt: skip


HEADINGS = (
    "case", *[METRICS[key].short for key in COLUMNS], "ratio to first", "seeds", "steps", "CPU min",
    "parameters", "target",
)  # fmt: skip


def markdown(result: Mapping[str, Any]) -> str:
    """Return a sweep as a Markdown table; intervals in brackets are 95 % over seeds."""
    rows = [cells(case, summary) for case, summary in result["cases"].items()]
    runs = [run for summary in result["cases"].values() for run in summary["runs"]]
    failed = ", ".join(f"{one['case']} (seed {one['seed']})" for one in result.get("failed", []))
    if not runs:
        return f"# {result['title']}\n\nNo run so far that did not diverge: {failed}.\n"
    molecules = (
        f"{runs[0]['n_train']} training molecules, {runs[0]['n_molecules']} of split {result['split']}"
    )
    unit = METRICS["h_mae_uEh"].unit
    baselines = ", ".join(f"{k} {v:.0f} {unit}" for k, v in runs[0]["baselines_h_mae_uEh"].items())
    note = f"{molecules}. [95 % interval over seeds.]" + (
        f" Without a model: {baselines}." if baselines else ""
    )
    note += f"\n\nDiverged, in no mean: {failed}." if failed else ""
    state = "" if result["finished"] == result["total"] else (
        f"\n\n{result['finished']} of {result['total']} runs are finished."
    )  # fmt: skip
    return f"# {result['title']}\n\n" + table(HEADINGS, rows) + f"\n\n{note}{state}\n"


def _with_interval(value: float | None, bounds: Sequence[float] | None) -> str:
    """Return a number with three digits and its interval."""
    if value is None:
        return "-"
    return f"{value:.3g}" + (f" [{bounds[0]:.3g}, {bounds[1]:.3g}]" if bounds is not None else "")
