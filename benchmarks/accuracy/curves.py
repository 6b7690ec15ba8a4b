"""Learning curves: train and test the runs of a list, and draw the error against the number of molecules.

    python benchmarks/accuracy/curves.py benchmarks/accuracy/curves.yaml --stores FOLDER --out runs/curves

``FOLDER/NAME.h5`` are the stores. Runs that are finished are kept, those cut short go on, so the same command
continues. After every run ``curves.json``, ``table.md`` and ``figure.png`` in ``--out`` hold what is there so
far (``--report`` does nothing else).
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from pydantic import Field

from helmol.config import Config, parse, read_yaml
from helmol.evaluate import METRICS
from helmol.files import write_json, write_text
from helmol.train import combined

log = logging.getLogger("helmol.benchmarks")

PUBLISHED_SIZE = 25_000
"""Training frames of the published results on MD17; where the power law is read off."""
SMALLEST_CURVE = 3
"""Sizes of which a power law is fitted."""
COLUMNS = (
    "h_mae_uEh", "eps_occ_mae_uEh", "homo_mae_uEh", "lumo_mae_uEh", "gap_mae_uEh",
    "density_error_per_electron", "dipole_mae_debye", "energy_from_h_mae_meV",
)  # fmt: skip
"""Errors in the table."""
STYLES = {
    "fock-minus-minao-step": ("#0b6fb8", "o"),
    "fock-minus-minao": ("#d9822b", "s"),
    "fock-minus-minao-coarse": ("#8c3a8c", "D"),
    "fock": ("#5a5a5a", "^"),
}
"""Colour and marker of every target."""


class Run(Config):
    """One training."""

    store: str
    """Name of the store's file, without ``.h5``."""
    train: int = Field(ge=1)
    """Training molecules: the first of the split ``train``."""
    target: str
    """Target of the network."""
    seconds_per_molecule: float | None = None
    """CPU seconds per training molecule; unset means the store's."""
    keys: dict[str, Any] = Field(default_factory=dict)
    """Keys of ``helmol train`` that differ from the others'."""
    note: str = ""
    """What differs, in a word; part of the name of the curve."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        words = (self.store, str(self.train), self.target.removeprefix("fock-minus-"), self.note)
        return "-".join(filter(None, words)).replace(" ", "-")

    @property
    def curve(self) -> str:
        """What the run's curve is called in table and figure, beside its target."""
        return f"{self.store}, {self.note}" if self.note else self.store


class CurvesConfig(Config):
    """The list."""

    base: dict[str, Any]
    """Keys of ``helmol train`` for all runs."""
    seconds_per_molecule: dict[str, float]
    """CPU seconds per training molecule of each store."""
    energies: int = Field(default=20, ge=0)
    """Test molecules whose energy is computed from the predicted Fock matrix."""
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Errors of others by store and name, µEh, at ``PUBLISHED_SIZE``: stars of the figure."""
    runs: list[Run]
    """In order of importance."""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--stores", type=Path, default=Path())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--report", action="store_true", help="write table and figure of what is there")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = parse(CurvesConfig, read_yaml(arguments.config), source=str(arguments.config))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for run in config.runs:
        if not arguments.report:
            work(run, config, arguments.stores / f"{run.store}.h5", arguments.out)
            report(config, arguments.out)
    report(config, arguments.out)


def minutes(run: Run, config: CurvesConfig) -> float:
    """Return the CPU minutes of a run: in proportion to its molecules."""
    return run.train * (run.seconds_per_molecule or config.seconds_per_molecule[run.store]) / 60


def work(run: Run, config: CurvesConfig, store: Path, out: Path) -> None:
    """Train, or go on, and test."""
    result = out / f"{run.name}.json"
    if result.exists():
        return
    log.info("--- %s", run.name)
    helmol = [sys.executable, "-m", "helmol"]
    changes = {
        "data": {"store": str(store), "train": run.train},
        "target": {"matrix": run.target},
        "schedule": {"max_cpu_minutes": round(minutes(run, config), 4)},
    }
    folder, keys = str(out / run.name), out / f"{run.name}.yaml"
    write_text(keys, json.dumps(combined(config.base, run.keys, changes)))
    subprocess.run([*helmol, "train", str(keys), "--out", folder], check=True)
    options = ["--split", "test", "--energy-from-h", str(config.energies), "--json", str(result)]
    subprocess.run([*helmol, "evaluate", folder, str(store), *options], check=True)


def report(config: CurvesConfig, out: Path) -> None:
    """Write what is there: ``curves.json``, ``table.md``, ``figure.png``."""
    rows: list[dict[str, Any]] = []
    for run in config.runs:
        if not (out / f"{run.name}.json").exists():
            continue
        errors = json.loads((out / f"{run.name}.json").read_text())
        counters = json.loads((out / run.name / "checkpoints/last/state.json").read_text())["counters"]
        baselines = {
            name: {key: base.get(key) for key in COLUMNS} for name, base in errors["baselines"].items()
        }
        kept = (
            *COLUMNS,
            "h_mae_uEh_ci95",
            "h_mae_diagonal_uEh",
            "h_mae_offdiagonal_uEh",
            "n_molecules",
            "parameters",
        )
        row = {"store": run.curve, "panel": run.store, "train": run.train, "target": run.target}
        row["steps"] = counters["step"]
        row |= {"cpu_minutes": counters["cpu"] / 60, **{key: errors.get(key) for key in kept}}
        rows.append({**row, "baselines": baselines})
    laws = power_laws(rows)
    write_json(
        out / "curves.json", {"config": config.model_dump(mode="json"), "rows": rows, "power_laws": laws}
    )
    write_text(out / "table.md", table(rows, laws))
    if any(several(rows, row["panel"]) for row in rows):
        draw(rows, laws, config.published, out / "figure.png")


def curves(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the rows by store and target, in order of size."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["train"]):
        found.setdefault((row["store"], row["target"]), []).append(row)
    return found


def power_laws(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fit ``error = a · n^-b`` to every curve of at least three sizes."""
    laws = []
    for (store, target), points in curves(rows).items():
        if len(points) >= SMALLEST_CURVE:
            size, error = (np.log([point[key] for point in points]) for key in ("train", "h_mae_uEh"))
            slope, start = np.polyfit(size, error, 1)
            law = {"store": store, "target": target, "prefactor_uEh": float(np.exp(start))}
            at = float(np.exp(start + slope * np.log(PUBLISHED_SIZE)))
            laws.append({**law, "exponent": float(-slope), "at_25000_uEh": at})
    return laws


def table(rows: Sequence[dict[str, Any]], laws: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown, every store with its baselines."""
    columns = [METRICS[key].short for key in COLUMNS]
    heads = ["molecules", "training", "target", *columns, "test", "steps", "CPU min", "parameters"]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---|" + "---:|" * (len(heads) - 3)]
    for store in dict.fromkeys(row["panel"] for row in rows):
        mine = [row for row in rows if row["panel"] == store]
        bases = {name: base for row in mine for name, base in row["baselines"].items()}
        for name, base in bases.items():
            without = " | ".join(number(base[key]) for key in COLUMNS)
            n = mine[0]["n_molecules"]
            lines.append(f"| {store} | – | none: {name} itself | {without} | {n} | | | |")
        for row in sorted(mine, key=lambda row: (row["target"], row["store"], row["train"])):
            low, high = row["h_mae_uEh_ci95"]
            values = [f"**{number(row['h_mae_uEh'])}** [{number(low)}, {number(high)}]"]
            values += [number(row[key]) for key in COLUMNS[1:]]
            values += [f"{row['n_molecules']}", f"{row['steps']:,}", f"{row['cpu_minutes']:.1f}"]
            values.append(f"{row['parameters']:,}")
            lines.append(f"| {row['store']} | {row['train']} | {row['target']} | {' | '.join(values)} |")
    lines += ["", "[95 % interval over test molecules.]", ""]
    lines += [
        f"{law['store']}, {law['target']}: error ∝ n^−{law['exponent']:.2f}; extrapolated to "
        f"{PUBLISHED_SIZE:,}: {number(law['at_25000_uEh'])} µEh."
        for law in laws
    ]
    return "\n".join(lines) + "\n"


def number(value: float | None) -> str:
    """Return three digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def draw(
    rows: Sequence[dict[str, Any]],
    laws: Sequence[dict[str, Any]],
    published: dict[str, dict[str, float]],
    path: Path,
) -> None:
    """Draw error against size, both logarithmic: a panel for each store, power laws as thin lines."""
    stores = [name for name in dict.fromkeys(row["panel"] for row in rows) if several(rows, name)]
    figure = Figure(figsize=(1 + 3.2 * len(stores), 3.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(stores), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, stores, strict=True):
        mine = [row for row in rows if row["panel"] == name]
        for (store, target), points in curves(mine).items():
            draw_curve(axes, target, store.removeprefix(name), points)
        for law in laws:
            if sizes := [row["train"] for row in mine if row["store"] == law["store"]]:
                ends = np.array([min(sizes), PUBLISHED_SIZE])
                errors = law["prefactor_uEh"] * ends ** -law["exponent"]
                axes.plot(ends, errors, color=STYLES[law["target"]][0], linewidth=0.7, linestyle=":")
        for k, (who, error) in enumerate(published.get(name, {}).items()):
            label = f"{who}, other labels"
            axes.plot(PUBLISHED_SIZE, error, "k*" if k == 0 else "k+", markersize=8, label=label)
        axes.set(xscale="log", yscale="log", xlabel="training molecules", title=name)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5) if axis is axes.yaxis else (1,)))
            axis.set_major_formatter("{x:,g}")
            axis.set_minor_formatter("")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False, loc="lower left")
    panels[0].set_ylabel("error of F on test molecules / µEh")
    FigureCanvasAgg(figure).print_figure(path)


def several(rows: Sequence[dict[str, Any]], store: str) -> bool:
    """Return whether there is a curve to draw."""
    return any(len(points) > 1 for points in curves(rows).values() if points[0]["panel"] == store)


def draw_curve(axes: Any, target: str, note: str, points: Sequence[dict[str, Any]]) -> None:
    """Draw the errors with their intervals; open symbols are those with a note."""
    colour, marker = STYLES[target]
    target = "raw F" if target == "fock" else f"F − {target.removeprefix('fock-minus-')}"
    errors = [point["h_mae_uEh"] for point in points]
    axes.errorbar(
        [point["train"] for point in points],
        errors,
        yerr=np.abs([np.subtract(point["h_mae_uEh_ci95"], point["h_mae_uEh"]) for point in points]).T,
        color=colour,
        marker=marker,
        markersize=4,
        markerfacecolor="white" if note else colour,
        label=target + note,
    )


if __name__ == "__main__":
    main()
