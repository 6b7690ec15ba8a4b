"""A prediction a few steps nearer to the SCF, with its energy and forces."""

from __future__ import annotations

from dataclasses import dataclass, replace

from helmol import properties
from helmol.arrays import Array
from helmol.basis import to_house
from helmol.brief import brief
from helmol.predict.prediction import Prediction
from helmol.units import DEBYE_PER_AU


@dataclass(frozen=True)
class Refinement:
    """Hold what some steps from a prediction towards the SCF give.

    Attributes:
        prediction: density, orbitals, Fock matrix, dipole and charges after them. The orbital energies are
            expectation values of its Fock matrix, which is diagonal among the occupied and among the empty
            orbitals.
        energy: Eh, dispersion of the level included.
        remaining: what a further response would still gain, Eh; small against the energy that is wanted, or
            the steps were too few. What is of third order in the change comes on top.
        gained: energy of the predicted density minus :attr:`energy`, Eh.
        forces: ``[n_atoms, 3]``, Eh/bohr, where asked for.
        builds: Fock builds that it took.
        responses: linear responses, each with a coarse grid.
    """

    prediction: Prediction
    energy: float
    remaining: float
    gained: float
    forces: Array | None
    builds: int
    responses: int

    __repr__ = brief


def refined(prediction: Prediction, *, steps: int, rounds: int, forces: bool) -> Refinement:
    """Refine a prediction; see :meth:`helmol.predict.Prediction.refine`."""
    room, mole, molecule = prediction.pyscf_room, prediction.mole, prediction.molecule
    level, basis = room.level_from(prediction.level), prediction.known_basis
    found = room.refine(mole, level, prediction.fock, steps=steps, rounds=rounds)
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
    slope = room.forces_of(mole, level, found) if forces else None
    return Refinement(new, found.energy, found.remaining, found.gained, slope, found.builds, found.responses)
