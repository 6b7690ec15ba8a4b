"""Door from structure files to molecules, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.damage import DAMAGE, one_line
from helmol.errors import HelmolError, InputError
from helmol.files import plain, write_text
from helmol.letters import text_of
from helmol.structures.extxyz import extxyz_text
from helmol.structures.foreign import read_frames
from helmol.structures.frame import Frame
from helmol.structures.sense import check_distances
from helmol.structures.state import Statement, charge_and_spin, is_state, statements
from helmol.structures.structure import Structure
from helmol.structures.surroundings import refuse_surroundings, unit_is_stated
from helmol.system import Molecule

SUFFIXES = (".xyz", ".extxyz", ".db", ".traj", ".sdf", ".sd", ".mol", ".pdb", ".gjf", ".com", ".cjson")
"""What structure files in a folder end with."""


class FrameError(InputError):
    """A frame of a structure file that is no molecule.

    Attributes:
        id: what the structure would be called.
        frame: its number in the file, from 1.
    """

    def __init__(self, message: str, *, id: str, frame: int) -> None:
        super().__init__(message)
        self.id, self.frame = id, frame


def read(path: Path | str) -> list[Structure]:
    """Read every frame of a structure file: xyz and extended xyz, ASE databases and trajectories, and more.

    Charge and spin are taken from whatever states them, by any of the usual names (upper or lower case) in
    the header of a frame (``atoms.info``; in a row of an ASE database the keys and the data):

    * ``charge``, ``total_charge``, ``tot_charge``, ``net_charge``;
    * ``spin``, ``total_spin``, ``multiplicity``, ``spin_multiplicity``: the multiplicity 2S+1, as ASE's
      users, fairchem and MACE write it; ``uhf`` (and ``magmom``): the number of unpaired electrons 2S.

    So do ``initial_charges``, ``initial_magmoms`` and other per-atom charges by their sums, and the places
    that SDF and molfiles (``M  CHG``, ``M  RAD``), inputs of Gaussian, ORCA and Q-Chem, outputs of Gaussian
    and ORCA, Turbomole (``$eht``), Chemical JSON and PDB have for them. Nothing stated: charge 0, singlet.
    Two that disagree are refused, as are formats of which ASE loses what they state. helmol's own ``spin``
    is 2S.

    A structure's id is the ``id`` or ``name`` of its header if every frame has one of its own, else
    the file's stem, with the frame's number where there are several. The provenance is what :func:`write`
    left in the header, else the file's name, the frame and the header's words and numbers (``smiles``, ...).

    Returns:
        One structure per frame, in the file's order.

    Raises:
        InputError: missing, empty or unreadable file, or a frame that is no molecule in vacuum (unknown
            element, dummy atom, a coordinate that is no number, electrons that do not go with the spin, a
            cell, a field, a solvent), or whose distances are those of no molecule (positions in bohr, copies
            at one place, molecules inside each other); names the file and the frame.
    """
    found = []
    for structure in each(path):
        if isinstance(structure, FrameError):
            raise structure
        found.append(structure)
    return found


def each(path: Path | str) -> Iterator[Structure | FrameError]:
    """Yield every frame of a file as :func:`read` returns it, or the error that it would raise for it.

    Raises:
        InputError: the file as a whole cannot be read.
    """
    yield from (structure for _, structure in frames_and_structures(Path(path)))


def frames_and_structures(path: Path) -> Iterator[tuple[Frame | InputError, Structure | FrameError]]:
    """Yield every frame of a file with what :func:`each` makes of it."""
    frames = read_frames(path)
    ids = _ids(path, frames)
    for number, (id, frame) in enumerate(zip(ids, frames, strict=True), start=1):
        try:
            if isinstance(frame, InputError):
                raise frame
            molecule = _molecule(frame)
        except (HelmolError, *DAMAGE) as error:
            where = f"{path}, frame {number} of {len(frames)}" if len(frames) > 1 else str(path)
            text = f"{where}: {one_line(error, longest=500)}"
            yield frame, FrameError(text, id=id, frame=number)
            continue
        origin = {**frame.words, **frame.atoms.info}
        yield frame, Structure(id, molecule, _provenance(origin, source=text_of(path.name), frame=number))


def _molecule(frame: Frame) -> Molecule:
    """Return the molecule of a frame if its distances make sense; what helmol wrote was judged before."""
    atoms = frame.atoms
    positions = np.asarray(atoms.get_positions())
    if not atoms.pbc.any() and not isinstance(atoms.info.get("provenance"), dict):
        stated = unit_is_stated(atoms.info)
        check_distances(atoms.get_atomic_numbers(), positions, unit_stated=stated)
    return from_atoms(atoms, frame.stated)


def write(path: Path | str, structures: Sequence[Structure]) -> None:
    """Write structures as extended xyz (Å), readable by :func:`read`, whole or not at all.

    ``charge``, ``spin`` (multiplicity 2S+1) and ``provenance`` (JSON) are in the header.
    """
    frames = [
        extxyz_text(one.id, one.molecule, header={"provenance": one.provenance} if one.provenance else None)
        for one in structures
    ]
    write_text(Path(path), "".join(frames))


def _provenance(info: Mapping[str, Any], *, source: str, frame: int) -> dict[str, object]:
    """Return the provenance in the header of a frame, or one made of what the header says."""
    found = info.get("provenance")
    if isinstance(found, dict) and found:
        return dict(found)
    own: dict[str, object] = {"source": source, "frame": frame}
    for key, value in info.items():
        keep = isinstance(value, (str, int, float, np.integer, np.floating)) and not isinstance(value, bool)
        if key == "isotopes" or (keep and key not in ("id", "name") and not is_state(key)):
            own[f"header_{key}" if key in own else key] = plain(value)
    return own


def from_atoms(atoms: Any, stated: Sequence[Statement] = ()) -> Molecule:
    """Turn ``ase.Atoms`` into a molecule; charge and spin are found as :func:`read` says.

    Args:
        atoms: positions in Å.
        stated: what else states charge or spin.

    Raises:
        InputError: what is stated or the geometry makes no molecule in vacuum.
    """
    if (atoms.pbc & np.asarray(atoms.cell).any(axis=1)).any():
        raise InputError("the structure is periodic: helmol knows molecules only (set pbc to F F F)")
    refuse_surroundings(atoms.info)
    numbers = atoms.get_atomic_numbers()
    if (numbers < 1).any():
        atom = int(np.flatnonzero(numbers < 1)[0])
        raise InputError(
            f"atom {atom + 1} (X) is a dummy or ghost atom: leave it out, helmol knows real atoms"
        )
    charge, spin = charge_and_spin(numbers, statements(atoms, stated))
    return Molecule.from_angstrom(numbers, np.asarray(atoms.get_positions()), charge=charge, spin=spin)


def _ids(path: Path, frames: Sequence[Frame | InputError]) -> list[str]:
    """Return one id per frame; those that cannot be read do not decide whether all have one of their own."""
    headers = [frame.atoms.info for frame in frames if isinstance(frame, Frame)]
    stem = text_of(path.stem)
    width = max(5, len(str(len(frames) - 1)))
    numbered = [stem] if len(frames) == 1 else [f"{stem}-{k:0{width}d}" for k in range(len(frames))]
    for key in ("id", "name"):
        names = [str(header[key]).strip() for header in headers if key in header]
        if names and len(names) == len(headers) == len(set(names)) and all(names):
            own = iter(names)
            return [
                next(own) if isinstance(frame, Frame) else number
                for frame, number in zip(frames, numbered, strict=True)
            ]
    return numbered
