"""What a Fock matrix or a composition says: orbitals, density, moments, charges, bonds, element energies.

Knows: the generalised eigenproblem, occupations, expectation values, least squares over compositions;
NumPy, atomic units. Does not know: how the Fock matrix came about, PySCF, torch, files. Every function
works in any AO order as long as all its arguments are in the same one; helmol uses the house order
(:mod:`helmol.basis`).

Restricted matrices are ``[nao, nao]``; unrestricted ones carry a leading axis of 2 (alpha, beta).
"""

from helmol.properties.composition import N_ELEMENTS, ElementEnergies, composition, element_energies
from helmol.properties.expectation import (
    density_error,
    dipole,
    electronic_dipole,
    electrons_moved,
    nuclear_charges,
    quadrupole,
    residual,
    total_density,
)
from helmol.properties.flags import FAR_SHARE, SMALL_GAP, density_flag, gap_flag
from helmol.properties.orbitals import (
    SMALLEST_OVERLAP_EIGENVALUE,
    TEMPERATURE,
    density,
    density_of_states,
    frontier,
    gap,
    occupations,
    orbitals,
    orthonormal,
    smeared_occupations,
)
from helmol.properties.populations import (
    by_atom,
    iao_charges,
    intrinsic_orbitals,
    lowdin_charges,
    lowdin_density,
    lowdin_spins,
    mayer_bond_orders,
    mulliken_charges,
    mulliken_spins,
    spin_density,
    wiberg_bond_orders,
)
from helmol.properties.state import ElectronicState, electronic_state

__all__ = [
    "FAR_SHARE",
    "N_ELEMENTS",
    "SMALLEST_OVERLAP_EIGENVALUE",
    "SMALL_GAP",
    "TEMPERATURE",
    "ElectronicState",
    "ElementEnergies",
    "by_atom",
    "composition",
    "density",
    "density_error",
    "density_flag",
    "density_of_states",
    "dipole",
    "electronic_dipole",
    "electronic_state",
    "electrons_moved",
    "element_energies",
    "frontier",
    "gap",
    "gap_flag",
    "iao_charges",
    "intrinsic_orbitals",
    "lowdin_charges",
    "lowdin_density",
    "lowdin_spins",
    "mayer_bond_orders",
    "mulliken_charges",
    "mulliken_spins",
    "nuclear_charges",
    "occupations",
    "orbitals",
    "orthonormal",
    "quadrupole",
    "residual",
    "smeared_occupations",
    "spin_density",
    "total_density",
    "wiberg_bond_orders",
]
