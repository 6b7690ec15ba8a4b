"""Energies from few labels: direct, frozen and fine-tuned networks on one split, with intervals over seeds.

    python benchmarks/transfer/study.py benchmarks/transfer/study.yaml --out runs/transfer

Runs that are finished are kept, those cut short go on, so the same command continues. After every run
``results.json``, ``table.md`` and ``figure.png`` in ``--out`` hold what is there so far (``--report`` does
nothing else).
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from report import write_report

from helmol.config import Config, parse, read_yaml
from helmol.errors import InputError
from helmol.evaluate.energies import energy_errors, predict_labels, read_label
from helmol.files import write_json
from helmol.model import find_model, load_model
from helmol.store import Store
from helmol.train import TrainConfig, combined, run
from helmol.units import EV_PER_HARTREE

log = logging.getLogger("helmol.benchmarks")

TEST_SETS = ("train", "test_conformers", "test_molecules")


class StudyConfig(Config):
    """Set the study; every arm is trained on the same molecules, and tested on the same."""

    data: Path
    """Store of conformers; the id of a conformer is ``MOLECULE-NUMBER``."""
    min_conformers: int = 3
    """Molecules with fewer labelled conformers are left out."""
    test_molecules: float = Field(0.2, ge=0, lt=1)
    """Share of the molecules that no network sees: the new-molecule test. 0 leaves that test out."""
    test_conformers: int = Field(1, ge=1)
    """Conformers of every training molecule that no network sees."""
    n_pool: int | None = None
    """Training conformers; unset means all that are left."""
    n_val: int = 24
    """Conformers that choose the best step, the same for every arm."""
    budgets: tuple[int, ...]
    """Numbers of energy labels; 0 is all training conformers."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of weights and data order, of pre-training and training."""
    split_seed: int = 0
    """Seed of the split."""
    common: dict[str, Any]
    """Keys of ``helmol train`` for all runs."""
    pretrain: dict[str, Any]
    """Keys for the runs on Fock matrices."""
    energy: dict[str, Any]
    """Keys for the runs on energies."""
    pretraining: dict[str, dict[str, Any]]
    """Kinds of pre-training by name: keys that differ from ``pretrain``."""
    arms: dict[str, ArmConfig]
    """What is compared, in order of importance."""


class ArmConfig(Config):
    """Set one arm."""

    init: str | None = None
    """Kind of pre-training to start from."""
    keys: dict[str, Any] = Field(default_factory=dict)
    """Keys that differ from ``energy``."""
    ablation: bool = False
    """Whether the arm can wait until the others are done."""
    budgets: tuple[int, ...] | None = None
    """Label budgets of this arm; unset means all of the study's."""


StudyConfig.model_rebuild()


@dataclass(frozen=True)
class Job:
    """Name one training: its folder under ``--out``, its keys, and for energies its place in the table."""

    name: str
    keys: dict[str, Any]
    arm: str | None = None
    budget: int = 0
    seed: int = 0


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="store to use instead of the configuration's")
    parser.add_argument("--report", action="store_true", help="write table and figure of what is there")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = parse(StudyConfig, read_yaml(arguments.config), source=str(arguments.config))
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    data = out / "data.h5"
    if not data.exists():
        # A copy, because the original may still grow.
        shutil.copy(arguments.data or config.data, out / "data.h5.part")
        (out / "data.h5.part").rename(data)
    split = split_store(data, config)
    jobs = list(all_jobs(config, data, out))
    for job in jobs:
        if not arguments.report:
            work(job, data, out)
            summarise(config, jobs, split, out)
    summarise(config, jobs, split, out)


def split_store(data: Path, config: StudyConfig) -> dict[str, list[str]]:
    """Draw the splits and write them to the store: by molecule first, then by conformer.

    ``train`` are the training conformers, of which a smaller budget takes a random part,
    ``test_conformers`` the last conformers of every training molecule, ``test_molecules`` all conformers
    of the others.

    Raises:
        InputError: too few molecules or conformers.
    """
    with Store.open(data) as store:
        old = {name: list(ids) for name, ids in store.splits.items()}
        conformers: dict[str, list[str]] = {}
        for identity in sorted(store.ids):
            conformers.setdefault(identity.rpartition("-")[0], []).append(identity)
        rng = np.random.default_rng(config.split_seed)
        whole = [name for name, ids in conformers.items() if len(ids) >= config.min_conformers]
        molecules = [whole[k] for k in rng.permutation(len(whole))]
        n_test = round(config.test_molecules * len(molecules))
        known, n_last = molecules[n_test:], config.test_conformers
        rest = [identity for name in known for identity in conformers[name][:-n_last]]
        pool = [rest[k] for k in rng.permutation(len(rest))]
        if len(pool) <= config.n_val + max(config.budgets):
            raise InputError(f"{len(pool)} training conformers in {data}: too few for {config.budgets}")
        split = {
            "val": pool[: config.n_val],
            "train": pool[config.n_val :][: config.n_pool],
            "test_conformers": [identity for name in known for identity in conformers[name][-n_last:]],
            "test_molecules": [identity for name in molecules[:n_test] for identity in conformers[name]],
        }
        split = {name: ids for name, ids in split.items() if ids}
    if split != old:
        with Store.open(data, "a") as store:
            store.set_splits(split)
    return split


def all_jobs(config: StudyConfig, data: Path, out: Path) -> Iterator[Job]:
    """Yield every training, each after the pre-training it needs: seed by seed, ablations at the end."""
    common = combined({"data": {"store": str(data), "val": "val"}}, config.common)
    made: set[str] = set()
    whole = [(seed, budget) for seed in config.seeds for budget in config.budgets]
    for ablation, (seed, budget), (arm, settings) in product((False, True), whole, config.arms.items()):
        if settings.ablation != ablation or budget not in (settings.budgets or config.budgets):
            continue
        if settings.init is not None:
            name = f"pretrain-{settings.init}-{seed}"
            if name not in made:
                made.add(name)
                special = config.pretraining[settings.init]
                mine = {"task": "hamiltonian", "data": {"train": "train"}, "run": {"seed": seed}}
                yield Job(name, combined(common, config.pretrain, special, mine))
        mine = {"task": "energy", "data": {"train": budget or "train"}, "run": {"seed": seed}}
        if settings.init is not None:
            mine["init"] = {"model": str(out / name)}
        yield Job(
            f"{arm.replace(' ', '-').replace(',', '')}-{budget or 'all'}-{seed}",
            combined(common, config.energy, settings.keys, mine),
            arm, budget, seed,
        )  # fmt: skip


def work(job: Job, data: Path, out: Path) -> None:
    """Train one network, or go on with it, and test it."""
    folder = out / job.name
    if (folder / "tested.json").exists():
        return
    log.info("--- %s", job.name)
    result = run(parse(TrainConfig, job.keys, source=job.name), out=folder)
    tested = {"steps": result["steps"], "seconds": result["seconds"], "start": result["start"]}
    tested |= {"best": result["best"], "parameters": result["parameters"]}
    if job.arm is not None:
        with Store.open(data) as store:
            there = [name for name in TEST_SETS if name == "train" or name in store.splits]
        tested |= {name: test(folder, data, name, job) for name in there}
    write_json(folder / "tested.json", tested)


def test(folder: Path, data: Path, name: str, job: Job) -> dict[str, Any]:
    """Return errors of energies and forces on a split, and the energy error of every molecule (meV)."""
    network = load_model(find_model(folder))
    with Store.open(data) as store:
        trained = json.loads((folder / "split.json").read_text())["train"]
        ids = trained if name == "train" else store.splits[name]
        labels = [read_label(store, store.row(identity)) for identity in ids]
    start = time.perf_counter()
    predicted = predict_labels(network, labels)
    table = energy_errors(labels, predicted)
    table["seconds"] = time.perf_counter() - start
    pairs = zip(labels, predicted, strict=True)
    table["errors_meV"] = {x.id: round(1000 * EV_PER_HARTREE * (y.energy - x.energy), 3) for x, y in pairs}
    return table


def summarise(config: StudyConfig, jobs: Sequence[Job], split: dict[str, list[str]], out: Path) -> None:
    """Write JSON, table and figure of what has been tested."""
    runs = []
    for job in jobs:
        path = out / job.name / "tested.json"
        if path.exists():
            tested = json.loads(path.read_text())
            runs.append({"name": job.name, "arm": job.arm, "budget": job.budget, "seed": job.seed, **tested})
    sizes = {name: len(ids) for name, ids in split.items()}
    write_report({"config": config.model_dump(mode="json"), "split": sizes, "runs": runs}, out)


if __name__ == "__main__":
    main()
