"""Sample conformations of one molecule by molecular dynamics with GFN2-xTB."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from helmol.config import Config
from helmol.errors import InputError
from helmol.progress import Progress
from helmol.structures.structure import Structure
from helmol.structures.xtb import xtb_atoms, xtb_errors
from helmol.system import Molecule


class DynamicsConfig(Config):
    """Set the molecular dynamics; the defaults give frames 20 fs apart at 500 K."""

    n_frames: int = Field(ge=1, le=10_000_000)
    """Frames to keep."""

    temperature_k: float = Field(default=500.0, gt=0, le=5000)
    """Temperature of the Langevin thermostat, K."""

    timestep_fs: float = Field(default=0.5, gt=0, le=2)
    """Time step, fs."""

    stride: int = Field(default=40, ge=1, le=10_000_000)
    """Steps between two kept frames."""

    equilibration_steps: int = Field(default=1000, ge=0, le=100_000_000)
    """Steps before the first kept frame."""

    friction_per_fs: float = Field(default=0.01, gt=0, le=10)
    """Friction of the thermostat, 1/fs."""

    relax: bool = True
    """Whether to relax the start geometry (BFGS) first."""


def md(
    molecule: Molecule, config: DynamicsConfig, *, seed: int = 0, name: str = "md", progress: bool = True
) -> list[Structure]:
    """Run Langevin dynamics on the GFN2-xTB surface and keep every ``stride``-th frame.

    The centre of mass stays where it is. The same start, settings and seed give the same frames
    on the same machine and versions.

    Args:
        molecule: start geometry, charge, spin.
        config: length, temperature, thermostat.
        seed: of the start velocities and of the thermostat.
        name: the frames are called ``NAME-00000`` and so on.
        progress: whether to show how far it is.

    Returns:
        ``n_frames`` structures in the order of time.

    Raises:
        InputError: tblite or ASE are missing, xTB does not converge, or the molecule breaks up so
            far that two atoms meet.

    Source: Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019) for GFN2-xTB.
    """
    atoms = xtb_atoms(molecule, what="molecular dynamics")
    width = max(5, len(str(config.n_frames - 1)))
    provenance = {
        "source": "md", "surface": "GFN2-xTB", "temperature_k": config.temperature_k,
        "timestep_fs": config.timestep_fs, "seed": seed,
    }  # fmt: skip
    structures = []
    try:
        dynamics = _langevin(atoms, config, seed)
        with Progress(f"Dynamics of {molecule.formula}", total=config.n_frames, unit="frames") as bar:
            dynamics.run(config.equilibration_steps)
            for k in range(config.n_frames):
                dynamics.run(config.stride)
                frame = Molecule.from_angstrom(
                    molecule.numbers, atoms.get_positions(), charge=molecule.charge, spin=molecule.spin
                )
                step = config.equilibration_steps + (k + 1) * config.stride
                structures.append(Structure(f"{name}-{k:0{width}d}", frame, {**provenance, "step": step}))
                if progress:
                    bar.advance()
    except InputError as error:
        raise InputError(
            f"molecular dynamics of {molecule.formula} broke up after {len(structures)} frames ({error}): "
            "lower the temperature or the time step"
        ) from error
    except xtb_errors() as error:
        raise InputError(f"GFN2-xTB failed for {molecule.formula}: {' '.join(str(error).split())}") from error
    return structures


def _langevin(atoms: Any, config: DynamicsConfig, seed: int) -> Any:
    """Relax, draw velocities, and return the integrator."""
    from ase import units
    from ase.constraints import FixCom
    from ase.md.langevin import Langevin
    from ase.optimize import BFGS

    random = np.random.default_rng(seed)
    if config.relax:
        BFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
    masses = atoms.get_masses()[:, None]
    velocities = random.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * config.temperature_k / masses)
    velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    atoms.set_velocities(velocities)
    # Langevin's own fixcm does not sample the canonical distribution of small molecules.
    atoms.set_constraint(FixCom())
    return Langevin(
        atoms,
        config.timestep_fs * units.fs,
        temperature_K=config.temperature_k,
        friction=config.friction_per_fs / units.fs,
        fixcm=False,
        rng=random,
    )
