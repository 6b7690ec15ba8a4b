"""Make a store of energies and forces, without Fock matrices, from frames of one level of theory.

    python benchmarks/md/frames.py rmd17_ethanol.npz --out frames.h5 --test 500

Reads ``.npz`` files with ``numbers``, ``positions_angstrom``, ``energy_eV``, ``forces_eV_per_angstrom``
and ``frame``, or any file that ASE reads with energies (eV) and forces (eV/Å). ``--like STORE`` gives basis
and level of theory, by default PBE/def2-SVP. Nothing checks that the labels are of that level: that is
yours to know.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase.io import iread

from helmol import dft, structures
from helmol.store import Store
from helmol.store.split import random_split
from helmol.system import Matrices, Molecule, Sample
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE


def main() -> None:
    """Parse the command line and write the store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("frames", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--like", type=Path, help="store whose level of theory and basis these labels have")
    parser.add_argument("--val", type=int, default=50)
    parser.add_argument("--test", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    samples = list(read_frames(arguments.frames))
    if arguments.like:
        with Store.open(arguments.like) as like:
            level, basis = like.level, like.basis
    else:
        config = dft.LevelConfig(xc="pbe", basis="def2-svp")
        level = dft.level_of_theory(config, method="rks")
        basis = dft.basis_set(config, {int(z) for sample in samples for z in sample.molecule.numbers})
    ids = [sample.id for sample in samples]
    sizes = {"test": arguments.test, "val": arguments.val}
    sizes["train"] = len(ids) - sum(sizes.values())
    with Store.create(arguments.out, level=level, basis=basis) as store:
        store.append(samples)
        store.set_splits(random_split(ids, sizes=sizes, seed=arguments.seed))


def read_frames(path: Path) -> Iterator[Sample]:
    """Yield the frames of a file with their labels in Hartree and bohr."""
    empty = Matrices(fock=np.empty((0, 0)))
    if path.suffix == ".npz":
        data = np.load(path)
        rows = zip(
            data["frame"], data["positions_angstrom"], data["energy_eV"], data["forces_eV_per_angstrom"],
            strict=True,
        )  # fmt: skip
        for number, positions, energy, forces in rows:
            molecule = Molecule.from_angstrom(data["numbers"], positions)
            yield _sample(f"frame-{int(number):06d}", molecule, empty, energy, forces)
    else:
        for number, atoms in enumerate(iread(path)):
            molecule = structures.from_atoms(atoms)
            energy, forces = atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False)
            yield _sample(f"frame-{number:06d}", molecule, empty, energy, forces)


def _sample(name: str, molecule: Molecule, empty: Matrices, energy: float, forces: np.ndarray) -> Sample:
    """Return one sample from eV and eV/Å."""
    return Sample(
        name, molecule, empty, energy=float(energy) / EV_PER_HARTREE,
        forces=np.asarray(forces, dtype=np.float64) / EV_PER_ANGSTROM_PER_AU,
    )  # fmt: skip


if __name__ == "__main__":
    main()
