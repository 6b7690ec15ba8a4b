"""Let gpu4pyscf do the work of a mean field, where it is installed and a GPU is there.

Written against the documented interface of gpu4pyscf (``to_gpu``, PySCF's methods on CuPy arrays). Whether
it gives PySCF's numbers is measured before its first label, on the machine at hand.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import Any, Literal

import numpy as np

from helmol.arrays import Array
from helmol.dft.densities import minao_density
from helmol.dft.field import mean_field
from helmol.dft.level import LevelConfig
from helmol.dft.mole import build_mole
from helmol.errors import InputError
from helmol.system import Molecule

AGREEMENT = 1e-7
"""Largest difference of a Fock matrix of the same density, GPU against CPU, Eh."""

_PROBES = (
    # With an effective core potential and f functions in many bases; then what every basis has.
    Molecule.from_angstrom([8, 1, 53], np.array([[0, 0, 0], [-0.24, 0.93, 0.1], [1.99, 0.05, 0]])),
    Molecule.from_angstrom([8, 1, 1], np.array([[0, 0, 0], [0, 0.76, 0.59], [0.1, -0.76, 0.59]])),
)

log = logging.getLogger("helmol.dft")


class GpuField:
    """Offer those methods of PySCF's mean field that labels need, computed on a GPU, as NumPy arrays.

    Args:
        mf: PySCF's mean field, not converged.
    """

    def __init__(self, mf: Any) -> None:
        self.mol = mf.mol
        self.converged, self.mo_energy = False, np.empty(0)
        self._gpu = mf.to_gpu()
        self._fock, self._density = np.empty(0), np.empty(0)

    def kernel(self) -> float:
        """Converge the SCF and return its energy, Eh."""
        gpu = self._gpu
        energy = gpu.kernel()
        self.converged = bool(gpu.converged)
        if not self.converged:
            return float(energy)
        # gpu4pyscf stops at orbitals of an extrapolated matrix; PySCF ends with one plain step.
        gpu.mo_energy, gpu.mo_coeff = gpu.eig(gpu.get_fock(), gpu.get_ovlp())
        gpu.mo_occ = gpu.get_occ(gpu.mo_energy, gpu.mo_coeff)
        density = gpu.make_rdm1()
        potential = gpu.get_veff(self.mol, density)
        self.mo_energy, self._density = to_numpy(gpu.mo_energy), to_numpy(density)
        self._fock = to_numpy(gpu.get_fock(vhf=potential, dm=density))
        return float(to_numpy(gpu.energy_tot(density, None, potential)))

    @property
    def cycles(self) -> int | None:
        """SCF cycles; not every version of gpu4pyscf tells."""
        return getattr(self._gpu, "cycles", None)

    def get_fock(self, dm: Any = None) -> Array:
        """Return the Fock matrix of a density, by default of the converged one, PySCF's order, Eh."""
        if dm is None:
            return self._fock
        return to_numpy(self._gpu.get_fock(dm=importlib.import_module("cupy").asarray(dm)))

    def make_rdm1(self) -> Array:
        """Return the converged density matrix, PySCF's order."""
        return self._density

    def get_ovlp(self) -> Array:
        """Return the overlap matrix, PySCF's order."""
        return to_numpy(self._gpu.get_ovlp())

    def nuc_grad_method(self) -> Any:
        """Return the object that computes gradients, on the GPU."""
        return self._gpu.nuc_grad_method()


def to_numpy(array: Any) -> Array:
    """Bring an array of CuPy, or of NumPy, to NumPy."""
    return np.asarray(importlib.import_module("cupy").asnumpy(array), dtype=np.float64)


@functools.cache
def gpu_obstacle() -> str | None:
    """Return why nothing can be computed on a GPU here, ``None`` if it can."""
    try:
        cupy = importlib.import_module("cupy")
        importlib.import_module("gpu4pyscf")
    except ImportError as error:
        name = error.name or "gpu4pyscf"
        return f"{name} is not installed: pip install gpu4pyscf-cuda12x, or the one for your version of CUDA"
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:  # CuPy's own errors, whose class is not there without CuPy.
        return f"no GPU answers: {' '.join(str(error).split())}"
    return None if count else "there is no GPU"


@functools.cache
def gpu_difference(level: LevelConfig) -> float:
    """Return ``max |F_GPU[D] − F_CPU[D]|`` at PySCF's minao density D of a small molecule, Eh.

    The molecule is HOI, or water where the basis has no iodine.
    """
    for probe in _PROBES:
        try:
            mole = build_mole(probe, level)
        except InputError:
            continue
        mf = mean_field(mole, level)
        density = minao_density(mf)
        return float(np.abs(GpuField(mf).get_fock(dm=density) - np.asarray(mf.get_fock(dm=density))).max())
    raise InputError(f"the basis {level.basis} has no hydrogen or no oxygen to compare GPU and CPU with")


def choose_engine(wanted: Literal["auto", "cpu", "gpu"], level: LevelConfig) -> Literal["cpu", "gpu"]:
    """Return what computes: ``auto`` is the GPU where there is one and it gives PySCF's numbers.

    Raises:
        InputError: ``gpu`` was asked for, and there is none, or it gives other numbers.
    """
    if wanted == "cpu":
        return "cpu"
    obstacle = gpu_obstacle()
    if obstacle is None:
        difference = gpu_difference(level)
        if difference <= AGREEMENT:
            return "gpu"
        obstacle = (
            f"Fock matrices of gpu4pyscf differ from PySCF's by {difference:.1e} Eh at this level of theory "
            f"(at most {AGREEMENT:.0e})"
        )
        if wanted == "auto":
            log.warning("%s: computing on the CPU", obstacle)
    if wanted == "gpu":
        raise InputError(f"engine 'gpu': {obstacle}")
    return "cpu"
