"""Table and figure of the transfer study, from the errors of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import t as student

from helmol.arrays import Array
from helmol.files import write_json, write_text

SETS = {"train": "train", "test_conformers": "new conformers", "test_molecules": "new molecules"}
MAIN = ("direct", "frozen", "fine-tuned")
COLOURS = ("#222222", "#d9822b", "#0b6fb8", "#777777", "#8c510a", "#4fa3d9", "#b35fb3", "#7fbf7b", "#c51b7d")
DRAWS = 2000


def write_report(data: dict[str, Any], out: Path) -> None:
    """Write ``results.json``, ``table.md`` and ``figure.png``."""
    rows = table_rows(data)
    ratios = [ratio_row(data, name, budget) for name, budget in _against_direct(rows)]
    write_json(out / "results.json", {**data, "table": rows, "ratios": ratios})
    write_text(out / "table.md", as_text(data, rows, ratios))
    if rows:
        draw(rows, out / "figure.png")


def tested_sets(data: dict[str, Any]) -> list[str]:
    """Return the test sets that this study has."""
    return [name for name in ("test_conformers", "test_molecules") if data["split"].get(name)]


def table_rows(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return per arm and budget the mean over seeds and its 95 % interval (Student's t) of every error."""
    rows = []
    keys = {(run["arm"], run["budget"]): None for run in data["runs"] if run["arm"] is not None}
    for arm, budget in keys:
        runs = [run for run in data["runs"] if (run["arm"], run["budget"]) == (arm, budget)]
        row: dict[str, Any] = {
            "arm": arm,
            "budget": budget or data["split"]["train"],
            "n_seeds": len(runs),
            "steps": runs[0]["steps"],
            "seconds": float(np.mean([run["seconds"] for run in runs])),
        }
        for name in SETS:
            for key in ("energy_mae_meV", "force_mae_meV_per_angstrom"):
                values = [run[name][key] for run in runs if name in run and run[name][key] is not None]
                if values:
                    row[f"{name}/{key}"] = [float(np.mean(values)), half_width(values)]
        rows.append(row)
    return rows


def half_width(values: Sequence[float]) -> float | None:
    """Return half of the 95 % interval of a mean over seeds; ``None`` below two."""
    n = len(values)
    if n < 2:
        return None
    return float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)


def _against_direct(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return the arms and budgets that have a direct one beside them."""
    there = {row["budget"] for row in rows if row["arm"] == "direct"}
    return [(row["arm"], row["budget"]) for row in rows if row["arm"] != "direct" and row["budget"] in there]


def ratio_row(data: dict[str, Any], arm: str, budget: int) -> dict[str, Any]:
    """Return by which factor an arm's error is below the direct one's, with a 95 % interval.

    The interval is a bootstrap over seeds and molecules (all conformers of a molecule together).
    """
    whole = data["split"]["train"]
    row: dict[str, Any] = {"arm": arm, "budget": budget}
    rng = np.random.default_rng(0)
    for name in tested_sets(data):
        direct, other = (
            _by_molecule(
                [r for r in data["runs"] if r["arm"] == a and (r["budget"] or whole) == budget], name
            )
            for a in ("direct", arm)
        )
        ratios = []
        for _ in range(DRAWS):
            molecules = rng.integers(direct.shape[1], size=direct.shape[1])
            means = [
                np.nansum(e[rng.integers(len(e), size=len(e))][:, molecules], axis=(0, 1))
                for e in (direct, other)
            ]
            ratios.append((means[0][0] / means[0][1]) / (means[1][0] / means[1][1]))
        sums = [e.sum(axis=(0, 1)) for e in (direct, other)]
        low, high = np.percentile(ratios, [2.5, 97.5])
        value = (sums[0][0] / sums[0][1]) / (sums[1][0] / sums[1][1])
        row[name] = [float(value), float(low), float(high)]
    return row


def _by_molecule(runs: Sequence[dict[str, Any]], name: str) -> Array:
    """Return sum of |error| and number of conformers, ``[n_seeds, n_molecules, 2]``."""
    ids = sorted(runs[0][name]["errors_meV"])
    molecules = sorted({identity.rpartition("-")[0] for identity in ids})
    place = {molecule: k for k, molecule in enumerate(molecules)}
    result = np.zeros((len(runs), len(molecules), 2))
    for k, run in enumerate(runs):
        for identity, error in run[name]["errors_meV"].items():
            result[k, place[identity.rpartition("-")[0]]] += (abs(error), 1)
    return result


def as_text(data: dict[str, Any], rows: Sequence[dict[str, Any]], ratios: Sequence[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    sizes = data["split"]
    lines = [
        f"Training conformers {sizes['train']} (validation {sizes['val']}), new conformers "
        f"{sizes['test_conformers']}, conformers of new molecules {sizes.get('test_molecules', 0)}. "
        "Mean over seeds ± 95 % interval (Student's t over seeds).",
        "",
        "| network | labels | seeds | steps | s | energy, train | new conformers | new molecules "
        "| forces, new conformers | new molecules |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [_cell(row.get(f"{name}/energy_mae_meV")) for name in SETS]
        cells += [_cell(row.get(f"{name}/force_mae_meV_per_angstrom")) for name in list(SETS)[1:]]
        start = f"| {row['arm']} | {row['budget']} | {row['n_seeds']} | {row['steps']} | {row['seconds']:.0f}"
        lines.append(f"{start} | {' | '.join(cells)} |")
    lines += ["", "Energies in meV per molecule, force components in meV/Å (mean absolute errors)."]
    if ratios:
        lines += [
            "",
            "Energy error of `direct` over that of the network, same labels, same steps unless named:",
            "",
        ]
        lines += ["| network | labels | new conformers | new molecules |", "|---|---|---|---|"]
        for row in ratios:
            cells = [
                "{:.2f} ({:.2f} to {:.2f})".format(*row[name]) if name in row else "–"
                for name in list(SETS)[1:]
            ]
            lines.append(f"| {row['arm']} | {row['budget']} | {' | '.join(cells)} |")
        lines += ["", "Intervals: 95 %, bootstrap over seeds and molecules."]
    pretrained = [run for run in data["runs"] if run["arm"] is None]
    if pretrained:
        lines += ["", "| pre-training | steps | s | H MAE, validation / µEh |", "|---|---|---|---|"]
        for run in pretrained:
            error = run["best"]["h_mae_uEh"]
            lines.append(f"| {run['name']} | {run['steps']} | {run['seconds']:.0f} | {error:.1f} |")
    return "\n".join(lines) + "\n"


def _cell(entry: list[float | None] | None) -> str:
    """Return a mean with its interval."""
    if entry is None or entry[0] is None:
        return "–"
    return f"{entry[0]:.1f}" if entry[1] is None else f"{entry[0]:.1f} ± {entry[1]:.1f}"


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the energy errors of both test sets by label budget."""
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    sets = [n for n in ("test_conformers", "test_molecules") if f"{n}/energy_mae_meV" in rows[0]]
    panels = figure.subplots(1, len(sets), sharey=True, squeeze=False)[0]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    budgets = sorted({row["budget"] for row in rows})
    width = 0.8 / len(arms)
    for axes, name in zip(panels, sets, strict=True):
        for k, arm in enumerate(arms):
            mine = {row["budget"]: row for row in rows if row["arm"] == arm}
            places = [budgets.index(b) + (k - (len(arms) - 1) / 2) * width for b in mine]
            entries = [row[f"{name}/energy_mae_meV"] for row in mine.values()]
            axes.bar(
                places, [e[0] for e in entries], 0.92 * width, color=COLOURS[k % len(COLOURS)],
                yerr=[np.nan if e[1] is None else e[1] for e in entries], capsize=2,
                error_kw={"linewidth": 0.8}, label=arm, alpha=1.0 if arm in MAIN else 0.75,
            )  # fmt: skip
        axes.set_xticks(range(len(budgets)), [f"{b} energies" for b in budgets])
        axes.set_title(SETS[name])
        axes.spines[["top", "right"]].set_visible(False)
    # After all bars: before, the panels drawn later would be cut at the height of the first.
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("energy error, mean |ΔE| / meV per molecule")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(5, len(arms)), frameon=False, fontsize=8
    )
    figure.savefig(path, dpi=150)
