"""Energies and forces that stand in structure files, under whatever names, in whatever unit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helmol.arrays import Array
from helmol.structures.files import FrameError, frames_and_structures
from helmol.structures.frame import Frame
from helmol.structures.state import flat_items, kept_results, words_of
from helmol.structures.structure import Structure


@dataclass(frozen=True)
class Labelled:
    """Hold a structure and all that its file calls energy or forces, numbers as they stand there.

    Attributes:
        structure: the molecule.
        energies: by name (``energy``, ``REF_energy``).
        forces: by name, ``[n_atoms, 3]``.
    """

    structure: Structure
    energies: Mapping[str, float]
    forces: Mapping[str, Array]


def each_labelled(path: Path | str) -> Iterator[Labelled | FrameError]:
    """Yield the frames of a file with their labels, or the error that ``structures.read`` would raise.

    Labels are looked for where ASE keeps results, in the header (or the keys and data of a database row) and
    among the columns; the forces are without the effect of constraints.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    for frame, structure in frames_and_structures(Path(path)):
        if isinstance(structure, FrameError):
            yield structure
        elif isinstance(frame, Frame):
            yield _labelled(frame, structure)


def _labelled(frame: Frame, structure: Structure) -> Labelled:
    """Return a structure with what its frame calls energy or forces."""
    atoms = frame.atoms
    found = {**dict(flat_items(atoms.info)), **atoms.arrays, **kept_results(atoms.calc)}
    return Labelled(structure, _energies(found), _forces(found, len(atoms)))


def _energies(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the single numbers called energy; a free energy that is the energy is not named twice."""
    energies = {}
    for name, value in found.items():
        array = np.asarray(value)
        if words_of(name)[-1] == "energy" and array.size == 1 and array.dtype.kind in "fiu":
            energies[name] = float(array.reshape(-1)[0])
    if "free_energy" in energies and energies["free_energy"] == energies.get("energy"):
        del energies["free_energy"]
    return energies


def _forces(found: Mapping[str, Any], n_atoms: int) -> dict[str, Array]:
    """Return what is called forces and has three numbers per atom."""
    return {
        name: np.asarray(value, dtype=np.float64)
        for name, value in found.items()
        if words_of(name)[-1] in ("forces", "force")
        and np.shape(value) == (n_atoms, 3)
        and np.asarray(value).dtype.kind in "fiu"
    }
