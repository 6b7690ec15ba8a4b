"""Every kind of structure file: which reader takes it, and where it states charge and spin.

A format of which ASE's reader loses charge and spin is read here with the places where they stand, or
refused by name; it is never taken for a neutral singlet.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from helmol.damage import DAMAGE, one_line
from helmol.errors import InputError
from helmol.structures import inputs, mdl, xyz
from helmol.structures.frame import Frame
from helmol.structures.state import Statement, whole
from helmol.structures.surroundings import VACUUM

NOTHING_TO_STATE = frozenset(
    (
        "traj netcdftrajectory cif cfg cube gen gromacs gromos res struct struct_out "
        "turbomole-gradient v-sim vasp vasp-xdatcar xsf"
    ).split()
)
"""ASE's names of formats that keep charge and spin in what ASE reads, or have no place for them at all."""

BINARY = frozenset(("traj", "netcdftrajectory"))

ELSEWHERE = {
    ".molden": "a Molden file has orbitals and no charge",
    ".fchk": "ASE does not read formatted checkpoint files",
    ".h5": "a store is no structure file",
}
"""What to say of files that chemists have and ASE does not read."""

GAUSSIAN_SURROUNDED = re.compile(
    r"\b(scrf|field|charge|massage|dkh\w*|douglaskroll\w*|int\w*=dkh\w*)\b", re.IGNORECASE
)
GAUSSIAN_OUT = re.compile(r"Charge\s*=\s*(-?\d+)\s+Multiplicity\s*=\s*(\d+)")
ORCA_CHARGE = re.compile(r"^\s*Total Charge\s+Charge\s+\.+\s+(-?\d+)", re.MULTILINE)
ORCA_MULTIPLICITY = re.compile(r"^\s*Multiplicity\s+Mult\s+\.+\s+(\d+)", re.MULTILINE)
GAUSSIAN_STATE = re.compile(r"^[ \t]*[-+]?\d+(?:[ \t,]+[-+]?\d+)+[ \t]*$", re.MULTILINE)
TURBOMOLE_STATE = re.compile(r"\b(charge|unpaired)\s*=\s*(\S+)")
XTB_STATE = re.compile(r"^[ \t]*\$(chrg|spin)\b[ \t]*=?[ \t]*([^\n#]*)", re.MULTILINE)
TURBOMOLE_SURROUNDED = re.compile(
    r"^[ \t]*\$(periodic|cell|lattice|point_charges|cosmo\w*|gbsa|alpb|solvation|embedding|external"
    r"|efield)\b",
    re.MULTILINE,
)
AIMS_SURROUNDED = re.compile(r"^[ \t]*(homogeneous_field|multipole|empty|pseudocore)\b", re.MULTILINE)


def read_frames(path: Path) -> list[Frame | InputError]:
    """Read all frames of a file; one that cannot be read gives its error and leaves the others.

    Raises:
        InputError: the file is missing, empty, unreadable, or of a format whose charge and spin are lost.
    """
    if not path.is_file():
        problem = "is no file" if path.exists() else "does not exist"
        raise InputError(f"structure file {path} {problem}")
    if path.stat().st_size == 0:
        raise InputError(f"structure file {path} is empty")
    try:
        import ase.io  # noqa: F401
    except ImportError as error:
        raise InputError(f"reading {path} needs ASE: pip install ase") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = _read(path)
    except Exception as error:  # ASE's readers raise whatever their parsing meets.
        text = one_line(error, longest=500)
        if isinstance(error, KeyError):
            text = f"unknown element {' '.join(str(error).split())[:200]}"
        raise InputError(f"cannot read {path}: {text}") from error
    if not frames:
        raise InputError(f"structure file {path} holds no structure")
    return list(frames)


def _read(path: Path) -> Sequence[Frame | InputError]:
    """Choose the reader by the format."""
    name = _format(path)
    if name in ("db", "json"):
        return _rows(path, name)
    if name in BINARY:
        return [Frame(atoms) for atoms in _ase(path, name)]
    text = _text(path)
    if name in READERS:
        return READERS[name](text)
    if name in NOTHING_TO_STATE:
        return [Frame(atoms) for atoms in _ase(StringIO(text) if _takes_text(name) else path, name)]
    raise InputError(
        f"ASE takes it for {name!r}, and its reader loses charge and spin: write the geometry as xyz with "
        "charge= and multiplicity= in the second line"
    )


def _format(path: Path) -> str:
    """Return ASE's name of a file's format, or ``orca-in`` or ``qchem-in``."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    suffix = path.suffix.lower()
    if suffix in (".in", ".inp", ".qcin"):
        text = _text(path)
        if inputs.is_orca(text):
            return "orca-in"
        if inputs.is_qchem(text):
            return "qchem-in"
    name: str | None = None
    try:
        name = filetype(str(path), read=True)
    except UnknownFileTypeError:
        pass
    if name not in ioformats:
        hint = f": {ELSEWHERE[suffix]}" if suffix in ELSEWHERE else ""
        raise InputError(f"no file format that ASE knows (xyz and extxyz are){hint}")
    return str(name)


def _takes_text(name: str) -> bool:
    """Return whether ASE reads a format from text already in memory."""
    from ase.io.formats import ioformats

    return bool(ioformats[name].acceptsfd)


def _text(path: Path) -> str:
    """Return a file's text, unpacked if it is compressed."""
    from ase.io.formats import open_with_compression

    with open_with_compression(str(path), "rb") as file:
        return xyz.decoded(file.read())


def _ase(source: Any, name: str, **settings: Any) -> list[Any]:
    """Let ASE read all frames."""
    from ase.io import read

    source = str(source) if isinstance(source, Path) else source
    found = read(source, index=":", format=name, do_not_split_by_at_sign=True, **settings)
    return found if isinstance(found, list) else [found]


def _rows(path: Path, kind: str) -> list[Frame | InputError]:
    """Read an ASE database; keys and data of a row join the header."""
    from ase.db import connect

    database = connect(str(path), type=kind)
    frames: list[Frame | InputError] = []
    for key in _keys(path) if kind == "db" else [row.id for row in database.select()]:
        try:
            frames.append(_row(database.get(id=key)))
        except DAMAGE as error:
            frames.append(InputError(f"row {key} cannot be read: {one_line(error)}"))
    return frames


def _keys(path: Path) -> list[int]:
    """Return the ids of an SQLite database, without a look at what may be damaged in its rows."""
    uri = f"file:{quote(os.fsencode(path.resolve()))}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        return [int(key) for (key,) in connection.execute("SELECT id FROM systems ORDER BY id")]


def _row(row: Any) -> Frame:
    """Return what a row of an ASE database holds."""
    atoms = row.toatoms()
    atoms.info = {**row.key_value_pairs, **row.data}
    if atoms.calc is not None and isinstance(parameters := row.get("calculator_parameters"), dict):
        atoms.calc.parameters.update(parameters)
    return Frame(atoms)


def _gaussian_input(text: str) -> list[Frame]:
    """Read a Gaussian input with ASE, and charge and multiplicity from its calculator."""
    if "--link1--" in text.lower():
        raise InputError("this Gaussian input has several jobs (--Link1--): write the geometry as xyz")
    # Gaussian takes commas between charge and multiplicity, ASE does not.
    text = GAUSSIAN_STATE.sub(lambda line: line[0].replace(",", " "), text)
    (atoms,) = _ase(StringIO(text), "gaussian-in", attach_calculator=True)
    parameters = atoms.calc.parameters
    route = re.search(r"^[ \t]*#(.*?)\n[ \t]*\n", text, re.MULTILINE | re.DOTALL)
    if route and (word := GAUSSIAN_SURROUNDED.search(route[1])):
        raise InputError(f"the Gaussian input asks for {word[0]!r}: {VACUUM}")
    if re.search(r"\b(au|bohr)\b", str(parameters.get("units") or "").lower()):
        raise InputError("the Gaussian input has positions in bohr (units=au): Å are wanted")
    if any(value is not None for value in parameters.get("znuclist") or ()):
        raise InputError("the Gaussian input sets nuclear charges (ZNuc): helmol knows real nuclei only")
    stated = (
        whole("charge", "charge of the Gaussian input", parameters["charge"]),
        whole("multiplicity", "multiplicity of the Gaussian input", parameters["mult"]),
    )
    atoms.calc = None
    return [Frame(atoms, stated=stated)]


def _gaussian_output(text: str) -> list[Frame]:
    """Read a Gaussian output; charge and multiplicity are those that it prints."""
    found = GAUSSIAN_OUT.findall(text)
    return _output(text, "gaussian-out", [c for c, _ in found], [m for _, m in found])


def _orca_output(text: str) -> list[Frame]:
    """Read an ORCA output; charge and multiplicity are those that it prints."""
    return _output(text, "orca-output", ORCA_CHARGE.findall(text), ORCA_MULTIPLICITY.findall(text))


def _output(text: str, name: str, charges: list[str], multiplicities: list[str]) -> list[Frame]:
    """Read an output whose charge and multiplicity are printed at least once, always the same."""
    for kind, values in (("charge", charges), ("multiplicity", multiplicities)):
        if len(set(values)) != 1:
            what = "does not say its" if not values else f"says {', '.join(dict.fromkeys(values))} for"
            raise InputError(f"the {name} file {what} {kind}: write the geometry as xyz with {kind}=")
    stated = (
        whole("charge", f"charge of the {name} file", charges[0]),
        whole("multiplicity", f"multiplicity of the {name} file", multiplicities[0]),
    )
    return [Frame(atoms, stated=stated) for atoms in _ase(StringIO(text), name)]


def _turbomole(text: str) -> list[Frame]:
    """Read a Turbomole ``coord`` file, positions in bohr.

    Charge and unpaired electrons stand in ``$eht charge=.. unpaired=..``, or as xTB reads them in
    ``$chrg ..`` and ``$spin ..``.

    Source: TURBOMOLE 7 manual, "Format of keywords"; xTB's manual page xcontrol(7).
    """
    head = re.search(r"^[ \t]*\$coord([^\n]*)", text, re.MULTILINE)
    if head and head[1].strip():
        raise InputError(f"'$coord {head[1].strip()}': only $coord alone, with positions in bohr, is read")
    if word := TURBOMOLE_SURROUNDED.search(text):
        raise InputError(f"the file has ${word[1]}: helmol knows molecules in vacuum only")
    numbers = re.sub(r"(?<=[\d.])[dD](?=[-+]?\d)", "e", text)
    stated: list[Statement] = []
    for line in re.findall(r"^[ \t]*\$eht([^\n]*)", text, re.MULTILINE):
        for key, value in TURBOMOLE_STATE.findall(line):
            stated.append(whole("charge" if key == "charge" else "unpaired", f"$eht {key}", value))
    for key, value in XTB_STATE.findall(text):
        stated.append(whole("charge" if key == "chrg" else "unpaired", f"${key}", value.strip()))
    return [Frame(atoms, stated=tuple(stated)) for atoms in _ase(StringIO(numbers), "turbomole")]


def _aims(text: str) -> list[Frame]:
    """Read ``geometry.in`` of FHI-aims; initial charges and moments stay in what ASE reads."""
    from ase.io.aims import read_aims

    if word := AIMS_SURROUNDED.search(text):
        raise InputError(f"the file has {word[1]}: {VACUUM}")
    return [Frame(read_aims(StringIO(text)))]


def _cjson(text: str) -> list[Frame]:
    """Read Chemical JSON with ``properties: {totalCharge, totalSpinMultiplicity}``."""
    data = json.loads(text)
    properties = data.get("properties") or {}
    stated = []
    if "totalCharge" in properties:
        stated.append(whole("charge", "totalCharge", properties["totalCharge"]))
    if "totalSpinMultiplicity" in properties:
        stated.append(whole("multiplicity", "totalSpinMultiplicity", properties["totalSpinMultiplicity"]))
    formal = (data.get("atoms") or {}).get("formalCharges")
    if formal and any(formal):
        stated.append(whole("charge", "formalCharges (their sum)", sum(formal)))
    return [Frame(atoms, stated=tuple(stated)) for atoms in _ase(StringIO(text), "cjson")]


def _protein(text: str) -> list[Frame]:
    """Read PDB with the formal charges in columns 79 and 80 (``2+``, ``1-``)."""
    models: list[int | None] = [None]
    for line in text.split("\n"):
        if line.startswith("ENDMDL"):
            models.append(None)
        elif line.startswith(("ATOM", "HETATM")) and (charge := line[78:80].strip()):
            if not re.fullmatch(r"\d[-+]", charge):
                raise InputError(f"charge {charge!r} in columns 79 and 80: expected a form such as 1- or 2+")
            models[-1] = (models[-1] or 0) + int(charge[0]) * (1 if charge[1] == "+" else -1)
    frames = [atoms for atoms in _ase(StringIO(text), "proteindatabank") if len(atoms)]
    charges = models[: len(frames)] + [None] * (len(frames) - len(models))
    return [
        Frame(atoms, stated=() if c is None else (whole("charge", "charges in columns 79 and 80", c),))
        for atoms, c in zip(frames, charges, strict=True)
    ]


READERS: dict[str, Callable[[str], Sequence[Frame | InputError]]] = {
    "extxyz": xyz.frames,
    "xyz": xyz.frames,
    "sdf": mdl.frames,
    "mol": mdl.frames,
    "orca-in": inputs.orca,
    "qchem-in": inputs.qchem,
    "gaussian-in": _gaussian_input,
    "gaussian-out": _gaussian_output,
    "orca-output": _orca_output,
    "turbomole": _turbomole,
    "aims": _aims,
    "cjson": _cjson,
    "proteindatabank": _protein,
}
"""Readers of text by ASE's name of the format."""
