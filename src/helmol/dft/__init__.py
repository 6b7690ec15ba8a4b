"""PySCF on one molecule: checked labels, cheap Fock matrices, and what a Fock matrix implies.

Knows: PySCF and its checkpoint files, levels of theory, what a label must satisfy. Does not know: stores,
torch. What is no label raises.
Everything that leaves this room is in house order and atomic units; PySCF's order ends here.
"""

import os

from helmol.blas import load_pyscf_blas

# Before PySCF is imported anywhere: then its libraries would be loaded, with kernels of their choice.
load_pyscf_blas()

# isort: split
from pyscf import lib

from helmol.dft.appended import appended_shells
from helmol.dft.attached import beyond_the_molecule, has_own_overlap, other_functional
from helmol.dft.chkfile import read_chkfile, write_chkfile, write_mole_chkfile
from helmol.dft.cubes import write_density_cube, write_orbital_cube, write_potential_cube
from helmol.dft.dispersion import dispersion
from helmol.dft.energy import FockEnergy, energy_of_fock, forces_from
from helmol.dft.expansion import check_expandable, energy_about_atoms
from helmol.dft.field import (
    FOCK_BUILDS,
    auxiliary_name,
    mean_field,
    reference_fock,
    reference_focks,
    reference_gradient,
)
from helmol.dft.gpu import choose_engine, gpu_obstacle
from helmol.dft.integrals import dipole_integrals, house_shells, overlap, quadrupole_integrals
from helmol.dft.labels import check_labels
from helmol.dft.level import LevelConfig, level_from, level_of_theory, method_for
from helmol.dft.memory import needed_mb
from helmol.dft.minimal import minimal_basis
from helmol.dft.mole import basis_set, build_mole, elements_without, molecule_from_mole, other_functions
from helmol.dft.presets import LEVEL_PRESETS
from helmol.dft.refinement import Refined, energy_error, forces_of, refine
from helmol.dft.run import run
from helmol.dft.starts import (
    Occupied,
    asymmetry,
    carried,
    density_of,
    extrapolated,
    in_basis,
    spin_focks,
    split_spins,
)

__all__ = [
    "FOCK_BUILDS",
    "LEVEL_PRESETS",
    "FockEnergy",
    "LevelConfig",
    "Occupied",
    "Refined",
    "appended_shells",
    "asymmetry",
    "auxiliary_name",
    "basis_set",
    "beyond_the_molecule",
    "build_mole",
    "carried",
    "check_expandable",
    "check_labels",
    "choose_engine",
    "density_of",
    "dipole_integrals",
    "dispersion",
    "elements_without",
    "energy_about_atoms",
    "energy_error",
    "energy_of_fock",
    "extrapolated",
    "forces_from",
    "forces_of",
    "gpu_obstacle",
    "has_own_overlap",
    "house_shells",
    "in_basis",
    "level_from",
    "level_of_theory",
    "mean_field",
    "method_for",
    "minimal_basis",
    "molecule_from_mole",
    "needed_mb",
    "other_functional",
    "other_functions",
    "overlap",
    "quadrupole_integrals",
    "read_chkfile",
    "reference_fock",
    "reference_focks",
    "reference_gradient",
    "refine",
    "run",
    "spin_focks",
    "split_spins",
    "write_chkfile",
    "write_density_cube",
    "write_mole_chkfile",
    "write_orbital_cube",
    "write_potential_cube",
]

# In a forked child OpenMP's threads are not there, and who waits for them waits for ever.
os.register_at_fork(after_in_child=lambda: lib.num_threads(1))
