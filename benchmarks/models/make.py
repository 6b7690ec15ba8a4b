"""Make a model that comes with helmol from its labels: references, splits, training, errors, card.

    python benchmarks/models/make.py organic --labels organic.h5 --test QM9=qm9.h5 --work work/

Every step that is done already is left alone; an interrupted training goes on. The model and its card are in
``work/organic/model``; ``--ship`` copies them into the package.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from helmol import shipped
from helmol.elements import SYMBOLS
from helmol.evaluate.metrics import METRICS
from helmol.files import write_text
from helmol.model import describe_model, load_model, save_model
from helmol.store import Store

HERE = Path(__file__).parent
REFERENCE = "minao-hartree"
ABOUT = {
    "organic": "Fock matrices of organic molecules of H C N O F P S Cl Br, closed shells, charges -1, 0, +1",
    "elements": "Fock matrices of small molecules of 53 elements up to Bi, closed shells, charges -1, 0, +1; "
    "of few labels so far: its dipoles are no better than those of its H₀",
}
LICENCE = "MIT, as helmol; labels made with PySCF by 'helmol generate'"


def main() -> None:
    """Make one model."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("name", choices=ABOUT)
    parser.add_argument("--labels", type=Path, required=True, help="store with splits train, val, test")
    parser.add_argument("--test", action="append", default=[], help="NAME=STORE of further test molecules")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder for all that is made")
    parser.add_argument("--ship", action="store_true", help="copy the result into the package")
    asked = parser.parse_args()
    work = asked.work / asked.name
    work.mkdir(parents=True, exist_ok=True)
    labels = with_reference(asked.labels, work)
    run = work / "run"
    if not (run / "card.md").exists():
        helmol("train", HERE / f"{asked.name}.yaml", "--out", run, "--set", f"data.store={labels}")
    tests = {"its own kind": (labels, "test")}
    for word in asked.test:
        name, _, path = word.partition("=")
        tests[name] = (with_reference(Path(path), work), "all")
    model = work / "model"
    if not newer(model / "model.json", run / "card.md"):
        model.mkdir(exist_ok=True)
        save_model(model, load_model(run / "checkpoints" / "best"), half=True)
    errors = {}
    for name, (store, split) in tests.items():
        found = work / f"{store.stem}-{split}.json"
        if not newer(found, model / "model.json"):
            helmol("evaluate", model, store, "--split", split, "--out", work / found.stem, "--json", found)
        errors[name] = json.loads(found.read_text(encoding="utf-8"))
    said = card(asked.name, model, labels, run, errors)
    write_text(model / shipped.CARD, json.dumps(said, indent=1) + "\n")
    if asked.ship:
        shutil.copytree(model, shipped.FOLDER / asked.name, dirs_exist_ok=True)


def helmol(*words: object) -> None:
    """Run a verb, and stop with it."""
    subprocess.run([sys.executable, "-m", "helmol", *map(str, words)], check=True)


def newer(file: Path, than: Path) -> bool:
    """Return whether a file is there and was made after another."""
    return file.exists() and file.stat().st_mtime > than.stat().st_mtime


def with_reference(store: Path, work: Path) -> Path:
    """Return a copy of a store that has H₀."""
    copy = work / store.name
    if not copy.exists():
        helmol("references", store, "--add", REFERENCE, "--out", copy)
    return copy


def training_rows(store: Store, run: Path) -> list[int]:
    """Return where the training molecules are in a store."""
    ids = set(json.loads((run / "split.json").read_text(encoding="utf-8"))["train"])
    return [row for row, id in enumerate(store.ids) if id in ids]


def card(name: str, model: Path, labels: Path, run: Path, errors: dict[str, Any]) -> dict[str, Any]:
    """Return what is said of a model."""
    _, domain, _ = describe_model(model)
    with Store.open(labels) as store:
        rows = training_rows(store, run)
        numbers = [set(store.molecule(row).numbers.tolist()) for row in rows]
        charges = Counter(int(store.molecule(row).charge) for row in rows)
        sizes = [len(store.molecule(row).numbers) for row in rows]
    count = Counter(z for found in numbers for z in found)
    return {
        "name": name,
        "description": ABOUT[name],
        "level": f"{domain.level.method.upper()} {domain.level.xc.upper()}/{domain.basis.name}",
        "target": domain.target,
        "elements": {SYMBOLS[z]: count[z] for z in sorted(count)},
        "charges": {charge: charges[charge] for charge in sorted(charges)},
        "atoms": [min(sizes), round(float(np.mean(sizes)), 1), max(sizes)],
        "n_molecules": len(rows),
        "tests": [test(name, result) for name, result in errors.items()],
        "bytes": sum(file.stat().st_size for file in model.iterdir()),
        "licence": LICENCE,
        "made_by": f"python benchmarks/models/make.py {name}",
    }


def test(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return the errors on one set of molecules, of the model and of its H₀ alone."""
    start = result["baselines"][REFERENCE]
    return {
        "name": name,
        "n_molecules": result["n_molecules"],
        "model": {key: result[key] for key in METRICS if result.get(key) is not None},
        "start": {key: start[key] for key in METRICS if start.get(key) is not None},
        "by_element": {element: found["h_mae_uEh"] for element, found in result["by_element"].items()},
        "by_element_pair": {pair: found["h_mae_uEh"] for pair, found in result["by_element_pair"].items()},
    }


if __name__ == "__main__":
    main()
