"""What a molecule needs in memory, before anyone waits for it."""

from __future__ import annotations

from helmol.dft.level import LevelConfig, method_for
from helmol.dft.mole import basis_set
from helmol.system import Molecule

PROCESS_MB = 300.0
"""Python with NumPy, SciPy, PySCF and libxc."""

MATRICES = 60
"""Matrices of the size of the Fock matrix that exist at once: DIIS keeps sixteen."""

GRID_MB_PER_ATOM = 6.0
"""Points, weights and a block of orbital values of one atom at grid level 3."""


def needed_mb(molecule: Molecule, level: LevelConfig) -> float:
    """Estimate what an SCF cannot do without, MB; tables of integrals come on top if there is room.

    300 MB for the program, 60 matrices per spin and 6 MB per atom for the grid. Measured with PySCF 2.14:
    C4H8 and C12H24, 96 and 288 functions, preset ``fast`` with ``max_memory`` 600: 458 and 581 MB, of which
    10 and 284 MB are their fitted integrals; estimated without those 376 and 556.

    Raises:
        InputError: an element without basis, or restricted asked for an open shell.
    """
    n_ao = int(basis_set(level, molecule.numbers.tolist()).offsets(molecule.numbers)[-1])
    n_spins = 2 if method_for(level, molecule.spin) == "uks" else 1
    matrices = MATRICES * n_spins * 8e-6 * n_ao**2
    return PROCESS_MB + matrices + GRID_MB_PER_ATOM * (1 + level.grid_level) / 4 * molecule.n_atoms
