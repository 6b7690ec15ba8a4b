"""Whether distances are those of a molecule, and what is likely wrong with a file where they are not."""

from __future__ import annotations

import numpy as np

from helmol.arrays import Array, IntArray
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.structures.settle import contacts
from helmol.system import MINIMUM_DISTANCE_ANGSTROM
from helmol.units import ANGSTROM_PER_BOHR

UNITS = {
    "they are in bohr, where Å are wanted": ANGSTROM_PER_BOHR,
    "they are in Å and were taken for bohr and converted once too often": 1 / ANGSTROM_PER_BOHR,
    "they are in nm, where Å are wanted": 10.0,
    "they are in pm, where Å are wanted": 0.01,
}
"""Mistaken units by what to say of them: factors on positions read as Å that undo them."""

BOND = (0.7, 1.3)
"""Nearest neighbours of a molecule lie within these multiples of the sum of covalent radii: N₂ at 0.77, F₂
at 1.24, and what dynamics add."""

NO_BOND = (0.65, 1.45)
"""Where all nearest neighbours are closer or further than these multiples the unit is in question. Å read as
bohr shorten bonds to 0.53, bohr read as Å stretch them to 1.89."""

FEWEST_ATOMS = 3
"""Two atoms alone may be anywhere on a dissociation curve."""

TOUCHING = 1.05
"""An atom that has more non-metals than ``VALENCE`` within this multiple of the sum of radii is crowded."""

VALENCE = {1: 1, 6: 4, 7: 4, 8: 3, 9: 1}
"""Most non-metals that lie at bonding distance of an atom (H₃O⁺, NH₄⁺); bridges are longer than bonds."""

NON_METALS = (1, 6, 7, 8, 9, 15, 16, 17, 34, 35, 53)
NOBLE_GASES = (2, 10, 18, 36, 54, 86)

SHARE_OF_COPIES = 0.6
"""Two copies of a molecule at one place: at least this share of all atoms lies on another atom."""


def check_distances(numbers: IntArray, positions_ang: Array, *, unit_stated: bool = False) -> None:
    """Raise if atoms lie where no molecule has them, and name the likely cause.

    Found are mistaken units (from three atoms on, if all distances agree about it), several copies of a
    molecule at one place, and molecules inside each other.

    Args:
        numbers: atomic numbers, ``[n_atoms]``.
        positions_ang: as they were read, taken for Å, ``[n_atoms, 3]``.
        unit_stated: whether the file itself says that they are Å; then the unit is not in question.

    Raises:
        InputError: says what is likely wrong.
    """
    if len(numbers) < 2 or not np.isfinite(positions_ang).all() or numbers.min() < 1:
        return
    distances = np.linalg.norm(positions_ang[:, None] - positions_ang[None], axis=-1)
    distances[np.diag_indices(len(numbers))] = np.inf
    ratios = distances / contacts(numbers, numbers)
    unit = None if unit_stated else _mistaken_unit(numbers, ratios)
    if unit is not None:
        i, j = np.unravel_index(int(distances.argmin()), distances.shape)
        raise InputError(
            f"the closest atoms, {i + 1} ({SYMBOLS[numbers[i]]}) and {j + 1} ({SYMBOLS[numbers[j]]}), are "
            f"{distances[i, j]:.3f} Å apart if positions are read as Å: likely {unit} (a header that says "
            "units=angstrom is believed)"
        )
    _refuse_copies(numbers, distances)
    _refuse_crowds(numbers, ratios)


def _mistaken_unit(numbers: IntArray, ratios: Array) -> str | None:
    """Return the unit in which nearest neighbours are all bonded, if in Å not one of them is."""
    bonding = ~np.isin(numbers, NOBLE_GASES)
    # H₃ on the way from H₂ + H to H + H₂ has 1.5 times the sum of radii.
    if bonding.sum() < FEWEST_ATOMS or (numbers[bonding] == 1).all():
        return None
    nearest = ratios.min(axis=1)[bonding]
    if not (nearest.max() < NO_BOND[0] or nearest.min() > NO_BOND[1]):
        return None
    for unit, factor in UNITS.items():
        if (nearest * factor > BOND[0]).all() and (nearest * factor < BOND[1]).all():
            return unit
    return None


def _refuse_copies(numbers: IntArray, distances: Array) -> None:
    """Raise if most atoms lie on another atom."""
    on_another = (distances < MINIMUM_DISTANCE_ANGSTROM).any(axis=1)
    if on_another.sum() < 4 or on_another.mean() < SHARE_OF_COPIES:
        return
    i, j = np.argwhere(distances < MINIMUM_DISTANCE_ANGSTROM)[0]
    raise InputError(
        f"{on_another.sum()} of {len(numbers)} atoms lie on another one (atom {j + 1} on atom {i + 1}): "
        "likely several copies of a molecule at one place; write one, or each as a frame of its own"
    )


def _refuse_crowds(numbers: IntArray, ratios: Array) -> None:
    """Raise if two atoms or more have more neighbours at bonding distance than they can bind."""
    touching = (ratios < TOUCHING) & np.isin(numbers, NON_METALS)[None, :]
    most = np.array([VALENCE.get(int(z), len(numbers)) for z in numbers])
    crowded = np.flatnonzero(touching.sum(axis=1) > most)
    if len(crowded) < 2:
        return
    k = crowded[0]
    neighbours = ", ".join(f"{j + 1} ({SYMBOLS[numbers[j]]})" for j in np.flatnonzero(touching[k])[:4])
    raise InputError(
        f"{len(crowded)} atoms touch more others than they can bind, atom {k + 1} ({SYMBOLS[numbers[k]]}) "
        f"for example {neighbours}: likely molecules that lie inside each other"
    )
