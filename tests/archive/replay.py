"""What the archive asks of helmol: the one place to change when a public function gets another name.

``make_archive.py`` wrote the archive through these functions, ``test_archive.py`` reads it through them.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import helmol
from helmol.config import parse, read_yaml
from helmol.embed import embed
from helmol.graph import Item, collate
from helmol.model import Model, energy_loss, hamiltonian_loss, predict_energies, predict_fock
from helmol.store import Store
from helmol.system import Matrices, Molecule, Sample
from helmol.target import target_matrix
from helmol.train import TrainConfig, metrics, run

ARCHIVE = Path(__file__).parent / "helmol-0.1"
PRECISIONS = ("float32", "float64")

FOCK_LOSSES: dict[str, dict[str, Any]] = {
    "mae": {"kind": "mae"},
    "rmse+mse": {"kind": "rmse+mse"},
    "huber": {"kind": "huber"},
    "mae scales": {"kind": "mae", "weights": "scales"},
    "mse diagonal": {"kind": "mse", "diagonal_only": True},
}
ENERGY_LOSSES: dict[str, dict[str, Any]] = {
    "mae": {"kind": "mae"},
    "mse": {"kind": "mse"},
}


# models


def load(folder: Path) -> Model:
    """Return the network of a model folder."""
    return helmol.load(folder).model


def as_precision(network: Model, name: str) -> Model:
    """Return a copy of a network with its weights in a precision."""
    return copy.deepcopy(network).to(getattr(torch, name))


def makes_fock(network: Model) -> bool:
    """Return whether a network predicts Fock matrices."""
    return "fock" in network.heads


def makes_energies(network: Model) -> bool:
    """Return whether a network predicts energies."""
    return "energy" in network.heads


def has_forces(network: Model) -> bool:
    """Return whether a network that predicts energies predicts forces."""
    return network.energy_head.direct is None or float(network.energy_target.force_scale) > 0


def answers(network: Model, samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Return everything a network says of some samples, by name.

    ``fock_K``: house order, Eh. ``energy_K`` (Eh), ``forces_K`` (Eh/bohr). ``embedding``: of all atoms.
    ``loss NAME``, ``energy loss NAME``: a loss of the samples as one batch, and the norm of its gradient.
    """
    molecules = [sample.molecule for sample in samples]
    found: dict[str, np.ndarray] = {}
    if makes_fock(network):
        matrices = predict_fock(network, molecules, [sample.matrices.known for sample in samples])
        found |= {f"fock_{k}": matrix for k, matrix in enumerate(matrices)}
        batch = collate([_fock_item(network, sample) for sample in samples])
        for name, kind in FOCK_LOSSES.items():
            loss = hamiltonian_loss(network(batch, ("fock",)).fock, batch, **kind)
            found[f"loss {name}"] = _with_gradient(network, loss)
    if makes_energies(network):
        forces = has_forces(network)
        for k, output in enumerate(predict_energies(network, molecules, forces=forces)):
            found[f"energy_{k}"] = np.array(output.energy)
            if forces:
                found[f"forces_{k}"] = output.forces
        # A model of energies alone has forces, but no unit in which to count their errors.
        forces = forces and float(network.energy_target.force_scale) > 0
        batch = collate(
            [
                replace(network.prepare(s.molecule), energy=s.energy, forces=s.forces if forces else None)
                for s in samples
            ]
        )
        for name, kind in ENERGY_LOSSES.items():
            output = network(batch, ("energy",), forces=forces, create_graph=True).energy
            loss = energy_loss(output, batch, force_weight=0.7 if forces else 0.0, **kind)
            found[f"energy loss {name}"] = _with_gradient(network, loss)
    if not network.config.inputs:
        found["embedding"] = embed(network, molecules).features
    return found


def _fock_item(network: Model, sample: Sample) -> Item:
    """Return a sample prepared for training, without the part of its target that is not learnt by steps."""
    inputs = network.input_matrices(sample.molecule, sample.matrices.known)
    item = network.prepare(sample.molecule, target_matrix(sample, network.domain.target), inputs)
    return network.fock_target.subtract(item)


def _with_gradient(network: Model, loss: torch.Tensor) -> np.ndarray:
    """Return a loss and the norm of its gradient with respect to all weights."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    square = sum(float(g.double().square().sum()) for g in gradients if g is not None)
    return np.array([loss.item(), square**0.5])


# samples as arrays


def samples_to_arrays(samples: Sequence[Sample]) -> dict[str, np.ndarray]:
    """Return samples as arrays that need no helmol to be read."""
    arrays: dict[str, np.ndarray] = {}
    for k, sample in enumerate(samples):
        molecule = sample.molecule
        arrays |= {
            f"numbers_{k}": molecule.numbers,
            f"positions_{k}": molecule.positions,
            f"state_{k}": np.array([molecule.charge, molecule.spin]),
            f"label_fock_{k}": sample.matrices.fock,
        }
        arrays |= {f"known_{name}_{k}": matrix for name, matrix in sample.matrices.known.items()}
        if sample.energy is not None:
            arrays[f"label_energy_{k}"] = np.array(sample.energy)
        if sample.forces is not None:
            arrays[f"label_forces_{k}"] = sample.forces
    return arrays


def samples_from_arrays(arrays: Mapping[str, np.ndarray]) -> list[Sample]:
    """Return what :func:`samples_to_arrays` was given."""
    samples = []
    for k in range(sum(name.startswith("numbers_") for name in arrays)):
        charge, spin = arrays[f"state_{k}"].tolist()
        known = {
            name.removeprefix("known_").removesuffix(f"_{k}"): arrays[name]
            for name in arrays
            if name.startswith("known_") and name.endswith(f"_{k}")
        }
        energy = arrays.get(f"label_energy_{k}")
        samples.append(
            Sample(
                f"sample-{k}",
                Molecule(arrays[f"numbers_{k}"], arrays[f"positions_{k}"], charge, spin),
                Matrices(arrays[f"label_fock_{k}"], known.pop("overlap", None), known),
                energy=None if energy is None else float(energy),
                forces=arrays.get(f"label_forces_{k}"),
            )
        )
    return samples


# stores


def unpack(folder: Path, to: Path) -> None:
    """Copy a folder of the archive with its stores unpacked."""
    shutil.copytree(folder, to, dirs_exist_ok=True)
    for path in to.rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def describe_store(path: Path) -> dict[str, Any]:
    """Return what a store holds: level, basis, splits, and of every sample a hash of its bits."""
    with Store.open(path) as store:
        assert store.verify() == []
        return {
            "level": store.level.to_json(),
            "basis": store.basis.to_json(),
            "splits": store.splits,
            "references": sorted(store.references),
            "content_hash": store.content_hash,
            "samples": {sample.id: _hash(sample) for sample in store},
        }


def _hash(sample: Sample) -> str:
    """Return a hash of all that a sample holds, made without helmol."""
    molecule, matrices = sample.molecule, sample.matrices
    parts: dict[str, Any] = {
        "numbers": molecule.numbers, "positions": molecule.positions,
        "state": np.array([molecule.charge, molecule.spin]), "fock": matrices.fock,
        "overlap": matrices.overlap, "density": matrices.density, "forces": sample.forces,
        "dipole": sample.dipole, "energy": sample.energy,
        **{f"reference {name}": matrix for name, matrix in matrices.references.items()},
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps(dict(sample.provenance), sort_keys=True).encode())
    for name in sorted(parts):
        if parts[name] is not None:
            values = np.asarray(parts[name])
            digest.update(f"{name} {values.shape}".encode())
            digest.update(
                np.ascontiguousarray(values, "<i8" if values.dtype.kind == "i" else "<f8").tobytes()
            )
    return digest.hexdigest()


def samples_of(path: Path, ids: Sequence[str]) -> list[Sample]:
    """Return samples of a store."""
    with Store.open(path) as store:
        return [store[store.row(identity)] for identity in ids]


# runs


def configuration(path: Path, **changes: Any) -> TrainConfig:
    """Return the configuration of a run from its file."""
    return parse(TrainConfig, {**read_yaml(path), **changes}, source=str(path))


def train(config: TrainConfig, out: Path) -> dict[str, Any]:
    """Train, or go on where a checkpoint is."""
    return run(config, out=out, resume="auto")


def rows_of_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.csv`` without times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in metrics.read(folder / "metrics.csv")]


class Killed(BaseException):
    """Stands for the moment a process dies."""


@contextmanager
def dying_in_step(step: int) -> Iterator[None]:
    """Let a run die in a step, before anything of it is saved."""
    from helmol.train import loop

    count = loop._count

    def dies(counters: Any, *args: Any) -> bool:
        if counters.step == step:
            raise Killed
        return count(counters, *args)

    loop._count = dies
    try:
        yield
    except Killed:
        pass
    finally:
        loop._count = count
