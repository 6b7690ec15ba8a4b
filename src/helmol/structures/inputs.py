"""Input files of ORCA and Q-Chem: charge, multiplicity and Cartesian positions.

Source: ORCA 6 manual, "Coordinates"; Q-Chem 6 manual, "Molecular coordinate input".
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from helmol.elements import atomic_number
from helmol.errors import InputError
from helmol.structures.frame import Frame
from helmol.structures.state import whole
from helmol.structures.surroundings import VACUUM
from helmol.units import ANGSTROM_PER_BOHR

ORCA = re.compile(r"^[ \t]*\*[ \t]*(\w+)[ \t]+([-+]?\d+)[ \t]+(\d+)[^\n]*\n(.*?)^[ \t]*\*", re.M | re.S)
ORCA_ELSEWHERE = re.compile(r"^[ \t]*(\*[ \t]*xyzfile|%[ \t]*coords)", re.M | re.I)
QCHEM = re.compile(r"^[ \t]*\$molecule[^\n]*\n(.*?)^[ \t]*\$end", re.M | re.S | re.I)
QCHEM_BOHR = re.compile(r"^[ \t]*input_bohr[ \t]*=?[ \t]*(true|1)", re.M | re.I)

SURROUNDED = re.compile(
    r"\b(cpcmc?|cpcm\(.*?\)|smd|alpb|cosmors|scrf|solvent_method|pcm)\b|%[ \t]*(cpcm|pointcharges)|"
    r"\$external_charges|\b(efield|dkh2?|zora|x2c)\b|^[ \t]*field[ \t]*=",
    re.M | re.I,
)
"""Words of an input by which it is not about the molecule in vacuum."""


def is_orca(text: str) -> bool:
    """Return whether a text is an input of ORCA."""
    return ORCA.search(text) is not None or ORCA_ELSEWHERE.search(text) is not None


def is_qchem(text: str) -> bool:
    """Return whether a text is an input of Q-Chem."""
    return QCHEM.search(text) is not None


def orca(text: str) -> list[Frame]:
    """Read the block ``* xyz CHARGE MULTIPLICITY`` of an ORCA input.

    Raises:
        InputError: the geometry stands elsewhere, or is not one of real atoms alone.
    """
    text = re.sub(r"#[^\n]*", "", text)
    if ORCA_ELSEWHERE.search(text):
        raise InputError(
            "the geometry of this ORCA input stands in another place: give that file, or '* xyz'"
        )
    blocks = ORCA.findall(text)
    if len(blocks) != 1 or blocks[0][0].lower() != "xyz":
        raise InputError("this ORCA input has not exactly one block '* xyz CHARGE MULTIPLICITY'")
    refuse_surroundings_of_input(text)
    _, charge, multiplicity, rows = blocks[0]
    bohr = re.search(r"^[ \t]*![^\n]*\bbohrs\b", text, re.M | re.I) is not None
    return [_frame("ORCA", charge, multiplicity, rows.split("\n"), bohr=bohr)]


def qchem(text: str) -> list[Frame]:
    """Read the section ``$molecule`` of a Q-Chem input.

    Raises:
        InputError: the geometry stands elsewhere, or is not one of real atoms alone.
    """
    text = re.sub(r"!.*", "", text)
    blocks = QCHEM.findall(text)
    if len(blocks) != 1:
        raise InputError(f"this Q-Chem input has {len(blocks)} sections $molecule, one is wanted")
    refuse_surroundings_of_input(text)
    rows = [row for row in blocks[0].split("\n") if row.strip()]
    state = rows[0].split() if rows else []
    if len(state) != 2:
        raise InputError("the section $molecule does not begin with charge and multiplicity")
    atoms = _without_fragments(rows[1:])
    charge, multiplicity = state
    return [_frame("Q-Chem", charge, multiplicity, atoms, bohr=QCHEM_BOHR.search(text) is not None)]


def refuse_surroundings_of_input(text: str) -> None:
    """Raise if an input asks for a solvent, a field, point charges or relativistic terms.

    Raises:
        InputError: names the word.
    """
    if found := SURROUNDED.search(text):
        raise InputError(f"the input asks for {found[0].strip()!r}: {VACUUM}")


def _without_fragments(rows: list[str]) -> list[str]:
    """Leave out the lines ``--`` between fragments and the charge and multiplicity after each."""
    kept: list[str] = []
    skip = False
    for row in rows:
        if row.strip() == "--":
            skip = True
        elif skip:
            skip = False
        else:
            kept.append(row)
    return kept


def _frame(program: str, charge: str, multiplicity: str, rows: list[str], *, bohr: bool) -> Frame:
    """Return the frame of lines ``symbol x y z``."""
    from ase import Atoms

    numbers, positions = [], []
    for row in rows:
        columns = row.split()
        if not columns:
            continue
        try:
            numbers.append(_number(columns[0]))
            positions.append([float(word) for word in columns[1:]])
            if len(columns) != 4:
                raise ValueError
        except (InputError, ValueError):
            raise InputError(
                f"{row.strip()!r} of the {program} input: expected a symbol and three numbers (no ghosts, "
                "point charges, other nuclear charges or internal coordinates)"
            ) from None
    scale = ANGSTROM_PER_BOHR if bohr else 1.0
    atoms: Any = Atoms(numbers=numbers, positions=scale * np.array(positions).reshape(-1, 3))
    stated = (
        whole("charge", f"charge of the {program} input", charge),
        whole("multiplicity", f"multiplicity of the {program} input", multiplicity),
    )
    return Frame(atoms, stated=stated)


def _number(symbol: str) -> int:
    return int(symbol) if symbol.isdigit() else atomic_number(symbol)
