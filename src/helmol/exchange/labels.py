"""Decide by calculation what the energies and forces of a foreign file mean, or leave them out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from helmol.arrays import Array
from helmol.system import Sample
from helmol.units import ANGSTROM_PER_BOHR, EV_PER_ANGSTROM_PER_AU, JOULE_PER_MOL_PER_HARTREE

ENERGY_TOLERANCE = 0.1
"""Largest difference of a stored and a recomputed energy, Eh: grids and fitting stay below it,
forgotten offsets are far above."""

FORCE_TOLERANCE = 0.2
"""Largest relative difference of forces; the units differ by factors of 1.9 and more."""

SMALLEST_FORCES = 1e-3
"""Norm in Eh/bohr below which forces decide nothing."""

KCAL_PER_MOL_PER_HARTREE = JOULE_PER_MOL_PER_HARTREE / 4184

_UNITS = {
    "Eh/bohr": 1.0,
    "Eh/Å": ANGSTROM_PER_BOHR,
    "eV/Å": 1 / EV_PER_ANGSTROM_PER_AU,
    "kcal/mol/Å": ANGSTROM_PER_BOHR / KCAL_PER_MOL_PER_HARTREE,
}
FORCE_UNITS = {**_UNITS, **{f"{unit}, gradients": -factor for unit, factor in _UNITS.items()}}
"""Factors to Eh/bohr and to forces; a gradient has the other sign."""

MISSING = "missing"
"""What is said about a label that the checked sample does not have."""

log = logging.getLogger("helmol.exchange")


@dataclass(frozen=True)
class Meaning:
    """Hold what to do with the energies and forces of a file.

    Attributes:
        shift: Eh to add to every energy, ``None`` to leave the energies out.
        energy: what was found, in words.
        energy_difference: stored (and shifted) minus recomputed energy of the checked sample, Eh.
        factor: on every force, ``None`` to leave the forces out.
        forces: what was found, in words.
    """

    shift: float | None
    energy: str
    energy_difference: float | None
    factor: float | None
    forces: str

    def apply(self, sample: Sample) -> Sample:
        """Return the sample with its energy in Eh and its forces in Eh/bohr, as far as understood."""
        energy, forces = sample.energy, sample.forces
        return replace(
            sample,
            energy=None if energy is None or self.shift is None else energy + self.shift,
            forces=None if forces is None or self.factor is None else forces * self.factor,
        )

    def unexpected(self, sample: Sample) -> list[str]:
        """Return which labels a sample has although nothing is known about them."""
        labels = {"energies": (self.energy, sample.energy), "forces": (self.forces, sample.forces)}
        return [name for name, (text, label) in labels.items() if text == MISSING and label is not None]


def understand(
    sample: Sample, recomputed: float, recomputed_forces: Array | None, *, shifts: Mapping[str, float]
) -> Meaning:
    """Compare a sample's energy and forces with recomputed ones.

    Args:
        sample: as read.
        recomputed: energy of the same geometry, Eh.
        recomputed_forces: Eh/bohr, ``[n_atoms, 3]``, where the sample has forces.
        shifts: what may have to be added to the energy, Eh, by name.
    """
    shift, energy, difference = _energy(sample, recomputed, shifts)
    factor, forces = _forces(sample, recomputed_forces)
    for name, text in (("energies", energy), ("forces", forces)):
        if text.startswith("left out"):
            log.warning("%s %s", name, text)
    return Meaning(shift, energy, difference, factor, forces)


def _energy(
    sample: Sample, recomputed: float, shifts: Mapping[str, float]
) -> tuple[float | None, str, float | None]:
    if sample.energy is None:
        return None, MISSING, None
    stored = sample.energy
    name = min(shifts, key=lambda key: abs(stored + shifts[key] - recomputed))
    difference = stored + shifts[name] - recomputed
    if abs(difference) > ENERGY_TOLERANCE:
        text = f"left out: {stored:.6f} in the file, {recomputed:.6f} Eh recomputed for {sample.id!r}"
        return None, text, difference
    return shifts[name], "as stored" if shifts[name] == 0 else f"{name} added", difference


def _forces(sample: Sample, recomputed: Array | None) -> tuple[float | None, str]:
    if sample.forces is None or recomputed is None:
        return None, MISSING
    norm = float(np.linalg.norm(recomputed))
    if norm < SMALLEST_FORCES:
        return None, f"left out: those of {sample.id!r} are too small to tell their unit"
    errors = {
        unit: float(np.linalg.norm(sample.forces * factor - recomputed)) / norm
        for unit, factor in FORCE_UNITS.items()
    }
    unit = min(errors, key=lambda key: errors[key])
    if errors[unit] > FORCE_TOLERANCE:
        return None, f"left out: in no known unit do they agree with those recomputed for {sample.id!r}"
    return FORCE_UNITS[unit], unit
