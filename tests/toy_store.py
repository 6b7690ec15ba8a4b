"""A store of made-up samples and a run that trains on it in seconds; no electronic structure needed."""

from pathlib import Path

import numpy as np

from helmol.basis import BasisSet, ElementBasis
from helmol.store import Store
from helmol.system import LevelOfTheory, Matrices, Molecule, Sample

LEVEL = LevelOfTheory("rks", "pbe", "1*101 + 1*130", "toy", None, 3, False, 1e-10, "none")
BASIS = BasisSet("toy", {1: ElementBasis((0, 1), 0, "h"), 8: ElementBasis((0, 0, 1), 0, "o")})
# Blocks of full size at the start learn faster in the few steps of a test.
TINY = {
    "channels": 4, "n_layers": 1, "n_radial": 8, "radial_channels": 8, "element_channels": 4,
    "residual_scale": 1.0,
}  # fmt: skip


def toy_samples(n: int, *, numbers=(8, 1, 1), charge=0, seed=0) -> list[Sample]:
    """Return molecules whose Fock matrix is a smooth function of their distances."""
    rng = np.random.default_rng(seed)
    z = np.array(numbers)
    start = np.array([[0, 0, 0], [1.8, 0, 0], [-0.45, 1.75, 0], [2.0, 2.0, 1.0]])[: len(z)]
    samples = []
    for k in range(n):
        positions = start + 0.1 * rng.normal(size=start.shape)
        offsets = BASIS.offsets(z)
        atom = np.repeat(np.arange(len(z)), np.diff(offsets))
        distance = np.linalg.norm(positions[atom][:, None] - positions[atom][None], axis=-1)
        overlap = np.where(atom[:, None] == atom, np.eye(len(atom)), 0.1 * np.exp(-distance))
        reference = np.diag(-1.0 / (1 + np.arange(len(atom)))) - overlap * (1 - np.eye(len(atom)))
        molecule = Molecule(z, positions, charge)
        matrices = Matrices(
            fock=reference + 0.1 * overlap**2, overlap=overlap, references={"minao": reference}
        )
        samples.append(Sample(f"{molecule.formula}-{seed}-{k:03d}", molecule, matrices))
    return samples


def make_store(path: Path, samples: list[Sample] | None = None, *, level: LevelOfTheory = LEVEL) -> Path:
    """Write a store of made-up samples (24 by default)."""
    with Store.create(path, level=level, basis=BASIS) as store:
        store.append(toy_samples(24) if samples is None else samples)
    return path


def settings(data: Path, **changes) -> dict:
    """Return a configuration for a run of a second or two."""
    return {
        "data": str(data), "train": 16, "val": 4, "preset": "nano", "model": TINY, "edges_per_batch": 30,
        "linear": "none", "max_steps": 12, "warmup_steps": 3, "validate_every": 4, "checkpoint_every": 4,
        "n_threads": 1,
    } | changes  # fmt: skip
