"""Unit constants, each a ratio named ``A_PER_B`` with its source.

Inside helmol everything is in atomic units (bohr, Hartree, electron charge); these ratios are
used only at the doors. Sources: CODATA 2018 (NIST SP 961, 2019) for the physical constants.
"""

from typing import Final

ANGSTROM_PER_BOHR: Final = 0.529177210903
"""Bohr radius in Å. Source: CODATA 2018."""

EV_PER_HARTREE: Final = 27.211386245988
"""Hartree energy in eV. Source: CODATA 2018."""

KELVIN_PER_HARTREE: Final = 315775.02480407
"""Hartree energy over the Boltzmann constant, in K. Source: CODATA 2018."""

DEBYE_PER_AU: Final = 2.541746473
"""Atomic unit of electric dipole moment (e·bohr) in Debye. Source: CODATA 2018."""

MICROHARTREE_PER_HARTREE: Final = 1e6
"""µEh in one Eh."""

EV_PER_ANGSTROM_PER_AU: Final = EV_PER_HARTREE / ANGSTROM_PER_BOHR
"""Atomic unit of force (Eh/bohr) in eV/Å."""

JOULE_PER_MOL_PER_HARTREE: Final = 2625499.6394799
"""Hartree energy times the Avogadro constant, in J/mol. Source: CODATA 2018."""

WAVENUMBER_PER_HARTREE: Final = 219474.63136320
"""Hartree energy over hc, in 1/cm. Source: CODATA 2018."""

ELECTRON_MASS_PER_DALTON: Final = 1822.888486209
"""Unified atomic mass unit in electron masses. Source: CODATA 2018 (inverse of 5.48579909065e-4)."""
