"""Door from structure files to molecules, and back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.errors import HelmolError, InputError
from helmol.files import plain, replacing
from helmol.structures.structure import Structure
from helmol.system import Molecule

SUFFIXES = (".xyz", ".extxyz", ".db", ".traj", ".sdf", ".sd", ".mol", ".pdb", ".gjf", ".com", ".cjson")
"""What structure files in a folder end with."""

READ_ELSEWHERE = ("id", "name", "charge", "spin", "spin_multiplicity", "uhf")
"""Keys of a header that become part of the structure itself."""


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
    """Read every frame of a structure file (xyz, extxyz, ASE databases, and whatever else ASE reads).

    Charge and spin stand in the header of a frame (``atoms.info``; in a row of an ASE database among the
    keys or the data): ``charge`` (default 0), and one
    of ``spin`` or ``spin_multiplicity``, both the multiplicity 2S+1 as ASE and fairchem write it,
    or ``uhf``, the number of unpaired electrons 2S. helmol's own ``spin`` is 2S; default 0.

    A structure's id is the ``id`` or ``name`` of its header if every frame has one of its own, else
    the file's stem, with the frame's number where there are several. The provenance is what :func:`write`
    left in the header, else the file's name, the frame and the header's words and numbers (``smiles``, ...).

    Returns:
        One structure per frame, in the file's order.

    Raises:
        InputError: missing, empty or unreadable file, or a frame that is no molecule (unknown
            element, a coordinate that is no number, electrons that do not go with the spin, atoms
            on top of each other); names the file and the frame.
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
    path = Path(path)
    frames = _frames(path)
    ids = _ids(path, frames)
    for number, (id, atoms) in enumerate(zip(ids, frames, strict=True), start=1):
        try:
            molecule = from_atoms(atoms)
        except (HelmolError, ValueError, TypeError) as error:
            where = f"{path}, frame {number} of {len(frames)}" if len(frames) > 1 else str(path)
            yield FrameError(f"{where}: {error}", id=id, frame=number)
            continue
        yield Structure(id, molecule, _provenance(atoms.info, source=path.name, frame=number))


def write(path: Path | str, structures: Sequence[Structure]) -> None:
    """Write structures as extended xyz (Å), readable by :func:`read`, whole or not at all.

    Positions are written with 10 decimals; ``charge``, ``spin`` (multiplicity 2S+1) and ``provenance``
    (JSON) are in the header.
    """
    from helmol.elements import SYMBOLS

    lines = []
    for structure in structures:
        molecule = structure.molecule
        lines.append(str(molecule.n_atoms))
        lines.append(
            f"Properties=species:S:1:pos:R:3 name={quoted(structure.id)} charge={molecule.charge} "
            f'spin={molecule.spin + 1} pbc="F F F"{_provenance_header(structure)}'
        )
        lines += [
            f"{SYMBOLS[number]:<2} " + " ".join(f"{x:18.10f}" for x in position)
            for number, position in zip(molecule.numbers, molecule.positions_ang, strict=True)
        ]
    with replacing(Path(path)) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def quoted(text: str) -> str:
    """Return a text as ASE's extended xyz writes it in a header, in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _provenance_header(structure: Structure) -> str:
    """Return the provenance as ASE's extended xyz writes a dictionary."""
    if not structure.provenance:
        return ""
    return f" provenance={quoted('_JSON ' + json.dumps(plain(dict(structure.provenance)), sort_keys=True))}"


def _provenance(info: Mapping[str, Any], *, source: str, frame: int) -> dict[str, object]:
    """Return the provenance in the header of a frame, or one made of what the header says."""
    found = info.get("provenance")
    if isinstance(found, dict) and found:
        return dict(found)
    own: dict[str, object] = {"source": source, "frame": frame}
    for key, value in info.items():
        if key not in READ_ELSEWHERE and isinstance(value, (str, int, float, np.integer, np.floating)):
            own[f"header_{key}" if key in own else key] = plain(value)
    return own


def _frames(path: Path) -> list[Any]:
    """Read all frames with ASE; every failure becomes one line that names the file."""
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise InputError(f"structure file {path} {problem}")
    if path.stat().st_size == 0:
        raise InputError(f"structure file {path} is empty")
    try:
        from ase.io import read as ase_read
    except ImportError as error:
        raise InputError(f"reading {path} needs ASE: pip install ase") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = _rows(path) if path.suffix == ".db" else ase_read(path, index=":")
    except Exception as error:  # ASE's readers raise whatever their parsing meets.
        text = " ".join(str(error).split())
        if isinstance(error, KeyError):
            text = f"unknown element {text}"
        elif type(error).__name__ == "UnknownFileTypeError":
            text = "no file format that ASE knows (xyz and extxyz are)"
        raise InputError(f"cannot read {path}: {text or type(error).__name__}") from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise InputError(f"structure file {path} holds no structure")
    return frames


def _rows(path: Path) -> list[Any]:
    """Read an ASE database; keys and data of a row join the header."""
    from ase.db import connect

    frames = []
    for row in connect(path).select():
        atoms = row.toatoms()
        # The key "charge" is ASE's own sum of initial charges; a number among the data overrides it.
        atoms.info = {**row.key_value_pairs, **row.data}
        if atoms.get_initial_charges().any():
            atoms.info.setdefault("charge", round(float(atoms.get_initial_charges().sum()), 6))
        frames.append(atoms)
    return frames


def from_atoms(atoms: Any) -> Molecule:
    """Turn ``ase.Atoms`` into a molecule; charge and spin are found as :func:`read` says.

    Raises:
        InputError: the numbers of the header or the geometry make no molecule.
    """
    if (atoms.pbc & np.asarray(atoms.cell).any(axis=1)).any():
        raise InputError("the structure is periodic: helmol knows molecules only (set pbc to F F F)")
    info = atoms.info
    charge = _integer(info, "charge", 0)
    return Molecule.from_angstrom(
        atoms.get_atomic_numbers(), np.asarray(atoms.get_positions()), charge=charge, spin=_spin(info)
    )


def _spin(info: Mapping[str, Any]) -> int:
    """Return 2S from the header of a frame."""
    given = [key for key in ("spin", "spin_multiplicity", "uhf") if key in info]
    values = {_integer(info, key, 0) if key == "uhf" else _integer(info, key, 1) - 1 for key in given}
    if len(values) > 1:
        raise InputError(
            f"{' and '.join(given)} contradict each other (spin and spin_multiplicity are 2S+1, uhf is 2S)"
        )
    spin = values.pop() if values else 0
    if spin < 0:
        raise InputError(
            f"{given[0]} = {info[given[0]]}: expected the multiplicity 2S+1, at least 1"
            if given[0] != "uhf"
            else f"uhf = {info['uhf']}: expected the number of unpaired electrons"
        )
    return spin


def _integer(info: Mapping[str, Any], key: str, default: int) -> int:
    """Return a whole number from the header; a fraction is an error, not rounded."""
    value = info.get(key, default)
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{key} = {value}: expected a whole number") from error
    if not number.is_integer():
        raise InputError(f"{key} = {value}: expected a whole number")
    return int(number)


def _ids(path: Path, frames: Sequence[Any]) -> list[str]:
    """Return one id per frame."""
    for key in ("id", "name"):
        names = [str(atoms.info[key]).strip() for atoms in frames if key in atoms.info]
        if len(names) == len(frames) == len(set(names)) and all(names):
            return names
    if len(frames) == 1:
        return [path.stem]
    width = max(5, len(str(len(frames) - 1)))
    return [f"{path.stem}-{k:0{width}d}" for k in range(len(frames))]
