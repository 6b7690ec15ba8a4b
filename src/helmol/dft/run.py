"""One molecule in, one checked sample out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from helmol import properties
from helmol.arrays import Array
from helmol.basis import BasisSet
from helmol.dft.densities import minao_density
from helmol.dft.dispersion import dispersion
from helmol.dft.field import keep_fitted_integrals, mean_field, reference_of
from helmol.dft.gpu import GpuField, to_numpy
from helmol.dft.integrals import dipole_integrals, house, overlap, symmetric
from helmol.dft.labels import check_labels
from helmol.dft.level import LevelConfig
from helmol.dft.mole import build_mole
from helmol.dft.scf import coarse_pays, converge, keep_orbitals
from helmol.errors import ConvergenceError, InputError
from helmol.system import Matrices, Molecule, Sample
from helmol.system.references import FROM_DENSITIES, MARK


def run(
    molecule: Molecule,
    level: LevelConfig,
    *,
    id: str,
    forces: bool = False,
    references: Sequence[str] = ("minao-lite",),
    density: bool = False,
    dipole: bool = True,
    engine: Literal["cpu", "gpu"] = "cpu",
    provenance: Mapping[str, object] | None = None,
) -> tuple[Sample, BasisSet]:
    """Converge the SCF of a molecule and return its labels in house order.

    The Fock matrix is that of the final density: F and D belong together.

    Args:
        molecule: nuclei, charge, spin.
        level: functional, basis, grid, convergence.
        id: of the sample.
        forces: whether to compute ``−dE/dR`` (without the derivative of the grid).
        references: cheap Fock matrices to keep, see :func:`helmol.dft.reference_fock`.
        density: whether to keep the density matrix.
        dipole: whether to compute the dipole moment.
        engine: PySCF, or gpu4pyscf (see :func:`helmol.dft.choose_engine`), which does the SCF, the forces and
            the reference ``minao``.
        provenance: where the structure came from; ``n_cycles``, ``seconds`` (wall time) and
            ``cpu_seconds`` are added, ``scf_steps`` where the SCF took more than DIIS
            (:func:`helmol.dft.scf.converge`), ``engine`` where it was a GPU, and what references of atoms
            with effective core potentials were made of (:mod:`helmol.system.references`).

    Returns:
        The sample and the basis set of its elements.

    Raises:
        InputError: the molecule or level cannot be run at all.
        ConvergenceError: the result must not be used as a label; says why.
    """
    begin, begin_cpu = time.perf_counter(), time.process_time()
    mole = build_mole(molecule, level)
    if mole.nelectron == 0:
        raise InputError("the molecule has no electrons outside its effective core potentials")
    mf = mean_field(mole, level)
    if engine == "cpu":
        keep_fitted_integrals(mf, level)
    field = GpuField(mf) if engine == "gpu" else mf
    cheap = {name: _reference(mf, field, name) for name in references}
    if engine == "cpu" and not coarse_pays(mf):
        # After the references, which are PySCF's own to the last bit, as at prediction.
        keep_orbitals(mf, level)
    empirical, slope = dispersion(molecule, level)
    steps: list[str] = []
    energy, fock = converge(field, level, steps)
    densities = np.asarray(field.make_rdm1())
    check_labels(
        converged=bool(field.converged),
        fock=fock,
        overlap=field.get_ovlp(),
        density=densities,
        mo_energy=np.asarray(field.mo_energy),
        n_electrons=int(mole.nelectron),
        tolerance=level.gradient_tolerance,
    )
    matrices = Matrices(
        fock=house(symmetric(fock), mole),
        overlap=overlap(mole),
        references=cheap,
        density=house(symmetric(densities), mole) if density else None,
    )
    sample = Sample(
        id=id,
        molecule=molecule,
        matrices=matrices,
        energy=energy + empirical,
        forces=_forces(field) - slope if forces else None,
        dipole=_dipole(mole, house(densities, mole)) if dipole else None,
        provenance={
            **(provenance or {}),
            **(MARK if mole.has_ecp() and set(references) & set(FROM_DENSITIES) else {}),
            **({} if field.cycles is None else {"n_cycles": int(field.cycles)}),
            **({"scf_steps": steps} if steps else {}),
            **({} if engine == "cpu" else {"engine": "gpu4pyscf"}),
            "seconds": round(time.perf_counter() - begin, 3),
            "cpu_seconds": round(time.process_time() - begin_cpu, 3),
        },
    )
    return sample, BasisSet.from_mole(mole, level.basis)


def _reference(mf: Any, field: Any, name: str) -> Array:
    """Return a cheap Fock matrix, by the GPU where one build at the level itself is all there is to do."""
    if field is not mf and name == "minao":
        return house(symmetric(field.get_fock(dm=minao_density(mf))), mf.mol)
    return reference_of(mf, name)


def _forces(mf: Any) -> Array:
    """Return ``−dE/dR``, Eh/bohr, ``[n_atoms, 3]``."""
    gradient = mf.nuc_grad_method()
    gradient.verbose = 0
    values = gradient.kernel()
    forces = -np.asarray(to_numpy(values) if isinstance(mf, GpuField) else values, dtype=np.float64)
    if not np.isfinite(forces).all():
        raise ConvergenceError("the forces are not finite")
    return forces


def _dipole(mole: Any, density: Array) -> Array:
    """Return the dipole moment about the origin, e·bohr, ``[3]``."""
    return properties.dipole(
        density,
        dipole_integrals(mole),
        positions=mole.atom_coords(unit="Bohr"),
        charges=np.asarray(mole.atom_charges(), dtype=np.float64),
    )
