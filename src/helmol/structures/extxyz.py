"""Frames of extended xyz as ASE has them: Å, eV, eV/Å, multiplicity 2S+1."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from helmol.arrays import Array
from helmol.elements import SYMBOLS
from helmol.files import plain
from helmol.system import Molecule
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

JSON = "_JSON "
"""What ASE writes before JSON."""


def extxyz_text(
    name: str,
    molecule: Molecule,
    *,
    energy: float | None = None,
    forces: Array | None = None,
    header: Mapping[str, Any] | None = None,
    columns: Mapping[str, Array] | None = None,
) -> str:
    """Return a frame that :func:`helmol.structures.read` and ASE read back.

    Args:
        name: any text.
        molecule: nuclei, charge, spin.
        energy: Eh.
        forces: Eh/bohr, ``[n_atoms, 3]``.
        header: further words of the header: texts, numbers, vectors, dictionaries that are JSON-able.
        columns: further numbers of every atom by name, ``[n_atoms]``.

    Returns:
        Lines with their ends; floating-point numbers have 12 decimals.
    """
    values, properties = molecule.positions_ang, "species:S:1:pos:R:3"
    words = {"name": name, "charge": molecule.charge, "spin": molecule.spin + 1, **(header or {})}
    if energy is not None:
        words["energy"] = EV_PER_HARTREE * energy
    if forces is not None:
        values = np.hstack([values, EV_PER_ANGSTROM_PER_AU * forces])
        properties += ":forces:R:3"
    for column, numbers in (columns or {}).items():
        values = np.hstack([values, numbers[:, None]])
        properties += f":{column}:R:1"
    text = " ".join(f"{key}={_written(value)}" for key, value in words.items())
    lines = [
        f"{SYMBOLS[number]:<2} " + " ".join(f"{x:20.12f}" for x in row)
        for number, row in zip(molecule.numbers, values, strict=True)
    ]
    return "\n".join([str(molecule.n_atoms), f'Properties={properties} {text} pbc="F F F"', *lines]) + "\n"


def _written(value: str | float | Array | Mapping[str, Any]) -> str:
    """Return a value as ASE's extended xyz writes it: texts in quotes, dictionaries as JSON."""
    if isinstance(value, Mapping):
        return _quoted(JSON + json.dumps(plain(dict(value)), sort_keys=True))
    if isinstance(value, np.ndarray):
        return _quoted(" ".join(f"{number:.12f}" for number in value))
    if isinstance(value, str):
        return _quoted(value if _stays_text(value) else JSON + json.dumps(value))
    return f"{value:.12f}" if isinstance(value, float) else str(value)


def _stays_text(text: str) -> bool:
    """Return whether a reader leaves a text in quotes alone: ``007``, ``T`` and ``1 2`` become numbers."""
    words = re.split(r"[\s,\[\]{}]+", text.strip("[]{} "))
    plain_words = text == text.strip() and text.isprintable() and not text.startswith(JSON)
    return plain_words and not all(map(_is_value, words))


def _is_value(word: str) -> bool:
    """Return whether a word reads as a number or a truth value."""
    try:
        float(word)
    except ValueError:
        return word.upper() in ("", "T", "F", "TRUE", "FALSE")
    return True


def _quoted(text: str) -> str:
    """Return a text in quotes."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
