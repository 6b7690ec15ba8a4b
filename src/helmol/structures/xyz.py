"""Text of xyz files in the forms that are in use, made into what ASE's reader of extended xyz takes.

Taken as well are byte-order marks, blank lines between frames, atomic numbers for symbols, D and T for
hydrogen, Fortran's and QM9's exponents (``1.0D-06``, ``1.*^-6``) and QM9's lines after the atoms.
"""

from __future__ import annotations

import re
import warnings
from io import StringIO
from typing import Any

from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.structures.frame import Frame
from helmol.structures.state import Statement, statements_of_text

NUMBER = re.compile(
    r"[-+]?(\d+\.?\d*|\.\d+)([eEdD][-+]?\d+|\*\^[-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE
)
FOREIGN_EXPONENT = re.compile(r"(?<=[\d.])(?:\*\^|[dD])(?=[-+]?\d)")
CHARGE_AND_MULTIPLICITY = re.compile(r"\s*([-+]?\d)\s+([1-9])\s*")
QM9 = re.compile(r"gdb\s+\d+(\s|$)")
QM9_LINES = 3
"""Lines after the atoms of a QM9 file: frequencies, SMILES, InChI."""

COUNT = re.compile(r"\+?\d{1,18}")
"""Line with the number of atoms."""

ISOTOPES = ("D", "T")
PROPERTIES = re.compile(r"""properties\s*=\s*["']?([^\s"']+)""", re.IGNORECASE)


def decoded(data: bytes) -> str:
    """Return text without its byte-order mark; what is not UTF-8 is taken for Latin-1."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def frames(text: str) -> list[Frame | InputError]:
    """Read all frames of an xyz or extended xyz file; one that is none gives its error, which names the line.

    Raises:
        InputError: it does not begin with a number of atoms.
    """
    lines = re.split(r"\r\n|\n|\r", text)
    found: list[Frame | InputError] = []
    start = _begin(lines, 0)
    while start < len(lines):
        after = start + 1
        try:
            n_atoms = _count(lines, start)
            after = start + 2 + n_atoms
            frame, after = _frame(lines, start, n_atoms)
            found.append(frame)
        except InputError as error:
            if not found and after == start + 1:
                raise
            found.append(error)
            after = _resumed(lines, start, after)
        start = _begin(lines, after)
    return found


def _begin(lines: list[str], start: int) -> int:
    """Return the first line from ``start`` on that is not blank."""
    while start < len(lines) and not lines[start].strip():
        start += 1
    return start


def _resumed(lines: list[str], start: int, after: int) -> int:
    """Return where the next frame begins after one that cannot be read.

    That is where its number of atoms says if a number of atoms stands there, else the next such number that
    the line of an atom follows.
    """
    begin = _begin(lines, after)
    if after > start + 1 and (begin == len(lines) or COUNT.fullmatch(lines[begin].strip())):
        return begin
    for line in range(start + 1, len(lines) - 2):
        if COUNT.fullmatch(lines[line].strip()) and _is_atom(lines[line + 2]):
            return line
    return len(lines)


def _is_atom(row: str) -> bool:
    """Return whether a line is a symbol and three numbers."""
    columns = row.split()
    return len(columns) >= 4 and all(NUMBER.fullmatch(column) for column in columns[1:4])


def _frame(lines: list[str], start: int, n_atoms: int) -> tuple[Frame, int]:
    """Return the frame that begins at a line, and the line after it."""
    comment, after = lines[start + 1], start + 2 + n_atoms
    _refuse_bare_state(comment, start + 2)
    species, words = _species_column(comment), dict[str, object]()
    isotopes: list[str] = []
    rows = []
    for k, row in enumerate(lines[start + 2 : after]):
        columns = row.split()
        if species is None:
            columns = _plain_columns(columns, row, start + 3 + k)
        _make_symbol(columns, species or 0, isotopes)
        rows.append(" ".join(FOREIGN_EXPONENT.sub("e", c) if NUMBER.fullmatch(c) else c for c in columns))
    if isotopes:
        words["isotopes"] = isotopes
    stated: list[Statement] = []
    if QM9.match(comment):
        words |= _qm9(comment, lines[after : after + QM9_LINES])
        comment, after = "", after + QM9_LINES
    elif comment.strip() and "=" not in comment:
        stated, words["comment"], comment = statements_of_text(comment), comment.strip(), ""
    if after < len(lines) and lines[after].lstrip().startswith("VEC"):
        raise InputError(f"line {after + 1}: the structure is periodic (VEC): helmol knows molecules only")
    return Frame(_atoms(n_atoms, comment, rows, start + 1), words, tuple(stated)), after


def _count(lines: list[str], start: int) -> int:
    """Return the number of atoms of a frame, checked against what is there."""
    word = lines[start].strip()
    if not COUNT.fullmatch(word):
        short = word if len(word) <= 40 else f"{word[:40]}..."
        raise InputError(f"line {start + 1}: {short!r} is no number of atoms")
    n_atoms, there = int(word), len(lines) - start - 2
    while there > 0 and not lines[start + 1 + there].strip():
        there -= 1
    if n_atoms < 1:
        raise InputError(f"line {start + 1}: a frame of {n_atoms} atoms")
    if n_atoms > max(there, 0):
        raise InputError(f"line {start + 1} says {n_atoms} atoms, {max(there, 0)} lines follow for them")
    return n_atoms


def _refuse_bare_state(comment: str, line: int) -> None:
    """Raise if a comment is two numbers that can be charge and multiplicity, as Psi4 writes them."""
    found = CHARGE_AND_MULTIPLICITY.fullmatch(comment)
    if found and (int(found[1]), int(found[2])) != (0, 1):
        raise InputError(
            f"line {line} is {comment.strip()!r}: if these are charge and multiplicity write "
            f"'charge={int(found[1])} multiplicity={found[2]}', else add a word"
        )


def _species_column(comment: str) -> int | None:
    """Return the column of the symbols that an extended xyz header declares, ``None`` for plain xyz.

    A header that declares none (but atomic numbers) has -1.
    """
    declared = PROPERTIES.search(comment)
    if declared is None:
        return None
    column, fields = 0, declared[1].split(":")
    for name, width in zip(fields[::3], fields[2::3], strict=False):
        if name == "species":
            return column
        column += int(width) if width.isdigit() else 1
    return -1


def _plain_columns(columns: list[str], row: str, line: int) -> list[str]:
    """Return symbol, x, y, z; further columns, which nothing declares, stay behind."""
    if not _is_atom(row):
        raise InputError(f"line {line}: {row.strip()[:60]!r}, expected a symbol and three numbers")
    return columns[:4]


def _make_symbol(columns: list[str], species: int, isotopes: list[str]) -> None:
    """Turn an isotope or an atomic number into a symbol, in place."""
    if not 0 <= species < len(columns):
        return
    symbol = columns[species]
    if symbol.upper() in ISOTOPES:
        isotopes.append(symbol.upper())
        columns[species] = "H"
    elif symbol.isdigit() and 0 < int(symbol) < len(SYMBOLS):
        columns[species] = SYMBOLS[int(symbol)]


def _qm9(comment: str, after: list[str]) -> dict[str, object]:
    """Return what the lines of a QM9 file say."""
    smiles = after[1].split() if len(after) > 1 else []
    return {"gdb": int(comment.split()[1]), **({"smiles": smiles[-1]} if smiles else {})}


def _atoms(n_atoms: int, comment: str, rows: list[str], line: int) -> Any:
    """Let ASE read one frame."""
    from ase.io.extxyz import read_xyz

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return next(
                iter(read_xyz(StringIO("\n".join([str(n_atoms), comment, *rows, ""])), index=slice(None)))
            )
    except Exception as error:  # ASE's reader raises whatever its parsing meets.
        text = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, KeyError):
            text = f"unknown element {text}"
        raise InputError(f"frame at line {line}: {text}") from error
