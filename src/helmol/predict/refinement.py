"""A prediction a few steps nearer to the SCF, with its energy and forces."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from helmol import properties
from helmol.arrays import Array
from helmol.basis import to_house
from helmol.brief import brief
from helmol.predict.prediction import Prediction
from helmol.units import DEBYE_PER_AU

if TYPE_CHECKING:
    from helmol.dft import Refined


@dataclass(frozen=True)
class Refinement:
    """Hold what some steps from a prediction towards the SCF give.

    Attributes:
        prediction: density, orbitals, Fock matrix, dipole and charges after them. The orbital energies are
            expectation values of its Fock matrix, which is diagonal among the occupied and among the empty
            orbitals.
        energy: Eh, dispersion of the level included.
        remaining: what a further response would still gain, Eh.
        gained: energy of the predicted density minus :attr:`energy`, Eh.
        error: estimate of the error of :attr:`energy` against the SCF's, Eh.
        builds: Fock builds that it took.
        responses: linear responses, each with a coarse grid.
        found: the same in PySCF's terms.
    """

    prediction: Prediction
    energy: float
    remaining: float
    gained: float
    error: float
    builds: int
    responses: int
    found: Refined = field(repr=False)

    __repr__ = brief

    @cached_property
    def forces(self) -> Array:
        """Forces, ``[n_atoms, 3]``, Eh/bohr; computed when asked for, at the cost of PySCF's."""
        room = self.prediction.pyscf_room
        forces: Array = room.forces_of(
            self.prediction.mole, room.level_from(self.prediction.level), self.found
        )
        return forces


def refined(prediction: Prediction, *, steps: int, rounds: int, tolerance: float) -> Refinement:
    """Refine a prediction; see :meth:`helmol.predict.Prediction.refine`."""
    room, mole, molecule = prediction.pyscf_room, prediction.mole, prediction.molecule
    level, basis = room.level_from(prediction.level), prediction.known_basis
    found = room.refine(mole, level, prediction.fock, steps=steps, rounds=rounds, tolerance=tolerance)
    shells, charges = basis.shells(molecule.numbers), properties.nuclear_charges(molecule.numbers, basis)
    populations = properties.mulliken_charges(
        found.density, prediction.overlap, offsets=basis.offsets(molecule.numbers), charges=charges
    )
    moment = DEBYE_PER_AU * properties.dipole(
        to_house(found.density, shells, "pyscf"), room.dipole_integrals(mole),
        positions=molecule.positions, charges=charges,
    )  # fmt: skip
    new = replace(
        prediction, fock=found.fock, density=found.density, mo_energy=found.mo_energy,
        mo_coeff=found.mo_coeff, mo_occ=found.mo_occ, charges=populations, dipole=moment,
        residual=None, moved=None,
    )  # fmt: skip
    return Refinement(
        new, found.energy, found.remaining, found.gained, found.error, found.builds, found.responses, found
    )
