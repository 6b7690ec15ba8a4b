"""Compare energies and forces of a labelled store with those of the revised MD17 file of its frames.

``python compare_rmd17.py ethanol.h5 rmd17_ethanol.npz --json agreement.json``. Frames are found by their
positions. The energies differ by a constant (another program and another grid); what is reported is the
scatter about it.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np

from helmol.files import write_json
from helmol.store import Store
from helmol.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

EV_PER_KCAL_MOL = EV_PER_HARTREE / 627.5094740631
SAME_ANG = 1e-5
"""Positions closer than this, Å, are those of one frame."""

log = logging.getLogger("compare")


def reference(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return positions in Å, energies in eV and forces in eV/Å."""
    with np.load(path) as data:
        if "positions_angstrom" in data:
            return data["positions_angstrom"], data["energy_eV"], data["forces_eV_per_angstrom"]
        energy, forces = (data[key] * EV_PER_KCAL_MOL for key in ("energies", "forces"))
        return data["coords"], energy, forces


def agreement(store: Store, path: Path) -> dict[str, float]:
    """Return how far the store is from the file, meV and meV/Å."""
    positions, energy, forces = reference(path)
    flat = positions.reshape(len(positions), -1)
    energy_errors, force_errors = [], []
    for sample in store:
        distance = np.abs(flat - sample.molecule.positions_ang.ravel()).max(axis=1)
        k = int(distance.argmin())
        if distance[k] > SAME_ANG or sample.energy is None:
            continue
        energy_errors.append(1e3 * (sample.energy * EV_PER_HARTREE - energy[k]))
        if sample.forces is not None:
            found = sample.forces * EV_PER_HARTREE / ANGSTROM_PER_BOHR
            force_errors.append(1e3 * (found - forces[k]))
    if not energy_errors:
        return {"n_compared": 0}
    offset = float(np.median(energy_errors))
    result = {
        "n_compared": len(energy_errors),
        "energy_offset_meV": offset,
        "energy_std_meV": float(np.std(energy_errors)),
        "energy_max_meV": float(np.abs(np.array(energy_errors) - offset).max()),
    }
    if force_errors:
        errors = np.concatenate(force_errors)
        result["force_mae_meV_per_angstrom"] = float(np.abs(errors).mean())
        result["force_rms_meV_per_angstrom"] = float(np.sqrt((errors**2).mean()))
        result["force_max_meV_per_angstrom"] = float(np.abs(errors).max())
    return result


def main() -> None:
    """Read the arguments, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("npz", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with Store.open(arguments.store) as store:
        result = agreement(store, arguments.npz)
    for key, value in result.items():
        log.info("%-28s %12.4f", key, value)
    if arguments.json:
        write_json(arguments.json, result)


if __name__ == "__main__":
    main()
