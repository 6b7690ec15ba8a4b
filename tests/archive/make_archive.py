"""Make the folder ``helmol-0.1``: what helmol 0.1 left on disks, and what it said of it.

The archive was made once, with helmol 0.1.0 (commit 087b41f, torch 2.13.0, PySCF 2.14.0, a CPU,
one thread), and is not made again: a later helmol must read it and answer alike, which ``test_archive.py``
checks. This script is kept to say what is in it. It refuses another version and an archive that is there.
Seeds are fixed, so that a second run with the same versions differs by no more than rounding and the times
noted in provenances and metrics.

    PYTHONPATH=src:tests python tests/archive/make_archive.py

* ``stores``: small molecules labelled with PySCF, and ``expected.json`` with what they hold; compressed, as a
  file of HDF5 keeps room for more.
* ``models``: model folders, each with ``NAME.npz`` beside it: samples as arrays and the answers of 0.1, with
  weights in float32 and in float64 (the same, cast). Networks are trained for some steps, then all weights
  are changed a little at random, so that none is zero or one because it started so. ``older-NAME`` is NAME
  as an older helmol described it.
* ``runs``: run folders of processes that were killed; what they would have ended in: the last model and what
  it says as ``NAME.end`` and ``NAME.end.npz``, metrics in ``NAME.expected.json``.
* ``generated``: a data set whose making was killed after two of four molecules.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import helmol
from archive import replay
from archive.replay import ARCHIVE
from helmol import dft, generate
from helmol.basis import BasisSet
from helmol.config import parse
from helmol.dft import LevelConfig
from helmol.generate.records import Records
from helmol.model import find_model, load_model, save_model, set_overlap_floor
from helmol.store import Store, journal
from helmol.system import Matrices, Molecule, Sample
from helmol.train import TrainConfig
from helmol.units import ANGSTROM_PER_BOHR

# Å; atomic numbers, positions, and (charge, 2S) of closed shells by default.
WATER = ((8, 1, 1), [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
AMMONIA = ((7, 1, 1, 1), [[0, 0, 0], [0, -0.94, -0.38], [0.81, 0.47, -0.38], [-0.81, 0.47, -0.38]])
CYANIDE = ((1, 6, 7), [[0, 0, -1.07], [0, 0, 0], [0, 0.05, 1.16]])
FORMALDEHYDE = ((6, 8, 1, 1), [[0, 0, 0], [0, 0, 1.21], [0, 0.94, -0.59], [0, -0.94, -0.59]])
PEROXIDE = ((8, 8, 1, 1), [[0, 0, 0], [1.45, 0, 0], [-0.2, 0.95, 0.1], [1.65, -0.5, 0.82]])
OXYGEN = ((8, 8), [[0, 0, 0], [0, 0, 1.21]])
SULPHIDE = ((16, 1, 1), [[0, 0, 0], [0, 0.97, 0.93], [0, -0.97, 0.93]])
IODIDE = ((53, 1), [[0, 0, 0], [0, 0, 1.61]])
THIOL = ((53, 16, 1), [[0, 0, 0], [0, 0, 2.42], [0, 1.33, 2.6]])
FAR = ((8, 1, 1, 1, 1), [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59], [3.9, 0.0, 0.2], [4.6, 0.1, 0.0]])

CHEAP = {"xc": "pbe", "basis": "sto-3g", "grid_level": 0}
TINY = {
    "channels": 3, "n_layers": 1, "n_radial": 5, "radial_channels": 4, "element_channels": 2,
    "residual_scale": 1.0,
}  # fmt: skip


def labelled(
    name: str, kinds: Sequence[tuple[Any, Any, tuple[int, int]]], n: int, level: Mapping[str, Any], *,
    seed: int, **asked: Any,
) -> tuple[list[Sample], BasisSet]:  # fmt: skip
    """Return ``n`` distorted molecules, the kinds in turn, with labels of PySCF, and their basis."""
    rng = np.random.default_rng(seed)
    samples, basis = [], None
    for k in range(n):
        numbers, start, (charge, spin) = kinds[k % len(kinds)]
        positions = (np.array(start) + 0.04 * rng.normal(size=np.shape(start))) / ANGSTROM_PER_BOHR
        molecule = Molecule(np.array(numbers), positions, charge, spin)
        sample, mine = dft.run(
            molecule,
            LevelConfig(**level),
            id=f"{name}-{k:02d}",
            provenance={"kind": molecule.formula},
            **asked,
        )
        # Times of a machine are no part of an archive.
        kept = {key: v for key, v in sample.provenance.items() if "seconds" not in key}
        samples.append(replace(sample, provenance=kept))
        basis = mine if basis is None else basis.merged(mine)
    return samples, basis


def write_store(
    path: Path, samples: Sequence[Sample], basis: BasisSet, level: Mapping[str, Any], *, method: str = "rks",
    splits: Mapping[str, int] | None = None,
) -> None:  # fmt: skip
    """Write a store; ``splits`` are cut from the start of the samples."""
    config = LevelConfig(**level)
    numbers = set(basis.elements)
    of = dft.level_of_theory(config, method=method, auxbasis=dft.auxiliary_name(config, numbers))
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store.create(path, level=of, basis=basis) as store:
        store.append(samples)
        start, named = 0, {}
        for name, n in (splits or {}).items():
            named[name] = [sample.id for sample in samples[start : start + n]]
            start += n
        store.set_splits(named)


def make_stores(folder: Path) -> None:
    """Label molecules and write every kind of store."""
    neutral, every = (0, 0), ("minao", "minao-step", "sap")
    kinds = [(*kind, neutral) for kind in (WATER, AMMONIA, CYANIDE, FORMALDEHYDE, PEROXIDE)]
    samples, basis = labelled("rks", kinds, 25, CHEAP, seed=1, forces=True, references=every)
    write_store(folder / "rks.h5", samples, basis, CHEAP, splits={"train": 18, "val": 5, "test": 2})

    # Three kinds in turn, where the closed-form part leaves out every fifth molecule: it must see all.
    kinds = [(*WATER, neutral), (*WATER, (1, 1)), (*OXYGEN, (0, 2))]
    level = {**CHEAP, "method": "uks"}
    samples, basis = labelled("uks", kinds, 27, level, seed=2, forces=True)
    # A matrix that some samples have and others have not.
    samples[:1] = labelled("uks", kinds, 1, level, seed=2, forces=True, density=True)[0]
    write_store(folder / "uks.h5", samples, basis, level, method="uks", splits={"train": 24, "val": 3})

    # Only oxygen and hydrogen: the closed-form part has its quadratic features.
    kinds = [(*WATER, neutral), (*PEROXIDE, neutral), (*FAR, neutral)]
    samples, basis = labelled("water", kinds, 24, CHEAP, seed=3)
    write_store(folder / "water.h5", samples, basis, CHEAP, splits={"train": 21, "val": 3})

    # Effective core potential, d shells, many signatures.
    level = {"xc": "pbe", "basis": "def2-svp", "grid_level": 0}
    kinds = [(*IODIDE, neutral), (*SULPHIDE, neutral), (*CYANIDE, neutral), (*WATER, neutral)]
    samples, basis = labelled("ecp", kinds, 4, level, seed=4)
    # The last one has a pair of atoms that no training molecule has.
    kinds = [*kinds[:2], (*THIOL, neutral)]
    more, _ = labelled("ecp-val", kinds, 3, level, seed=14)
    write_store(folder / "ecp.h5", [*samples, *more], basis, level, splits={"train": 4, "val": 3})

    level = {"xc": "pbe", "basis": "def2-tzvp", "grid_level": 0}
    samples, basis = labelled("f-shells", [(*WATER, neutral)], 3, level, seed=5)
    write_store(folder / "tzvp.h5", samples, basis, level, splits={"train": 2, "val": 1})

    # Energies and forces alone; a level with an auxiliary basis and an empirical dispersion.
    level = {**CHEAP, "xc": "HYB_GGA_XC_WB97X_D", "density_fit": True}
    kinds = [(*kind, neutral) for kind in (WATER, PEROXIDE, AMMONIA)]
    samples, basis = labelled("energies", kinds, 6, level, seed=6, forces=True, dipole=False)
    bare = [replace(s, matrices=Matrices(np.empty((0, 0))), provenance={}) for s in samples]
    bare[1] = replace(bare[1], forces=None)
    write_store(folder / "energies.h5", bare, basis, level)

    # A writer that was killed when its journal was complete and nothing of it in the store, and one killed
    # in the middle of the journal.
    with Store.open(folder / "rks.h5") as store:
        samples, level_of, basis = list(store), store.level, store.basis
    for name in ("journal.h5", "half-journal.h5"):
        with Store.create(folder / name, level=level_of, basis=basis) as store:
            store.append(samples[:2])
        child = os.fork()
        if not child:
            if name == "journal.h5":
                journal._apply = lambda *_: os._exit(9)
            else:
                journal._write_journal = half_a_journal
            with Store.open(folder / name, "a") as store:
                store.append(samples[2:4])
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert (folder / f"{name}.journal").exists()


def half_a_journal(path: Path, **_: Any) -> None:
    """Die in the middle of writing a journal."""
    path.write_bytes(b"HELMOLJ1" + bytes(100))
    os._exit(9)


def expect_stores(folder: Path) -> None:
    """Write what the stores hold; those with a journal are opened as copies."""
    expected = {}
    for path in sorted(folder.glob("*.h5")):
        place = folder.parent / "opened"
        place.mkdir()
        for file in folder.glob(f"{path.name}*"):
            shutil.copy(file, place)
        expected[path.name] = replay.describe_store(place / path.name)
        shutil.rmtree(place)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")


MODELS: dict[str, dict[str, Any]] = {
    # Fock matrices.
    "minao": {"data": "rks", "target": "fock-minus-minao"},
    "fock": {"data": "rks", "target": "fock", "model": {"radial": "edge"}},
    "sap": {
        "data": "rks", "target": "fock-minus-sap",
        "model": {"mmax": 1, "cutoff": 6.0, "message_cutoff": 3.0},
    },
    "unscaled": {"data": "rks", "target": "fock", "centring": False, "scaling": False},
    "uncentred": {"data": "rks", "target": "fock-minus-minao", "centring": False, "model": {"n_layers": 2}},
    "helm-paper": {"data": "rks", "preset": "helm-paper", "loss": "rmse+mse", "model": {"n_layers": 2}},
    "float64": {"data": "rks", "dtype": "float64", "model": {"lmax": 3}},
    "uks": {"data": "uks", "target": "fock-minus-minao"},
    "uks-linear": {"data": "uks", "target": "fock-minus-minao", "linear": "small", "floor": 0.01},
    "linear": {"data": "water", "linear": "small", "model": {"cutoff": 9.0}},
    "floor": {"data": "rks", "target": "fock-minus-minao-step", "floor": 0.03},
    "inputs": {
        "data": "rks", "target": "fock-minus-minao-step",
        "model": {"inputs": ["reference", "change", "density", "overlap"]},
    },
    "uks-inputs": {
        "data": "uks", "target": "fock-minus-minao", "model": {"inputs": ["reference", "density", "overlap"]},
    },
    "ecp": {"data": "ecp", "target": "fock-minus-minao", "model": {"lmax": 4}},
    "ecp-inputs": {
        "data": "ecp", "target": "fock-minus-minao",
        "model": {"inputs": ["reference"], "lmax": 5, "channels": 2},
    },
    "f-shells": {"data": "tzvp", "target": "fock-minus-minao", "model": {"channels": 2}},
    # Energies, alone, from a model of Fock matrices, and beside Fock matrices.
    "energy-linear": {"data": "rks", "task": "energy", "readout": "linear", "force_weight": 1.0},
    "energy-convolution": {
        "data": "rks", "task": "energy", "readout": "convolution", "force_weight": 1.0,
        "model": {"lmax": 4, "radial": "edge"},
    },
    "energy-direct": {
        "data": "rks", "task": "energy", "readout": "convolution", "forces": "direct", "force_weight": 1.0,
        "model": {"message_cutoff": 5.0},
    },
    "energy-frozen": {
        "data": "rks", "task": "energy", "readout": "elements", "init": "minao", "freeze": True,
    },
    "energy-tuned": {
        "data": "rks", "task": "energy", "readout": "linear", "init": "helm-paper", "force_weight": 0.5,
        "backbone_lr_factor": 0.1, "head_warmup_steps": 3, "energy_loss": "mse",
    },
    "both": {"data": "rks", "task": "both", "readout": "convolution", "force_weight": 0.5},
    "both-uks": {"data": "uks", "task": "both", "readout": "linear", "init": "uks"},
}  # fmt: skip
"""Name of each model and how its configuration differs from ``settings``; ``floor`` is of the overlap."""


def settings(data: str, **changes: Any) -> dict[str, Any]:
    """Return a configuration; keys of ``model`` are added to the smallest network."""
    model = {} if "init" in changes else {**TINY, **changes.pop("model", {})}
    if changes.get("preset") == "helm-paper":
        del model["residual_scale"]
    return {
        "data": f"stores/{data}.h5", "preset": "nano", "linear": "none", "edges_per_batch": 30,
        "max_steps": 10, "warmup_steps": 2, "validate_every": 5, "checkpoint_every": 5, "n_threads": 1,
        "ema_decay": 0.8, "seed": 7, "device": "cpu", **changes, "model": model,
    }  # fmt: skip


@torch.no_grad()
def shake(network: torch.nn.Module, seed: int) -> None:
    """Change all weights at random by a tenth of their size, zeros by a hundredth."""
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        size = max(float(weight.square().mean()) ** 0.5, 0.1)
        weight += 0.1 * size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)


def make_models(folder: Path, work: Path) -> None:
    """Train, shake and save every model, and write what it says."""
    for number, (name, changes) in enumerate(MODELS.items()):
        changes = dict(changes)
        floor = changes.pop("floor", None)
        if "init" in changes:
            changes["init"] = f"models/{changes['init']}"
        data = f"stores/{changes['data']}.h5"
        replay.train(parse(TrainConfig, settings(**changes)), work / name)
        network = load_model(find_model(work / name))
        shake(network, number)
        save_model(folder / name, network, extra={"step": 10})
        if floor is not None:
            set_overlap_floor(folder / name, floor)
        with Store.open(data) as store:
            ids = store.splits["val"]
        # Of five kinds three that have all elements between them.
        chosen = [ids[0], ids[3], ids[4]] if len(ids) == 5 else ids
        say(folder / name, replay.samples_of(Path(data), chosen))
    make_older(folder)


def make_older(folder: Path) -> None:
    """Copy models without the keys that came into ``model.json`` one by one before 0.1."""
    for source in ("fock", "linear"):
        older = folder / f"older-{source}"
        older.mkdir()
        (older / "model.safetensors").symlink_to(f"../{source}/model.safetensors")
        path = older / "model.json"
        data = json.loads((folder / source / "model.json").read_text())
        for key in ("inputs", "message_cutoff", "mmax"):
            del data["model"][key]
        del data["overlap_floor"], data["domain"]["states"]
        if source == "fock":
            # A model that had radial weights per edge, before there was a choice.
            del data["model"]["radial"], data["linear"]
        else:
            del data["linear"]["n_spins"], data["linear"]["states"]
        path.write_text(json.dumps(data, indent=1) + "\n")
        with np.load(folder / f"{source}.npz") as arrays:
            again = replay.answers(replay.load(older), replay.samples_from_arrays(arrays))
            for key, value in again.items():
                assert np.array_equal(value, arrays[f"float32 {key}"]), key


def say(folder: Path, samples: Sequence[Sample]) -> None:
    """Write what a model says of samples beside its folder."""
    arrays = replay.samples_to_arrays(samples)
    network = replay.load(folder)
    for precision in replay.PRECISIONS:
        found = replay.answers(replay.as_precision(network, precision), samples)
        arrays |= {f"{precision} {name}": value for name, value in found.items()}
    bad = [name for name, value in arrays.items() if not np.isfinite(value).all()]
    assert not bad, bad
    np.savez_compressed(folder.with_name(f"{folder.name}.npz"), **arrays)


RUNS: dict[str, dict[str, Any]] = {
    "fock": {"data": "water", "linear": "small"},
    "energy": {
        "data": "rks", "task": "energy", "readout": "linear", "force_weight": 1.0, "init": "models/minao",
        "head_warmup_steps": 3, "backbone_lr_factor": 0.5,
    },
    "both": {
        "data": "rks", "task": "both", "optimizer": "adamw", "readout": "linear", "orbital_loss": "occupied",
    },
}  # fmt: skip
"""Runs that were killed, as :data:`MODELS`."""


def make_runs(folder: Path, work: Path) -> None:
    """Let each run end, and let it die in step 11 of 16 with a checkpoint of step 9."""
    folder.mkdir()
    for name, changes in RUNS.items():
        config = parse(
            TrainConfig, settings(**changes) | {"max_steps": 16, "validate_every": 4, "checkpoint_every": 3}
        )
        result = replay.train(config, work / f"whole-{name}")
        with replay.dying_in_step(11):
            replay.train(config, folder / name)
        # Which machine it was is no part of an archive.
        path = folder / name / "environment.json"
        environment = {**json.loads(path.read_text()), "platform": "Linux", "device_name": "x86_64"}
        path.write_text(json.dumps(environment, indent=1) + "\n")
        again = work / f"again-{name}"
        shutil.copytree(folder / name, again)
        resumed = replay.train(config, again)
        assert resumed["resumed_from"] == 9
        end = folder / f"{name}.end"
        shutil.copytree(work / f"whole-{name}" / "checkpoints" / "last", end)
        for file in end.glob("state.*"):
            file.unlink()
        with Store.open(config.data) as store:
            ids = store.splits["val"][:3]
        say(end, replay.samples_of(config.data, ids))
        rows = replay.rows_of_metrics(work / f"whole-{name}")
        expected = {"metrics": rows, "best_step": result["best"]["step"], "resumed_from": 9}
        (folder / f"{name}.expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def make_generated(folder: Path) -> None:
    """Begin to make a data set and die after the second label."""
    folder.mkdir()
    frames = []
    for k in range(4):
        frames += ["3", f"water {k}", *(f"{s} {x:.3f} {y:.3f} {z + 0.02 * k:.3f}" for s, (x, y, z) in
                   zip("OHH", WATER[1], strict=True))]  # fmt: skip
    (folder / "water.xyz").write_text("\n".join(frames) + "\n")
    spec = {
        "structures": {"files": ["water.xyz"]}, "level": {"xc": "hf", "basis": "sto-3g"}, "seed": 3,
        "forces": True, "engine": "cpu", "splits": {"train": 3, "test": 1},
    }  # fmt: skip
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    add = Records.add

    def dies(self: Records, outcome: Any) -> None:
        add(self, outcome)
        self.flush(force=True)
        if len(self.store) == 2:
            raise replay.Killed

    Records.add = dies
    try:
        generate.run(generate.read_spec(folder / "spec.yaml"), out=folder / "water.h5", workers=1)
    except replay.Killed:
        pass
    finally:
        Records.add = add
    held = replay.describe_store(folder / "water.h5")["samples"]
    assert len(held) == 2
    (folder / "expected.json").write_text(json.dumps(held, indent=1) + "\n")


def main() -> None:
    """Make all of it."""
    if helmol.__version__ != "0.1.0":
        raise SystemExit(f"this is the archive of helmol 0.1.0, not of {helmol.__version__}")
    if ARCHIVE.exists():
        raise SystemExit(f"{ARCHIVE} is there already")
    torch.set_num_threads(1)
    new = ARCHIVE.with_name("new").absolute()
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    # Paths in configurations are relative to the archive.
    os.chdir(new)
    make_stores(Path("stores"))
    expect_stores(Path("stores"))
    work = Path("work")
    make_models(Path("models"), work)
    make_runs(Path("runs"), work)
    make_generated(Path("generated"))
    shutil.rmtree(work)
    for path in [*new.rglob("*.h5"), *new.rglob("*.journal")]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
        path.unlink()
    new.rename(ARCHIVE)


if __name__ == "__main__":
    main()
