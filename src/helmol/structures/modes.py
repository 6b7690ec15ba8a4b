"""Displacements along the normal modes of a molecule, drawn from the harmonic distribution."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from helmol.arrays import Array
from helmol.config import Config
from helmol.errors import InputError
from helmol.structures.structure import Structure
from helmol.system import Molecule
from helmol.units import ELECTRON_MASS_PER_DALTON, KELVIN_PER_HARTREE, WAVENUMBER_PER_HARTREE


class ModesConfig(Config):
    """Set the draws from the harmonic distribution."""

    n_samples: int = Field(ge=1, le=10_000_000)
    """Geometries to draw from each start geometry."""

    temperature_k: float = Field(default=300.0, ge=0, le=5000)
    """Temperature, K; the quantum distribution has zero-point motion at 0 K."""

    statistics: Literal["classical", "quantum"] = "quantum"
    """Distribution of the normal coordinates: Boltzmann's, or that of the harmonic oscillator."""

    floor_per_cm: float = Field(default=100.0, gt=0, le=10_000)
    """Softer (and imaginary) modes are displaced as if they had this wavenumber, 1/cm: along a soft
    mode the harmonic distribution would reach further than straight displacements make sense."""


def displaced(
    molecule: Molecule, hessian: Array, config: ModesConfig, *, seed: int = 0, name: str = "mode"
) -> list[Structure]:
    """Draw geometries around a minimum from the distribution of its harmonic oscillators.

    A normal coordinate Q of angular frequency ω is normal with variance kT/ω² (classical) or
    coth(ω/2kT)/2ω (quantum), atomic units with masses in electron masses; R = R₀ + M^(-1/2) L Q.
    Translations and rotations are left out.

    Args:
        molecule: a minimum of the surface that the Hessian is of.
        hessian: Eh/bohr², ``[3 n_atoms, 3 n_atoms]``.
        config: number, temperature, statistics.
        seed: of the draws.
        name: the structures are called ``NAME-q00000`` and so on.

    Raises:
        InputError: the Hessian does not fit, or two atoms meet (the temperature is too high).
    """
    frequencies, directions = normal_modes(molecule, hessian)
    spread = _spread(np.maximum(frequencies, config.floor_per_cm / WAVENUMBER_PER_HARTREE), config)
    random = np.random.default_rng(seed)
    provenance = {
        "source": "normal modes", "temperature_k": config.temperature_k, "statistics": config.statistics,
        "seed": seed,
    }  # fmt: skip
    width, structures = max(5, len(str(config.n_samples - 1))), []
    for k in range(config.n_samples):
        shift = directions @ (spread * random.normal(size=len(spread)))
        moved = Molecule(
            molecule.numbers, molecule.positions + shift.reshape(-1, 3), molecule.charge, molecule.spin
        )
        structures.append(Structure(f"{name}-q{k:0{width}d}", moved, provenance))
    return structures


def normal_modes(molecule: Molecule, hessian: Array) -> tuple[Array, Array]:
    """Return the vibrations of a molecule.

    Returns:
        Frequencies ω, ``[n_modes]``, atomic units, negative for imaginary ones; and directions
        M^(-1/2) L, ``[3 n_atoms, n_modes]``, bohr per unit of the normal coordinate.

    Raises:
        InputError: the Hessian has another shape, or one atom has no vibrations.
    """
    size = 3 * molecule.n_atoms
    if hessian.shape != (size, size) or not np.isfinite(hessian).all():
        raise InputError(f"the Hessian has shape {hessian.shape}, expected finite numbers ({size}, {size})")
    if molecule.n_atoms == 1:
        raise InputError("an atom alone has no normal modes")
    root_mass = np.sqrt(np.repeat(_masses(molecule), 3))
    inside = _vibrations(molecule, root_mass)
    weighted = inside.T @ (hessian / np.outer(root_mass, root_mass)) @ inside
    squares, vectors = np.linalg.eigh((weighted + weighted.T) / 2)
    return np.sign(squares) * np.sqrt(np.abs(squares)), (inside @ vectors) / root_mass[:, None]


def _spread(frequencies: Array, config: ModesConfig) -> Array:
    """Return the standard deviation of every normal coordinate."""
    thermal = config.temperature_k / KELVIN_PER_HARTREE
    if config.statistics == "classical":
        return np.asarray(np.sqrt(thermal) / frequencies)
    ratio = frequencies / (2 * thermal) if thermal > 0 else np.full_like(frequencies, np.inf)
    return np.sqrt(1 / (2 * frequencies * np.tanh(ratio)))


def _masses(molecule: Molecule) -> Array:
    """Return the masses of the nuclei in electron masses."""
    try:
        from ase.data import atomic_masses
    except ImportError as error:
        raise InputError("normal modes need ASE (masses): pip install ase") from error
    return np.asarray(atomic_masses[molecule.numbers] * ELECTRON_MASS_PER_DALTON)


def _vibrations(molecule: Molecule, root_mass: Array) -> Array:
    """Return an orthonormal basis ``[3 n_atoms, n_modes]`` without translations and rotations."""
    positions = molecule.positions - np.average(
        molecule.positions, axis=0, weights=root_mass.reshape(-1, 3)[:, 0] ** 2
    )
    outside = []
    for axis in np.eye(3):
        outside.append(root_mass * np.tile(axis, molecule.n_atoms))
        outside.append(root_mass * np.cross(axis, positions).ravel())
    vectors, values, _ = np.linalg.svd(np.array(outside).T, full_matrices=True)
    # A linear molecule has one rotation less.
    return vectors[:, int((values > 1e-6 * values[0]).sum()) :]
