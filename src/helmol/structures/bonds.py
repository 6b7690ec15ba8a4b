"""Who is bonded to whom, by distance; and the name of an atom's surroundings that follows."""

from __future__ import annotations

import numpy as np

from helmol.arrays import BoolArray
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.system import Molecule

STRETCH = 1.3
"""Two atoms are bonded if they are closer than this times the sum of their covalent radii."""


def bonds(molecule: Molecule) -> BoolArray:
    """Return ``[n_atoms, n_atoms]``, true where two atoms are bonded.

    Raises:
        InputError: ASE, whose covalent radii are used, is missing.

    Source: Cordero et al., Dalton Trans. 2832 (2008) for the radii.
    """
    try:
        from ase.data import covalent_radii
    except ImportError as error:
        raise InputError("bonds need ASE for the covalent radii: pip install ase") from error
    radii = covalent_radii[molecule.numbers]
    positions = molecule.positions_ang
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    near: BoolArray = distance < STRETCH * (radii[:, None] + radii[None])
    return near & ~np.eye(molecule.n_atoms, dtype=bool)


def environments(molecule: Molecule) -> list[str]:
    """Return for each atom its element and those it is bonded to, as ``C(CHHH)`` or ``O()``."""
    near = bonds(molecule)
    symbols = np.array([SYMBOLS[z] for z in molecule.numbers])
    return [
        f"{symbol}({''.join(sorted(symbols[row]))})"
        for symbol, row in zip(symbols.tolist(), near, strict=True)
    ]
