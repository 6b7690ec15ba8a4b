"""MDL molfiles and SDF files (V2000): every record, with the charges and radicals that it states.

Source: BIOVIA, CTfile Formats (2020): atom block, property block, SDF data items.
"""

from __future__ import annotations

import re
from io import StringIO

from helmol.errors import InputError
from helmol.structures.frame import Frame
from helmol.structures.state import CHARGE, MULTIPLICITY, Statement, plain_name, whole

ATOM_CHARGES = {0: 0, 1: 3, 2: 2, 3: 1, 4: 0, 5: -1, 6: -2, 7: -3}
"""Charge of an atom by the code of the atom block; 4 is a doublet radical."""

DOUBLET = 4

UNPAIRED = {0: 0, 1: 0, 2: 1, 3: 2}
"""Unpaired electrons by the code of ``M  RAD``: none, singlet, doublet, triplet."""

DATA_ITEM = re.compile(r"^>.*<([^>]+)>", re.MULTILINE)


def frames(text: str) -> list[Frame | InputError]:
    """Read all records of a molfile or SDF file.

    Those of another version, drawings in two dimensions, and states that are not clear give their error.
    """
    records = [r for r in re.split(r"^\$\$\$\$.*$\n?", text, flags=re.MULTILINE) if r.strip()]
    found: list[Frame | InputError] = []
    for number, record in enumerate(records, start=1):
        try:
            found.append(_frame(record))
        except (InputError, ValueError, IndexError, KeyError) as error:
            what = f"unknown element {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            found.append(InputError(f"record {number} of {len(records)}: {what}"))
    return found


def _frame(record: str) -> Frame:
    from ase.io.sdf import read_sdf

    lines = record.split("\n")
    if len(lines) < 4:
        raise InputError("it has no counts line")
    if "V3000" in lines[3]:
        raise InputError("molfiles of version V3000 are not read: write V2000, or xyz")
    if lines[1][20:22].upper() == "2D":
        raise InputError("it is a drawing in two dimensions, no geometry")
    atoms = read_sdf(StringIO(record))
    if len(atoms) != int(lines[3][:3]):
        raise InputError(f"it says {int(lines[3][:3])} atoms and has {len(atoms)}")
    atoms.info.update(_items(record))
    title = lines[0].strip()
    return Frame(atoms, {"title": title} if title else {}, tuple(_stated(lines, len(atoms))))


def _items(record: str) -> dict[str, str]:
    """Return the data items that follow the molecule, those of one line."""
    _, _, after = record.partition("M  END")
    parts = DATA_ITEM.split(after)
    found = {}
    for name, value in zip(parts[1::2], parts[2::2], strict=True):
        # PubChem's PUBCHEM_TOTAL_CHARGE is the total charge.
        key = name.strip().removeprefix("PUBCHEM_").lower()
        if len(value.strip().splitlines()) == 1:
            found[key if plain_name(key) in CHARGE | MULTIPLICITY else name.strip()] = value.strip()
    return found


def _stated(lines: list[str], n_atoms: int) -> list[Statement]:
    """Return the sums of charges and unpaired electrons.

    Lines ``M  CHG`` and ``M  RAD`` replace the codes of the atom block, all of them.
    """
    charges, radicals = _property(lines, "CHG"), _property(lines, "RAD")
    if charges or radicals:
        name, charge = "M  CHG", sum(charges)
        unpaired = [UNPAIRED[code] for code in radicals if UNPAIRED.get(code, 1)]
    else:
        codes = [int(line[36:39].strip() or 0) for line in lines[4 : 4 + n_atoms]]
        name, charge = "charge of the atom block", sum(ATOM_CHARGES[code] for code in codes)
        unpaired = [1 for code in codes if code == DOUBLET]
    if len(unpaired) > 1:
        raise InputError(
            f"it has {len(unpaired)} radical centres and does not say how they couple: write xyz"
        )
    return [whole("charge", name, charge), *(whole("unpaired", "M  RAD", n) for n in unpaired)]


def _property(lines: list[str], name: str) -> list[int]:
    """Return the values of all property lines of a kind."""
    values = []
    for line in lines:
        if line.startswith(f"M  {name}"):
            numbers = [int(word) for word in line[6:].split()]
            if len(numbers) != 1 + 2 * numbers[0]:
                raise InputError(f"{line.strip()!r} has not the {numbers[0]} pairs of numbers that it says")
            values += numbers[2::2]
    return values
