"""``card.md`` and the learning curve, from what the run folder holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from helmol.damage import read_json, understood
from helmol.elements import SYMBOLS
from helmol.evaluate import METRICS
from helmol.evaluate.metrics import rows as error_table
from helmol.files import replacing, write_text
from helmol.model import Model
from helmol.train import metrics
from helmol.train.folder import SPLIT
from helmol.train.state import Counters

log = logging.getLogger("helmol.train")


def error_rows(best: dict[str, Any], last: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return name, best, last, unit of every error that could be computed."""
    return [
        (metric.label, *("" if value is None else f"{value:.4g}" for value in values), metric.unit)
        for metric, values in error_table([best, last])
        if any(value is not None for value in values)
    ]


def write_card(folder: Path, network: Model, counters: Counters) -> None:
    """Write what was trained on what, and how well it does."""
    split = read_json(folder / SPLIT)
    environment = read_json(folder / "environment.json")
    domain = network.domain
    best, last = counters.best, counters.validation
    with understood(f"{folder / 'split.json'} or {folder / 'environment.json'}"):
        data = f"`{split['data']}`, content hash `{split['content_hash']}`"
        n_molecules = f"{len(split['train'])} training, {len(split['val'])} validation"
        place = f"{environment['device']}, {environment['threads']} threads"
        versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
        versions = f"{versions}; commit {environment['commit'] or 'unknown'}"
    facts = [
        ("data", data),
        ("molecules", f"{n_molecules} (ids in `split.json`)"),
        ("level of theory", f"{domain.level.label} ({domain.level.xc_resolved}; {domain.level.code})"),
        ("elements", ", ".join(SYMBOLS[z] for z in domain.basis.elements)),
        ("charges; spins 2S", f"{', '.join(map(str, domain.charges))}; {', '.join(map(str, domain.spins))}"),
        ("task", _task(network)),
        ("parameters", f"{network.n_parameters:,} ({str(network.dtype).removeprefix('torch.')})"),
        ("steps", f"{counters.step} ({counters.skipped} skipped)"),
        ("training time", f"{counters.elapsed:.0f} s on {place}"),
        ("versions", versions),
    ]
    lines = [f"# {folder.resolve().name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts]
    lines += ["", "Errors on the validation molecules (they chose the best step; they are no test set):", ""]
    lines += [
        f"| error | best (step {best.get('step')}) | last (step {last.get('step')}) | unit |",
        "|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(row)} |" for row in error_rows(best, last)]
    write_text(folder / "card.md", "\n".join(lines) + "\n")


def _task(network: Model) -> str:
    """Say what the model predicts."""
    parts = [f"Fock matrices as `{network.domain.target}`"] if "fock" in network.heads else []
    if "energy" in network.heads:
        energy = network.energy_head.settings
        parts.append(f"energies ({energy.readout} read-out, {energy.forces} forces)")
    return "; ".join(parts)


def plot_learning_curve(folder: Path) -> None:
    """Draw validation errors and training loss against steps into ``plots/learning_curve.png``."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        log.warning("no learning curve: matplotlib is not installed")
        return
    rows = metrics.read(folder / "metrics.csv")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for key in (column for column in metrics.COLUMNS if column.startswith("val_")):
        label = METRICS[key.removeprefix("val_")].heading
        points = [(row["step"], row[key]) for row in rows if row.get(key, 0) > 0]
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    axes.set(xlabel="step", ylabel="validation MAE", yscale="log")
    loss = [(row["step"], row["loss"]) for row in rows if row.get("loss", 0) > 0]
    if loss:
        right = axes.twinx()
        right.plot(*zip(*loss, strict=True), color="0.6", linestyle="--", label="training loss")
        right.set(ylabel="training loss", yscale="log")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    (folder / "plots").mkdir(exist_ok=True)
    with replacing(folder / "plots" / "learning_curve.png") as path:
        figure.savefig(path, dpi=150, format="png")
