"""Levels of theory of published data sets, by name."""

from __future__ import annotations

from collections.abc import Mapping

LEVEL_PRESETS: Mapping[str, Mapping[str, object]] = {
    # Schuett et al., Nat. Commun. 10, 5024 (2019).
    "md17": {"xc": "pbe", "basis": "def2-svp"},
    # Yu et al., NeurIPS 2023 (QH9): PySCF before 2.3, whose b3lyp is today's b3lyp5.
    "qh9": {"xc": "b3lyp5", "basis": "def2-svp", "conv_tol": 1e-13},
    # Khrabrov et al., NeurIPS 2024: Psi4's wB97X-D, with its empirical dispersion in energies and forces.
    "nabladft": {"xc": "HYB_GGA_XC_WB97X_D", "basis": "def2-svp"},
    # Levine et al., arXiv 2505.08762 (OMol25); VV10 is self-consistent.
    "omol": {"xc": "wb97m-v", "basis": "def2-tzvpd", "ecp": "auto"},
    # Density fitting moves the energy of C6H14 by 3.3e-4 Eh, its Fock matrix by 3.3e-6 on average. It makes
    # the functional on the grid the expensive part: helmol.dft.two_grids evaluates it two or three times.
    "fast": {"xc": "pbe", "basis": "def2-svp", "density_fit": True},
}
"""Keys of :class:`helmol.dft.LevelConfig` that a preset sets; those not named keep their defaults."""
