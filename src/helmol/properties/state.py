"""The one way from a Fock matrix to orbitals, density, gap, dipole and charges of a molecule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helmol.arrays import Array, Float64
from helmol.basis import BasisSet, MOrder, coefficients_from_house, from_house
from helmol.brief import brief
from helmol.properties import expectation, populations
from helmol.properties.orbitals import density, frontier, occupations, orbitals
from helmol.system import Molecule


@dataclass(frozen=True)
class ElectronicState:
    """Hold the orbitals of a Fock matrix, the lowest filled; house order, atomic units.

    Attributes:
        molecule: nuclei, charge, spin.
        basis: shells of its elements.
        overlap: ``[nao, nao]``.
        mo_energy: ``[nmo]`` or ``[2, nmo]``, ascending; nmo < nao where the basis is nearly dependent.
        mo_coeff: ``[nao, nmo]`` or ``[2, nao, nmo]``.
        mo_occ: 2 or 0, or for two spins 1 or 0, of the shape of ``mo_energy``.
        density: ``[nao, nao]`` or ``[2, nao, nao]``.
    """

    molecule: Molecule
    basis: BasisSet
    overlap: Float64[Array, "nao nao"]
    mo_energy: Float64[Array, "*spins nmo"]
    mo_coeff: Float64[Array, "*spins nao nmo"]
    mo_occ: Float64[Array, "*spins nmo"]
    density: Float64[Array, "*spins nao nao"]

    __repr__ = brief

    @property
    def homo(self) -> float:
        """Energy of the highest occupied orbital of both spins, Eh; NaN without one."""
        return frontier(self.mo_energy, self.mo_occ)[0]

    @property
    def lumo(self) -> float:
        """Energy of the lowest empty orbital of both spins, Eh; NaN without one."""
        return frontier(self.mo_energy, self.mo_occ)[1]

    @property
    def gap(self) -> float:
        """LUMO minus HOMO, Eh; negative only across two spins, NaN where one of them does not exist."""
        return self.lumo - self.homo

    @property
    def filled(self) -> list[Float64[Array, "nao n"]]:
        """Occupied columns of ``mo_coeff``, ``[nao, n]``, of each spin: twice the same of one matrix."""
        spins = [
            coefficients[:, occupied > 0]
            for coefficients, occupied in zip(
                self.mo_coeff.reshape(-1, *self.mo_coeff.shape[-2:]), np.atleast_2d(self.mo_occ), strict=True
            )
        ]
        return spins * (3 - len(spins))

    @property
    def charges(self) -> Float64[Array, " n_atoms"]:
        """Mulliken charges, ``[n_atoms]``, e."""
        numbers = self.molecule.numbers
        return populations.mulliken_charges(
            self.density, self.overlap, offsets=self.basis.offsets(numbers),
            charges=expectation.nuclear_charges(numbers, self.basis),
        )  # fmt: skip

    def dipole(self, integrals: Float64[Array, "3 nao nao"]) -> Float64[Array, 3]:
        """Return the dipole moment about the origin, ``[3]``, e·bohr, from ``⟨µ|r|ν⟩ [3, nao, nao]``."""
        charges = expectation.nuclear_charges(self.molecule.numbers, self.basis)
        return expectation.dipole(self.density, integrals, positions=self.molecule.positions, charges=charges)

    def arrays(self, order: MOrder) -> dict[str, Array]:
        """Return ``overlap density mo_energy mo_coeff mo_occ charges`` in an AO order."""
        shells = self.basis.shells(self.molecule.numbers)
        return {
            "overlap": from_house(self.overlap, shells, order),
            "density": from_house(self.density, shells, order),
            "mo_energy": self.mo_energy,
            "mo_coeff": coefficients_from_house(self.mo_coeff, shells, order),
            "mo_occ": self.mo_occ,
            "charges": self.charges,
        }


def electronic_state(
    fock: Array, overlap: Array, molecule: Molecule, basis: BasisSet, *, density_matrix: Array | None = None
) -> ElectronicState:
    """Diagonalise a Fock matrix and fill its lowest orbitals.

    Args:
        fock: house order, Eh, ``[nao, nao]`` or ``[2, nao, nao]``.
        overlap: house order, ``[nao, nao]``.
        molecule: for electrons, charge and spin.
        basis: shells of its elements.
        density_matrix: one that is known better than from the orbitals, of the shape of ``fock``.

    Raises:
        InputError: shapes do not fit, numbers are not finite, or unpaired electrons with one matrix.
    """
    mo_energy, mo_coeff = orbitals(fock, overlap)
    electrons = basis.n_electrons(molecule.numbers, molecule.charge)
    mo_occ = occupations(mo_energy, electrons, spin=molecule.spin)
    found = density(mo_coeff, mo_occ) if density_matrix is None else density_matrix
    return ElectronicState(molecule, basis, overlap, mo_energy, mo_coeff, mo_occ, found)
