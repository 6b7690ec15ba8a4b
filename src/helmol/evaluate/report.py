"""The page that an evaluation leaves: errors beside those of cheap guesses and of published models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from helmol import markdown
from helmol.evaluate import metrics
from helmol.evaluate.metrics import METRICS
from helmol.files import write_json, write_text

FIGURES = {
    "parity.png": "Elements of Fock matrices: predicted against labels, and the size of the errors.",
    "shell_pairs.png": "Mean error of Fock matrices by pair of shells.",
    "elements.png": "Mean error of Fock matrices by element, blocks of one atom.",
    "distances.png": "Mean error of Fock matrices by the distance of two atoms.",
    "levels.png": "Orbital energies of one molecule, and their errors.",
    "energies.png": "Energies and forces: predicted against labels.",
}
"""Pictures of an evaluation and their captions."""

NUMBERS, PAGE = "evaluation.json", "report.md"


def clear(folder: Path) -> None:
    """Remove what an earlier evaluation left in a folder, so that nothing of it stands beside new results."""
    for name in (NUMBERS, PAGE, *FIGURES):
        (folder / name).unlink(missing_ok=True)


def write(folder: Path, result: Mapping[str, Any]) -> None:
    """Write ``evaluation.json`` and ``report.md``, which shows the figures that are there."""
    write_json(folder / NUMBERS, result)
    figures = [name for name in FIGURES if (folder / name).exists()]
    write_text(folder / PAGE, page(result, figures))


def error_columns(result: Mapping[str, Any]) -> tuple[list[str], list[list[str | float]]]:
    """Return head and rows of the table of errors: the model, then every cheap guess.

    A guess that was made for some of the molecules only has their number in the head.
    """
    tables = {"model": result}
    for name, table in result["baselines"].items():
        n = table.get("n_molecules", result["n_molecules"])
        tables[name if n == result["n_molecules"] else f"{name} ({n} of {result['n_molecules']})"] = table
    rows: list[list[str | float]] = [
        [metric.heading, *["-" if value is None else float(value) for value in values]]
        for metric, values in metrics.rows(list(tables.values()))
    ]
    return ["mean error", *tables], rows


def published_columns(result: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return head and rows of the table of published errors, this model's beside them; no rows if none."""
    rows: list[list[object]] = []
    for row in result.get("published", []):
        own, metric = result.get(row["metric"]), METRICS[row["metric"]]
        n_train = "-" if row["n_train"] is None else f"{row['n_train']:,}"
        rows.append(
            [row["model"], metric.heading, row["value"], markdown.number(own), n_train, row["target"] or "-",
             row["source"]]
        )  # fmt: skip
    return ["published", "mean error", "theirs", "this model", "training molecules", "target", "source"], rows


def learnt(result: Mapping[str, Any]) -> str:
    """Return what a model was evaluated on, in words."""
    words = [f"Fock matrices as {result['target']}"] if "h_mae_uEh" in result else []
    words += ["energies"] if "energy_mae_meV" in result else []
    return " and ".join(words)


def page(result: Mapping[str, Any], figures: Sequence[str] = ()) -> str:
    """Return the page of a result of :func:`helmol.evaluate.run.evaluate_store`."""
    parts = [
        f"# {learnt(result)}: errors on {result['n_molecules']} molecules",
        f"Split {result['split']} of `{result['store']}`; {result['parameters']:,} parameters. "
        "Definitions: docs/metrics.md.",
        *(f"* **{line}**" for line in result.get("remarks", [])),
        markdown.table(*error_columns(result)),
        *(f"* left out: {reason}" for reason in sorted(set(result["missing"].values()))),
    ]
    head, rows = published_columns(result)
    if rows:
        parts += [f"## Published on {result['set']}", markdown.table(head, rows)]
    if "by_element" in result:
        heads = [f"{name} / {METRICS['h_mae_uEh'].unit}" for name in ("model", *result["baselines"])]
        head = [*heads, "matrix elements, all molecules together"]
        parts += [
            "## Fock matrix by element",
            markdown.table(["atoms", *head], _by(result, "by_element", "by_element_pair")),
        ]
    if result.get("by_distance"):
        parts += [
            "## Fock matrix by distance",
            markdown.table(["distance / Å", *head], _by(result, "by_distance")),
        ]
    parts += [f"![{FIGURES[name]}]({name})" for name in figures]
    return "\n\n".join(parts) + "\n"


def _by(result: Mapping[str, Any], *parts: str) -> list[list[object]]:
    """Return rows of mean errors of parts of the matrix: the model's, then those of cheap guesses."""
    tables = [result, *result["baselines"].values()]
    found = [
        {name: entry for part in parts for name, entry in table.get(part, {}).items()} for table in tables
    ]
    return [
        [
            name,
            *(table[name]["h_mae_uEh"] if name in table else "-" for table in found),
            f"{entry['n_elements']:,}",
        ]
        for name, entry in found[0].items()
    ]
