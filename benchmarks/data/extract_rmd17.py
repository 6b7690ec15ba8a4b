"""Write frames of a revised MD17 file as extended xyz, in random order, so that any part is a random sample.

``python extract_rmd17.py rmd17_ethanol.npz ethanol.extxyz --n 1000`` reads the files of
https://doi.org/10.6084/m9.figshare.12672038 (``nuclear_charges``, ``coords``) and shortened copies
(``numbers``, ``positions_angstrom``, ``frame``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase
import ase.io
import numpy as np


def main() -> None:
    """Read the arguments, write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("npz", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--n", type=int, default=1000, help="frames to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with np.load(arguments.npz) as data:
        numbers = data["numbers"] if "numbers" in data else data["nuclear_charges"]
        positions = data["positions_angstrom"] if "positions_angstrom" in data else data["coords"]
        index = data["frame"] if "frame" in data else np.arange(len(positions))
    frames = []
    for k in np.random.default_rng(arguments.seed).permutation(len(positions))[: arguments.n]:
        atoms = ase.Atoms(numbers, positions[k])
        atoms.info["frame"] = int(index[k])
        frames.append(atoms)
    ase.io.write(arguments.out, frames)


if __name__ == "__main__":
    main()
