"""What a header says about the surroundings of a molecule; helmol knows molecules in vacuum only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from helmol.errors import InputError
from helmol.structures.state import flat_items, plain_name

FIELDS = frozenset("efield electricfield externalfield externalelectricfield magneticfield".split())
CHARGES = frozenset("pointcharges externalcharges mmcharges backgroundcharges".split())
SOLVENTS = frozenset(
    "solvent solventname solvation solventmodel implicitsolvent solvated pcm cpcm smd cosmo alpb gbsa".split()
)
LENGTHS = frozenset("unit units lengthunit lengthunits positionunit positionunits posunit".split())
RELATIVITY = frozenset("x2c dkh zora relativistic relativity".split())

VACUUM = (
    "helmol knows molecules in vacuum, without relativistic terms; delete it if the molecule alone is meant"
)

NOTHING = frozenset(
    ("", "none", "no", "false", "f", "vacuum", "gas", "gasphase", "vac", "0", "nonrelativistic")
)
"""What headers write where there is nothing of the kind."""

OTHER_LENGTHS = frozenset("bohr bohrs au atomic atomicunits nm nanometer nanometers pm".split())
ANGSTROM = frozenset("angstrom angstroms ang a".split())


def refuse_surroundings(info: Mapping[str, Any]) -> None:
    """Raise if a header names a field, charges or a solvent around the molecule, or relativistic terms.

    Raises:
        InputError: names the word of the header.
    """
    kinds = {
        "an external field": FIELDS, "point charges": CHARGES, "a solvent": SOLVENTS,
        "relativistic terms": RELATIVITY,
    }  # fmt: skip
    for key, value in flat_items(info):
        for kind, names in kinds.items():
            # A bare word of a comment says nothing.
            if plain_name(key) in names and not isinstance(value, (bool, np.bool_)) and _is_something(value):
                raise InputError(f"{key} = {' '.join(str(value).split())} stands for {kind}: {VACUUM}")


def unit_is_stated(info: Mapping[str, Any]) -> bool:
    """Return whether a header says that positions are in Å.

    Raises:
        InputError: it says that they are in something else.
    """
    stated = False
    for key, value in flat_items(info):
        if plain_name(key) in LENGTHS and isinstance(value, str):
            unit = plain_name(value)
            if unit in OTHER_LENGTHS:
                raise InputError(f"the header says {key} = {value}: positions are wanted in Å")
            stated = stated or unit in ANGSTROM or value.strip() in ("\u00c5", "\u212b")
    return stated


def _is_something(value: Any) -> bool:
    """Return whether a value stands for something there."""
    if isinstance(value, str):
        return plain_name(value) not in NOTHING
    array = np.asarray(value)
    return bool(array.size) and (array.dtype.kind not in "biuf" or bool(np.any(array != 0)))
