"""Made-up samples with energies and forces: a Morse potential between all atoms."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from toy_store import LEVEL, make_store, settings, toy_samples

ELEMENTS = {1: -0.5, 8: -75.0}


def morse(molecule, *, shift=0.0):
    """Return energy (Eh) and forces (Eh/bohr)."""
    vectors = molecule.positions[:, None] - molecule.positions[None]
    distances = np.linalg.norm(vectors, axis=-1) + np.eye(molecule.n_atoms)
    decay = np.exp(-(distances - 1.8)) * (1 - np.eye(molecule.n_atoms))
    energy = 0.5 * 0.15 * (decay**2 - 2 * decay).sum() + sum(
        ELEMENTS[z] + shift for z in molecule.numbers.tolist()
    )
    slope = 0.15 * (-2 * decay**2 + 2 * decay)
    return energy, -((slope / distances)[:, :, None] * vectors).sum(axis=1)


def energy_samples(n=20, *, shift=0.0):
    """Water-like and H2O2-like molecules, so that the elements' energies are determined."""
    samples = toy_samples(n) + toy_samples(n // 2, numbers=(8, 1, 1, 8), seed=1)
    labelled = []
    for sample in samples:
        energy, forces = morse(sample.molecule, shift=shift)
        labelled.append(replace(sample, energy=energy, forces=forces))
    return labelled


def make_energy_store(path: Path, samples=None, *, level=LEVEL) -> Path:
    return make_store(path, energy_samples() if samples is None else samples, level=level)


def energy_settings(data, **changes):
    return settings(data, task="energy", train=20, val=8, readout="linear") | changes
