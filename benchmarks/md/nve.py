"""Run NVE dynamics of one molecule with a model and say how well energy is conserved.

    python benchmarks/md/nve.py RUN [RUN ...] --start ethanol.xyz --ps 10 --out runs/nve [--against gfn2]

Several runs are an ensemble. Written: ``result.json`` (drift in meV/atom/ps, temperature, bond lengths),
``trajectory.xyz``, ``figure.png``. Drift is the slope of a straight line through the total energy.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from helmol import structures
from helmol.arrays import Array
from helmol.ase import HelmolCalculator
from helmol.files import write_json

log = logging.getLogger("helmol.benchmarks")
FRAMES = 1000


def main() -> None:
    """Parse the command line, run, and write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--start", type=Path, required=True, help="structure file, first frame")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ps", type=float, default=10.0)
    parser.add_argument("--timestep-fs", type=float, default=0.5)
    parser.add_argument("--temperature-k", type=float, default=300.0, help="mean over the run, about")
    parser.add_argument("--against", choices=["gfn2"], help="the same run with GFN2-xTB (helmol[md])")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments.out.mkdir(parents=True, exist_ok=True)
    calculators: dict[str, Callable[[], Any]] = {
        "model": lambda: HelmolCalculator(arguments.runs, device="cpu", dtype="float64")
    }
    if arguments.against:
        calculators["GFN2-xTB"] = gfn2
    traces = {name: run(make(), name, arguments) for name, make in calculators.items()}
    result = {name: summary(trace) for name, trace in traces.items()}
    settings = {"ps": arguments.ps, "timestep_fs": arguments.timestep_fs, "seed": arguments.seed}
    write_json(arguments.out / "result.json", {**settings, "start": arguments.start.name, "runs": result})
    draw(traces, arguments.out / "figure.png")
    for name, row in result.items():
        log.info("%s: %s", name, {k: v for k, v in row.items() if k != "bonds"})


def gfn2() -> Any:
    """Return ASE's GFN2-xTB calculator."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0)


def run(calculator: Any, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Relax, give velocities of twice the temperature (half of it becomes potential energy), and run."""
    atoms: Atoms = read(arguments.start, index=0)
    atoms.calc = calculator
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=300)
    near = np.argwhere(np.triu(structures.bonds(structures.from_atoms(atoms))))
    set_velocities(atoms, 2 * arguments.temperature_k, np.random.default_rng(arguments.seed))
    n_steps = round(1000 * arguments.ps / arguments.timestep_fs)
    stride = max(1, n_steps // FRAMES)
    trace: dict[str, Any] = {"time_ps": [], "total_ev": [], "kelvin": [], "bonds": [], "name": name}
    trace["pairs"] = [f"{atoms.symbols[i]}{i}-{atoms.symbols[j]}{j}" for i, j in near]
    frames: list[Atoms] = []
    dynamics = VelocityVerlet(atoms, arguments.timestep_fs * units.fs)

    def observe() -> None:
        trace["time_ps"].append(dynamics.nsteps * arguments.timestep_fs / 1000)
        trace["total_ev"].append(atoms.get_total_energy())
        trace["kelvin"].append(2 * atoms.get_kinetic_energy() / (units.kB * (3 * len(atoms) - 6)))
        trace["bonds"].append([atoms.get_distance(i, j) for i, j in near])
        frames.append(Atoms(atoms.symbols, atoms.positions))

    dynamics.attach(observe, interval=stride)
    begin = time.perf_counter()
    dynamics.run(n_steps)
    trace["ms_per_step"] = 1000 * (time.perf_counter() - begin) / n_steps
    trace["n_atoms"] = len(atoms)
    write(arguments.out / f"trajectory-{name}.xyz", frames)
    return trace


def set_velocities(atoms: Atoms, kelvin: float, rng: np.random.Generator) -> None:
    """Draw velocities without momentum and angular momentum, scaled to exactly this temperature."""
    masses = atoms.get_masses()[:, None]
    atoms.set_velocities(rng.normal(size=(len(atoms), 3)) * np.sqrt(units.kB * kelvin / masses))
    velocities = atoms.get_velocities()
    velocities -= (masses * velocities).sum(axis=0) / masses.sum()
    arms = atoms.positions - atoms.get_center_of_mass()
    momentum = (masses * np.cross(arms, velocities)).sum(axis=0)
    # By least squares, because the tensor of a linear molecule is singular.
    velocities -= np.cross(np.linalg.lstsq(_inertia(atoms, arms), momentum, rcond=None)[0], arms)
    atoms.set_velocities(velocities)
    now = 2 * atoms.get_kinetic_energy() / (units.kB * (3 * len(atoms) - 6))
    atoms.set_velocities(atoms.get_velocities() * np.sqrt(kelvin / now))


def _inertia(atoms: Atoms, arms: Array) -> Array:
    """Return the tensor of inertia."""
    masses = atoms.get_masses()
    tensor = np.einsum("i,ix,iy->xy", masses, arms, arms)
    return np.eye(3) * np.trace(tensor) - tensor


def summary(trace: dict[str, Any]) -> dict[str, Any]:
    """Return drift, fluctuation, temperature and bond lengths of a run."""
    time_ps, total = np.array(trace["time_ps"]), 1000 * np.array(trace["total_ev"]) / trace["n_atoms"]
    slope, offset = np.polyfit(time_ps, total, 1)
    later = len(time_ps) // 10
    lengths = np.array(trace["bonds"])[later:]
    return {
        "drift_meV_per_atom_per_ps": float(slope),
        "fluctuation_meV_per_atom": float((total - slope * time_ps - offset).std()),
        "temperature_K": float(np.mean(trace["kelvin"][later:])),
        "ms_per_step": trace["ms_per_step"],
        "largest_bond_angstrom": float(lengths.max()),
        "bonds": {
            pair: {"mean_angstrom": float(x.mean()), "std_angstrom": float(x.std())}
            for pair, x in zip(trace["pairs"], lengths.T, strict=True)
        },
    }


def draw(traces: dict[str, dict[str, Any]], path: Path) -> None:
    """Draw total energy, temperature and the distribution of bond lengths."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    for (name, trace), colour in zip(traces.items(), ("#0b6fb8", "#d9822b"), strict=False):
        total = 1000 * (np.array(trace["total_ev"]) - trace["total_ev"][0]) / trace["n_atoms"]
        panels[0].plot(trace["time_ps"], total, color=colour, linewidth=0.8, label=name)
        panels[1].plot(trace["time_ps"], trace["kelvin"], color=colour, linewidth=0.5)
        lengths = np.array(trace["bonds"])[len(trace["bonds"]) // 10 :].ravel()
        panels[2].hist(lengths, bins=120, histtype="step", density=True, color=colour)
    panels[0].set(xlabel="time / ps", ylabel="total energy − start / meV per atom")
    panels[0].legend(frameon=False)
    panels[1].set(xlabel="time / ps", ylabel="temperature / K")
    panels[2].set(xlabel="length of bonds / Å", ylabel="density")
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
