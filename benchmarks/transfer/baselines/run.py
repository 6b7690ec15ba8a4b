"""Energies of new molecules from few labels by Δ-learning on cheap energies, without a network.

``python run.py baselines.yaml --data STORE.h5 --out results.json [--also NAME=STORE.h5 ...]``; needs
scikit-learn, and tblite for the base ``gfn2``. What was computed for a molecule is kept beside ``--out``, and
the same command goes on where it stopped.

Bases, of which the difference to the label is learnt:

* ``none``: nothing.
* ``band``: sum of the occupied orbital energies of ``minao-lite``.
* ``superposed``: the energy of the density of these orbitals (:func:`helmol.dft.energy_about_atoms`).
* ``gfn2``: GFN2-xTB.

Learners: ``elements``, a constant of each element and of the charge; ``kernel``, on what these leave a
Gaussian kernel of histograms of distances by pair of elements (scikit-learn's KernelRidge, its two numbers by
five-fold cross-validation).
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from helmol import dft, properties
from helmol.files import write_json
from helmol.progress import Progress
from helmol.store import Store
from helmol.structures.xtb import xtb_atoms
from helmol.system import Molecule, Sample
from helmol.units import EV_PER_HARTREE

log = logging.getLogger("baselines")

MEV = 1000 * EV_PER_HARTREE
CENTRES = np.arange(1.0, 9.0, 0.4)
"""Of the histograms, bohr; the width is their distance."""


def band(sample: Sample, level: dft.LevelConfig) -> float:
    """Return the sum of the occupied levels of H₀, Eh."""
    mo_energy, _ = properties.orbitals(sample.matrices.references["minao-lite"], sample.matrices.overlap)
    electrons = dft.build_mole(sample.molecule, level).nelectron
    return float(properties.occupations(mo_energy, int(electrons)) @ mo_energy)


def superposed(sample: Sample, level: dft.LevelConfig) -> float:
    """Return the energy of H₀'s density about superposed atoms, Eh."""
    mole, reference = dft.build_mole(sample.molecule, level), sample.matrices.references["minao-lite"]
    mo_energy, mo_coeff = properties.orbitals(reference, sample.matrices.overlap)
    density = properties.density(mo_coeff, properties.occupations(mo_energy, int(mole.nelectron)))
    return dft.energy_about_atoms(mole, level, reference=reference, density=density)


def gfn2(sample: Sample, level: dft.LevelConfig) -> float:
    """Return the energy of GFN2-xTB, Eh."""
    return float(xtb_atoms(sample.molecule, what="the base gfn2").get_potential_energy() / EV_PER_HARTREE)


BASES: dict[str, Callable[[Sample, dft.LevelConfig], float]] = {
    "band": band, "superposed": superposed, "gfn2": gfn2,
}  # fmt: skip


def histogram(molecule: Molecule, elements: list[int]) -> np.ndarray:
    """Return by pair of elements how many distances are near each centre; near ones count more."""
    place = {z: k for k, z in enumerate(elements)}
    found = np.zeros((len(elements), len(elements), len(CENTRES)))
    numbers, positions = molecule.numbers.tolist(), molecule.positions
    for a in range(len(numbers)):
        for b in range(a):
            r = np.linalg.norm(positions[a] - positions[b])
            i, j = sorted((place[numbers[a]], place[numbers[b]]))
            found[i, j] += np.exp(-0.5 * ((r - CENTRES) / 0.4) ** 2) / r**2
    return found[np.triu_indices(len(elements))].ravel()


def energies(store: Path, rows: list[int], base: str, kept: Path) -> np.ndarray:
    """Return a base's energies of some rows of a store, NaN where it fails; those of before are kept."""
    if base == "none":
        return np.zeros(len(rows))
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    with Store.open(store) as data, Progress(f"{base} of {store.name}", total=len(rows)) as bar:
        level = dft.level_from(data.level)
        for count, row in enumerate(rows):
            key = f"{base} {data.ids[row]}"
            if key not in known:
                try:
                    known[key] = BASES[base](data.read(row), level)
                except (RuntimeError, ValueError) as error:
                    known[key] = None
                    log.warning("%s: %s", key, error)
            if count % 50 == 49:
                write_json(kept, known)
            bar.advance()
        write_json(kept, known)
        return np.array([np.nan if (v := known[f"{base} {data.ids[r]}"]) is None else v for r in rows])


def learn(
    counts: np.ndarray, features: np.ndarray, rest: np.ndarray, new: list[tuple[np.ndarray, np.ndarray]]
) -> Any:
    """Return predictions of both learners for several sets of new molecules."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    constants = np.linalg.lstsq(counts, rest, rcond=None)[0]
    left = rest - counts @ constants
    scale = np.sqrt(np.mean(np.sum((features - features.mean(axis=0)) ** 2, axis=1)))
    search = GridSearchCV(
        KernelRidge(kernel="rbf"), {"alpha": [1e-5, 1e-3, 1e-1], "gamma": [0.03, 0.3]}, cv=5,
        scoring="neg_mean_absolute_error",
    )  # fmt: skip
    search.fit(features / scale, left)
    return {
        "elements": [c @ constants for c, _ in new],
        "kernel": [c @ constants + search.predict(f / scale) for c, f in new],
    }


def main() -> None:
    """Run the study."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=STORE")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    config = yaml.safe_load(arguments.config.read_text(encoding="utf-8"))
    with Store.open(arguments.data) as data:
        parts = {"train": (arguments.data, data.indices(config["split"]))}
        parts |= {name: (arguments.data, data.indices(split)) for name, split in config["tests"].items()}
    for also in arguments.also:
        name, _, path = also.partition("=")
        with Store.open(path) as data:
            parts[name] = Path(path), list(range(len(data)))
    molecules, labels = {}, {}
    for name, (path, rows) in parts.items():
        with Store.open(path) as data:
            molecules[name] = [data.molecule(row) for row in rows]
            labels[name] = np.array([float(data.values("energy", row)[0]) for row in rows])
    elements = sorted({z for part in molecules.values() for m in part for z in m.numbers.tolist()})
    counts = {
        name: np.array([[np.sum(m.numbers == z) for z in elements] + [m.charge] for m in part], dtype=float)
        for name, part in molecules.items()
    }
    features = {name: np.array([histogram(m, elements) for m in part]) for name, part in molecules.items()}
    rows_out: list[dict[str, Any]] = []
    for base in config["bases"]:
        kept = arguments.out.with_name(f"{arguments.out.stem}.{base}.json")
        rest = {name: labels[name] - energies(path, rows, base, kept) for name, (path, rows) in parts.items()}
        usable = {name: np.flatnonzero(np.isfinite(values)) for name, values in rest.items()}
        tests = [name for name in parts if name != "train"]
        for budget in config["budgets"]:
            errors: dict[tuple[str, str], list[float]] = {}
            for seed in config["seeds"]:
                drawn = np.random.default_rng(seed).permutation(usable["train"])[:budget]
                new = [(counts[name][usable[name]], features[name][usable[name]]) for name in tests]
                found = learn(counts["train"][drawn], features["train"][drawn], rest["train"][drawn], new)
                for learner, predictions in found.items():
                    for name, values in zip(tests, predictions, strict=True):
                        error = MEV * np.abs(values - rest[name][usable[name]])
                        errors.setdefault((learner, name), []).append(float(error.mean()))
            rows_out += [
                {"base": base, "learner": learner, "test": name, "energies": budget,
                 "mae_meV": float(np.mean(values)), "std_over_seeds_meV": float(np.std(values)),
                 "n_test": len(usable[name])}
                for (learner, name), values in errors.items()
            ]  # fmt: skip
            write_json(arguments.out, {"config": config, "rows": rows_out})
            for row in rows_out[-2 * len(tests) :]:
                log.info("%s", row)


if __name__ == "__main__":
    main()
