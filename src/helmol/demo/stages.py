"""The stages of the demo; each calls one room and leaves what the matching verb would leave."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import yaml

from helmol.demo.config import DemoConfig
from helmol.errors import InputError
from helmol.files import replacing, write_json, write_text
from helmol.system import Molecule

log = logging.getLogger("helmol.demo")

WATER = Molecule.from_angstrom([8, 1, 1], [[0.0, 0.0, 0.119], [0.0, 0.763, -0.477], [0.0, -0.763, -0.477]])
STORE, RUN = "water.h5", "run"
SHORTEST_TRAINING_MINUTES = 0.1
EDGES_PER_BATCH = 192
"""Batches of 32 waters: more steps in the time than with the default, and enough molecules for Muon."""


def structures_file(config: DemoConfig, out: Path) -> Path:
    """Run molecular dynamics and write its frames, in the order of time, to ``structures.extxyz``."""
    from helmol import structures

    path = out / "structures.extxyz"
    if not path.exists():
        recipe = structures.DynamicsConfig(n_frames=config.n_frames, temperature_k=config.temperature_k)
        frames = structures.md(WATER, recipe, seed=config.seed, name=config.molecule)
        structures.write(path, frames)
    return path


def labels(config: DemoConfig, out: Path, frames: Path) -> dict[str, Any]:
    """Label all frames but those between the segments, and name the splits.

    The test molecules come from a later part of the trajectory, ``n_gap`` frames after the last
    training molecule.
    """
    from helmol import generate, structures
    from helmol.store import Store
    from helmol.store.card import write_beside
    from helmol.store.split import random_split

    found = structures.read(frames)
    first, n_early = config.n_train + config.n_val, config.n_train + config.n_val + config.n_gap
    chosen = found[:first] + found[n_early : n_early + config.n_test]
    data = out / "labelled.extxyz"
    structures.write(data, chosen)
    spec = {
        "structures": {"files": [data.name]},
        "level": {"xc": config.xc, "basis": config.basis},
        "references": ["minao-lite", *(["minao"] if config.target == "fock-minus-minao" else [])],
        "seed": config.seed,
    }
    write_text(out / "generate.yaml", yaml.safe_dump(spec, sort_keys=False))
    settings = generate.read_spec(out / "generate.yaml")
    summary = generate.run(settings, out=out / STORE, workers=config.workers)
    with Store.open(out / STORE, "a") as store:
        there = set(store.ids)
        early = [frame.id for frame in chosen[:first] if frame.id in there]
        test = [frame.id for frame in chosen[first:] if frame.id in there]
        sizes = {"train": len(early) - config.n_val, "val": config.n_val}
        splits = {**random_split(early, sizes=sizes, seed=config.seed), "test": test}
        if store.splits != splits:
            store.set_splits(splits)
            write_beside(store)
    return summary


def data_card(out: Path) -> dict[str, Any]:
    """Check the store and write its card with figures to ``data/``."""
    from helmol.store import Store
    from helmol.store.card import write_card

    with Store.open(out / STORE) as store:
        return write_card(store, out / "data")


def train(config: DemoConfig, out: Path, *, spent_minutes: float) -> dict[str, Any]:
    """Train for the time that is left, or go on with a training that was stopped."""
    from helmol.train import read_config
    from helmol.train import run as run_training

    record = out / "train.yaml"
    if not record.exists():
        left = config.minutes - spent_minutes - config.reserve_minutes
        minutes = max(SHORTEST_TRAINING_MINUTES, min(config.train_minutes, left))
        settings = {
            "data": str(out / STORE),
            "target": config.target,
            "model": config.preset,
            "schedule": {"max_minutes": round(minutes, 3), "edges_per_batch": EDGES_PER_BATCH},
            "run": {
                "validate_every": 100, "checkpoint_every": 100,
                "n_threads": config.workers, "seed": config.seed,
            },
        }  # fmt: skip
        write_text(record, yaml.safe_dump(settings, sort_keys=False))
    training = read_config(record)
    limits = (f"{end} {limit:g}" for end, limit in training.schedule.ends.items() if limit is not None)
    log.info("target %s, %s", training.target.matrix, ", ".join(limits))
    result = run_training(training, out=out / RUN)
    with replacing(out / "learning_curve.png") as temporary:
        shutil.copyfile(out / RUN / "plots" / "learning_curve.png", temporary)
    return result


def evaluate(out: Path) -> dict[str, Any]:
    """Evaluate on the held-out molecules and put the plots beside the report."""
    from helmol.evaluate.run import evaluate_store

    result = evaluate_store(_model(out).model, out / STORE, split="test", out=out / "evaluation")
    for name, source in (("parity.png", "parity.png"), ("orbital_levels.png", "levels.png")):
        with replacing(out / name) as temporary:
            shutil.copyfile(out / "evaluation" / source, temporary)
    return result


def predict(out: Path, frames: Path) -> dict[str, Any]:
    """Predict the last frame of the trajectory, which stands in no set, and save the matrices."""
    from helmol.units import EV_PER_HARTREE

    prediction = _model(out).predict(unseen(frames), residual=True)
    prediction.save(out / "prediction.npz")
    return {
        "formula": prediction.molecule.formula,
        "homo_eV": prediction.homo * EV_PER_HARTREE,
        "lumo_eV": prediction.lumo * EV_PER_HARTREE,
        "gap_eV": prediction.gap * EV_PER_HARTREE,
        "dipole_debye": prediction.dipole,
        "charges": prediction.charges,
        "residual_Eh": prediction.residual,
        "moved": prediction.moved,
        "flags": list(prediction.flags),
    }


def guess(out: Path, frames: Path) -> dict[str, Any]:
    """Run the SCF of the unseen geometry from PySCF's minao guess and from the model."""
    from helmol.evaluate import plots
    from helmol.evaluate.remarks import no_gain
    from helmol.pyscf import compare_starts

    model, molecule = _model(out), unseen(frames)
    result = compare_starts(molecule, model, starts=("minao", "model"))
    result["remarks"] = no_gain({start: result[start] for start in ("minao", "model")})
    title = f"{molecule.formula}, {model.domain.level.label}"
    title += "; the model's start was not used" if result["fell_back"] else ""
    plots.scf_convergence(
        {start: result[start] for start in ("minao", "model")}, out / "scf_convergence.png", title=title
    )
    write_json(out / "guess.json", result)
    return result


def unseen(frames: Path) -> Molecule:
    """Return the last frame of the trajectory, a gap later than the last test molecule."""
    from helmol import structures

    found = structures.read(frames)
    if not found:
        raise InputError(f"{frames} holds no structures: remove it and start again")
    return found[-1].molecule


def _model(out: Path) -> Any:
    """Load the trained model of the demo."""
    from helmol.predict import TrainedModel

    return TrainedModel.load(out / RUN)
