"""Errors of the model `elements` across the periodic table, beside those of three cheap starting points.

    python benchmarks/elements/run.py elements.h5 --work work

``elements.h5`` holds the labels with their splits (see ``benchmarks/models/make.py``). Its test molecules get
`minao`, `minao-lite` and `minao-hartree`; `helmol evaluate` makes table and pictures, which are copied here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from helmol.files import write_json, write_text
from helmol.markdown import table
from helmol.store import Store

HERE = Path(__file__).parent
GUESSES = ("minao-hartree", "minao-lite", "minao")
KEPT = ("by_element", "by_element_pair", "by_distance")
WANTED = 5.0
"""How many times less than `minao` the error of an element's own blocks should be."""


def main() -> None:
    """Evaluate and write numbers, table and pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", type=Path)
    parser.add_argument("--model", default="elements")
    parser.add_argument("--work", type=Path, default=Path("work"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    bare, whole = asked.work / "test.h5", asked.work / "test-references.h5"
    if not whole.exists():
        bare.unlink(missing_ok=True)
        with (
            Store.open(asked.labels) as labels,
            Store.create(bare, level=labels.level, basis=labels.basis) as to,
        ):
            to.append([labels[labels.ids.index(id)] for id in labels.splits["test"]])
        helmol("references", bare, "--add", ",".join(GUESSES), "--out", whole)
    found = asked.work / "table.json"
    helmol("evaluate", asked.model, whole, "--split", "all", "--out", asked.work / "table", "--json", found)
    result = json.loads(found.read_text(encoding="utf-8"))
    write_json(HERE / "results.json", kept(result))
    for picture in ("elements.png", "distances.png"):
        shutil.copy(asked.work / "table" / picture, HERE / picture)
    write_text(HERE / "table.md", page(result))


def helmol(*words: object) -> None:
    """Run a verb, and stop with it."""
    subprocess.run([sys.executable, "-m", "helmol", *map(str, words)], check=True)


def kept(result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of an evaluation that the table is made of."""

    def numbers(part: dict[str, Any]) -> dict[str, Any]:
        found = {key: value for key, value in part.items() if isinstance(value, int | float)}
        return found | {key: part[key] for key in KEPT}

    return {"model": numbers(result), **{name: numbers(result["baselines"][name]) for name in GUESSES}}


def page(result: dict[str, Any]) -> str:
    """Return the table by element and by distance."""
    parts = [result, *(result["baselines"][name] for name in GUESSES)]
    rows: list[list[object]] = []
    for element, own in result["by_element"].items():
        values = [part["by_element"][element]["h_mae_uEh"] for part in parts]
        pairs = [
            entry["h_mae_uEh"]
            for pair, entry in result["by_element_pair"].items()
            if element in pair.split("-")
        ]
        worst = max(pairs, default=float("nan"))
        rows.append(
            [
                element,
                *(f"{v:,.0f}" for v in values),
                f"{values[-1] / values[0]:.1f}",
                f"{worst:,.0f}",
                f"{own['n_elements']:,}",
            ]
        )
    good = sum(float(str(row[5])) >= WANTED for row in rows)
    far = [
        [distance, *(f"{part['by_distance'][distance]['h_mae_uEh']:.3g}" for part in parts)]
        for distance in result["by_distance"]
    ]
    head = ["model", *GUESSES]
    return "\n\n".join([
        f"# `elements` on {result['n_molecules']} molecules it has not seen",
        "Mean |ΔF| / µEh of blocks of one atom, by element:",
        table(["element", *head, "minao / model", "worst pair, model", "matrix elements"], rows),
        f"{good} of {len(rows)} elements are at least {WANTED:g} times nearer than `minao`.",
        "Mean |ΔF| / µEh of blocks of two atoms, by distance:",
        table(["distance / Å", *head], far),
        "![by element](elements.png)", "![by distance](distances.png)",
    ]) + "\n"  # fmt: skip


if __name__ == "__main__":
    main()
