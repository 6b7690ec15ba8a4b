"""``card.md`` and the learning curve, from what the run folder holds."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helmol import markdown
from helmol.damage import read_json, understood
from helmol.elements import SYMBOLS
from helmol.evaluate import METRICS
from helmol.evaluate.metrics import rows as error_table
from helmol.evaluate.remarks import no_better
from helmol.files import replacing, write_text
from helmol.model import Model
from helmol.train import metrics
from helmol.train.folder import SPLIT
from helmol.train.state import Counters

log = logging.getLogger("helmol.train")

LOG_FROM = 3.0
"""Largest over smallest value from which an axis of the learning curve is logarithmic."""

NO_BASELINE = "no cheap guess to compare with: `helmol references STORE --add minao --out NEW` adds one"


def error_columns(
    best: Mapping[str, Any], last: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[list[object]]]:
    """Return head and rows of the table of validation errors: best, last, every cheap guess."""
    tables = {f"best (step {best.get('step')})": best, f"last (step {last.get('step')})": last, **baselines}
    rows: list[list[object]] = [
        [metric.heading, *map(markdown.number, values)]
        for metric, values in error_table(list(tables.values()))
        if any(value is not None for value in values)
    ]
    return ["validation error", *tables], rows


def errors_text(table: Mapping[str, Any]) -> str:
    """Return in a line the errors that a log line has."""
    keys = [name.removeprefix("val_") for name in metrics.COLUMNS if name.startswith("val_")]
    return ", ".join(METRICS[key].text(table[key]) for key in keys if table.get(key) is not None)


def write_card(
    folder: Path,
    model: Model,
    counters: Counters,
    baselines: Mapping[str, Mapping[str, Any]],
    *,
    precision: str = "fp32",
) -> None:
    """Write what was trained on what, and how well it does beside cheap guesses."""
    split = read_json(folder / SPLIT)
    environment = read_json(folder / "environment.json")
    domain = model.domain
    best, last = counters.best, counters.validation
    with understood(f"{folder / SPLIT} or {folder / 'environment.json'}"):
        data = f"`{split['data']}`, content hash `{split['content_hash']}`"
        n_molecules = f"{len(split['train'])} training, {len(split['val'])} validation"
        place = f"{environment['device']}, {environment['threads']} threads"
        versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        versions = f"{versions}; commit {environment['commit'] or 'unknown'}"
    products = "" if precision == "fp32" else f", matrix products in {precision}"
    facts = [
        ("data", data),
        ("molecules", f"{n_molecules} (ids in `split.json`)"),
        ("level of theory", f"{domain.level.label} ({domain.level.xc_resolved}; {domain.level.code})"),
        ("elements", ", ".join(SYMBOLS[z] for z in domain.basis.elements)),
        ("charges; spins 2S", f"{', '.join(map(str, domain.charges))}; {', '.join(map(str, domain.spins))}"),
        ("task", _task(model)),
        ("parameters", f"{model.n_parameters:,} ({str(model.dtype).removeprefix('torch.')}{products})"),
        ("steps", f"{counters.step} ({counters.skipped} skipped)"),
        ("training time", f"{counters.elapsed:.0f} s on {place}"),
        ("versions", versions),
    ]
    lines = [f"# {Path(os.path.realpath(folder)).name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts]
    lines += ["", "Errors on the validation molecules (they chose the best step; they are no test set):", ""]
    lines += [markdown.table(*error_columns(best, last, baselines)), ""]
    lines += [f"* **{line}**" for line in no_better(best, baselines)]
    if n := best.get("n_flagged"):
        lines.append(f"* **{n} validation molecules have a small or negative predicted gap, the label not**")
    if not baselines:
        lines.append(f"* {NO_BASELINE}")
    write_text(folder / "card.md", "\n".join(lines).rstrip("\n") + "\n")


def _task(model: Model) -> str:
    """Say what the model predicts."""
    parts = [f"Fock matrices as `{model.domain.target}`"] if "fock" in model.heads else []
    if "energy" in model.heads:
        energy = model.energy_head.settings
        parts.append(f"energies ({energy.readout} read-out, {energy.forces} forces)")
    return "; ".join(parts)


def plot_learning_curve(folder: Path) -> None:
    """Draw validation errors and training loss against steps into ``plots/learning_curve.png``.

    Errors of one unit share a panel; the step of the best model is marked.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogFormatter
    except ImportError:
        log.warning("no learning curve: matplotlib is not installed")
        return
    best = folder / "checkpoints" / "best" / "validation.json"
    best_step = read_json(best).get("step") if best.exists() else None
    panels = _curves(metrics.read(folder / "metrics.csv"))
    figure = Figure(figsize=(7, 1.2 + 2.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (what, curves) in zip(grid, panels.items(), strict=True):
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, label=name)
        if best_step is not None:
            axes.axvline(best_step, color="0.5", linestyle=":", linewidth=1)
        values = [value for points in curves.values() for _, value in points]
        if values and max(values) > LOG_FROM * min(values):
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter())
        else:
            axes.ticklabel_format(axis="y", useOffset=False)
        axes.set(ylabel=what)
        axes.grid(True, color="0.9", linewidth=0.6)
        if len(curves) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(curves), frameon=False, fontsize=9)
    grid[-1].set(xlabel="step" if best_step is None else "step (dotted: the best model)")
    grid[-1].xaxis.get_major_locator().set_params(integer=True)
    with replacing(folder / "plots" / "learning_curve.png") as path:
        figure.savefig(path, dpi=150, format="png")


def _curves(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return by panel and curve the points that a log axis can show."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for column in [name for name in metrics.COLUMNS if name.startswith("val_")]:
        metric = METRICS[column.removeprefix("val_")]
        points = [(row["step"], row[column]) for row in rows if row.get(column, 0) > 0]
        if points:
            panels.setdefault(metric.unit, {})[metric.label] = points
    named = {
        f"{next(iter(curves))} / {unit}" if len(curves) == 1 else f"validation MAE / {unit}": curves
        for unit, curves in panels.items()
    }
    loss = [(row["step"], row["loss"]) for row in rows if row.get("loss", 0) > 0]
    return {**named, "training loss": {"loss": loss} if loss else {}}
