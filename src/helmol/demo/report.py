"""The report of the demo: one Markdown file, and the same as one HTML file with the figures inside."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from helmol import markdown
from helmol.evaluate import METRICS
from helmol.evaluate.published import comparable
from helmol.evaluate.report import error_columns
from helmol.files import write_text

FIGURES = {
    "learning_curve.png": "Learning curve: loss and validation error over the training.",
    "parity.png": "Held-out Fock matrices: predicted against DFT, and the size of the errors.",
    "orbital_levels.png": "Orbital energies of one held-out molecule: minao, DFT, model, and their errors.",
    "scf_convergence.png": "SCF of an unseen geometry from PySCF's minao guess and from the model.",
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;border-bottom:1px solid #ddd;"
    "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
Part = str | Table | Path
"""A heading (starts with #), a paragraph, a table, or a figure."""


def write_report(out: Path, result: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    """Write ``report.md`` and ``report.html``."""
    parts = _parts(out, result, seconds)
    write_text(out / "report.md", "\n\n".join(_markdown(part) for part in parts) + "\n")
    body = "\n".join(_html(part) for part in parts)
    page = f"<!doctype html><meta charset=utf-8><title>helmol demo</title><style>{STYLE}</style>{body}\n"
    write_text(out / "report.html", page)


def _parts(out: Path, result: Mapping[str, Any], seconds: Mapping[str, float]) -> list[Part]:
    """Return the report, part by part."""
    config, evaluation, guess, training = (result[k] for k in ("config", "evaluate", "guess", "train"))
    missed = [bar["what"] for bar in result["bars"] if not bar["passed"]]
    verdict = "All bars are cleared." if not missed else f"NOT CLEARED: {'; '.join(missed)}."
    return [
        "# helmol demo: water",
        f"A network with {evaluation['parameters']:,} parameters learnt the "
        f"{config['xc'].upper()}/{config['basis']} Fock matrices of {training['n_train']} water "
        f"molecules at {config['temperature_k']:g} K. "
        f"Target: {evaluation['target']}. {verdict}",
        (
            ("bar", "wanted", "seen", "cleared"),
            [(b["what"], b["wanted"], b["seen"], "yes" if b["passed"] else "NO") for b in result["bars"]],
        ),
        *(f"**{line}**" for line in _said_aloud(result)),
        f"## Errors on {evaluation['n_molecules']} held-out molecules",
        f"They come from a later segment of the trajectory, {config['n_gap']} frames after the last training "
        "molecule; nothing was chosen by looking at them. Beside the model: cheap Fock matrices.",
        _error_table(evaluation),
        *_published(config, evaluation),
        out / "parity.png",
        out / "orbital_levels.png",
        "## Training",
        f"{training['steps']} steps in {training['seconds']:.0f} s; "
        f"{training['n_val']} validation molecules.",
        out / "learning_curve.png",
        "## SCF of a geometry that is in no set",
        _scf_table(guess),
        "Seconds include the inference and the building of H₀.",
        out / "scf_convergence.png",
        "## Data, time, versions",
        "The data card is data/card.md; the settings are demo.yaml, generate.yaml and train.yaml; all "
        "numbers are in demo.json.",
        (("stage", "seconds"), [(name, f"{value:.1f}") for name, value in seconds.items()]),
        ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    ]


def _error_table(evaluation: Mapping[str, Any]) -> Table:
    """Return the errors of the model beside those of the cheap guesses."""
    head, rows = error_columns(evaluation)
    texts = [
        [markdown.number(cell) if isinstance(cell, float) or cell is None else str(cell) for cell in row]
        for row in rows
    ]
    return head, texts


def _said_aloud(result: Mapping[str, Any]) -> list[str]:
    """Return what somebody should look at, in sentences."""
    flags = [f"the unseen geometry: {flag}" for flag in result.get("predict", {}).get("flags", [])]
    return [*result["evaluate"].get("remarks", []), *result["guess"].get("remarks", []), *flags]


def _published(config: Mapping[str, Any], evaluation: Mapping[str, Any]) -> list[str]:
    """Return a paragraph with published errors of the same molecule at the same level, if there are any."""
    rows = comparable(f"MD17 {config['molecule']}", xc=config["xc"], basis=config["basis"])
    named = [f"{row['model']}: {row['value']:g}" for row in rows if row["metric"] == "h_mae_uEh"]
    if not named:
        return []
    metric, n_train = METRICS["h_mae_uEh"], rows[0]["n_train"]
    return [
        f"Published for the same molecule and level of theory, but for the geometries of MD17 and {n_train} "
        f"training molecules, so for orientation only; {metric.heading}: {'; '.join(named)}. Here "
        f"{evaluation['h_mae_uEh']:.4g}. Sources: evaluate/published.csv in the package."
    ]


def _scf_table(guess: Mapping[str, Any]) -> Table:
    """Return cycles, Fock builds, time and energy of every start."""
    rows = []
    for start in ("minao", "model"):
        run = guess[start]
        energy, seconds = f"{run['energy_Eh']:.10f}", f"{run['seconds']:.2f}"
        rows.append((start, str(run["cycles"]), str(run["fock_builds"]), seconds, energy))
    return ("start", "cycles", "Fock builds", "seconds", "energy / Eh"), rows


def _markdown(part: Part) -> str:
    """Return a part as Markdown."""
    if isinstance(part, Path):
        return f"![{FIGURES[part.name]}]({part.name})"
    if isinstance(part, str):
        return part
    return markdown.table(*part)


def _html(part: Part) -> str:
    """Return a part as HTML, a figure as its bytes."""
    if isinstance(part, Path):
        data = base64.b64encode(part.read_bytes()).decode()
        caption = escape(FIGURES[part.name])
        image = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
    if isinstance(part, str):
        if part.startswith("**"):
            return f"<p><strong>{escape(part.strip('*'))}</strong></p>"
        level = len(part) - len(part.lstrip("#"))
        return f"<h{level}>{escape(part[level:].strip())}</h{level}>" if level else f"<p>{escape(part)}</p>"
    head, rows = part
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{lines}</table>"
