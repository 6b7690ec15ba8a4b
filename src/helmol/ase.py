"""Let ASE ask a model: energies and forces for optimisers, dynamics and vibrations, dipoles and charges.

Knows: ASE's calculators, Å and eV. Does not know: how a prediction is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from helmol import structures
from helmol.arrays import Array
from helmol.errors import InputError
from helmol.predict import Prediction, TrainedModel
from helmol.predict.ensemble import EnsembleEnergy, check_members, ensemble_energies
from helmol.predict.refinement import Refinement
from helmol.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU, EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

FROM_ENERGY = ("energy", "free_energy", "forces")
FROM_FOCK = ("dipole", "charges")


class _Molecular(Calculator):
    """A calculator to which charge and spin are part of the system, however ``atoms`` state them."""

    def __init__(self) -> None:
        super().__init__()
        self._state: tuple[int, int] | None = None

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Return what has changed since the last calculation; charge and spin are part of it."""
        changes: list[str] = super().check_state(atoms, tol=tol)
        if self._state is not None and self._state != _charge_and_spin(atoms):
            changes.append("initial_charges")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Take the structure (ASE's interface)."""
        super().calculate(atoms, properties, system_changes)
        self._state = _charge_and_spin(self.atoms)


class HelmolCalculator(_Molecular):
    """Compute properties of ``ase.Atoms`` with a trained model, or the mean of several.

    Keys of ``results``, as far as the model allows (``implemented_properties``); any other raises ASE's
    ``PropertyNotImplementedError``, never a zero:

    * ``energy``, ``free_energy`` (the same): eV. Energy head.
    * ``forces``: eV/Å, ``[n_atoms, 3]``. Energy head; direct forces only if they were trained.
    * ``dipole``: e·Å, ``[3]``, about the origin; ``charges``: Mulliken, e. Hamiltonian head, and PySCF for
      the overlap. Of several models the first is asked.
    * ``energy_std`` (eV) and ``forces_std`` (eV/Å): standard deviation over the models, of several.

    Charge and spin are what ``atoms`` state in any of the ways of :func:`helmol.structures.read`, usually
    ``atoms.info["charge"]`` and the multiplicity ``atoms.info["spin"]``; a change of either is a change of
    the system. Periodic cells, dummy atoms, fields and solvents are refused.

    Args:
        model: a loaded model, a folder, or a list of them (an ensemble).
        device: where folders are loaded.
        dtype: ``"float64"`` to compute in double precision whatever the training was in: for vibrations by
            finite differences and for dynamics whose energy must not drift by rounding.

    Raises:
        InputError: no model there, or models of different levels of theory.
    """

    implemented_properties: ClassVar[list[str]] = [*FROM_ENERGY, *FROM_FOCK, "energy_std", "forces_std"]

    def __init__(
        self,
        model: TrainedModel | str | Path | Sequence[TrainedModel | str | Path],
        *,
        device: str = "auto",
        dtype: str | None = None,
    ) -> None:
        super().__init__()
        models: list[Any] = list(model) if isinstance(model, (list, tuple)) else [model]
        self.models = [
            m if isinstance(m, TrainedModel) else TrainedModel.load(m, device=device) for m in models
        ]
        check_members(self.models)
        if dtype not in (None, "float32", "float64"):
            raise InputError(f"dtype {dtype!r}: expected float32 or float64")
        if dtype is not None:
            self.models = [m.in_precision(dtype) for m in self.models]
        self.implemented_properties = _properties(self.models)  # type: ignore[misc]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results``; energy and forces are made together, dipole and charges only when asked for."""
        super().calculate(atoms, properties, system_changes)
        if missing := [name for name in properties if name not in self.implemented_properties]:
            raise PropertyNotImplementedError(
                f"the model does not predict {', '.join(missing)}; it predicts "
                f"{', '.join(self.implemented_properties)}"
            )
        if any(name.startswith(("energy", "free_energy", "forces")) for name in properties):
            forces = "forces" in self.implemented_properties
            molecule = structures.from_atoms(self.atoms)
            self.results.update(_in_ev(ensemble_energies(self.models, [molecule], forces=forces)[0]))
        if any(name in FROM_FOCK for name in properties):
            self.results.update(_from_fock(self.models, self.atoms))

    def calculate_many(
        self, frames: Sequence[Atoms], *, forces: bool = True, max_edges: int = 20_000
    ) -> list[dict[str, Any]]:
        """Return the energies and forces of many structures, computed in batches.

        Args:
            frames: of any composition, charge and spin within the model's domain.
            forces: whether to compute forces.
            max_edges: structures are processed together up to this many directed edges.

        Returns:
            Per structure ``energy``, ``free_energy``, ``forces`` and for several models ``energy_std``,
            ``forces_std``; eV and eV/Å.

        Raises:
            PropertyNotImplementedError: the model has no energies, or no forces where they are asked for.
            InputError: a single structure instead of a list.
        """
        if isinstance(frames, Atoms):
            raise InputError("calculate_many takes a list of structures, not one: put it into a list")
        wanted = ["energy", *(["forces"] if forces else [])]
        if missing := [name for name in wanted if name not in self.implemented_properties]:
            raise PropertyNotImplementedError(f"the model does not predict {', '.join(missing)}")
        molecules = [structures.from_atoms(atoms) for atoms in frames]
        found = ensemble_energies(self.models, molecules, forces=forces, max_edges=max_edges)
        return [_in_ev(entry) for entry in found]


class HelmolDFT(_Molecular):
    """Compute DFT energies and forces with as few Fock builds as the wanted accuracy takes.

    Every structure starts from the model's prediction, and Newton steps with linear responses go on until the
    estimated error of the energy is below ``energy_error`` (:meth:`helmol.predict.Prediction.refine`). Level
    of theory, charge and spin are the model's domain; the results are those of the level, not of the network.

    Keys of ``results``: ``energy``, ``free_energy`` (eV), ``forces`` (eV/Å), ``dipole`` (e·Å), ``charges``
    (Mulliken, e), and ``energy_error``, the estimate (eV).

    Args:
        model: a loaded model of Fock matrices, its folder, or a name.
        energy_error: eV.
        steps: linear responses for each Fock build.
        most_builds: Fock builds after which it is an error that the energy is not there.
        device: where a folder is loaded.

    Raises:
        InputError: no model there, one without Fock matrices, or no positive number.
    """

    implemented_properties: ClassVar[list[str]] = [*FROM_ENERGY, *FROM_FOCK, "energy_error"]

    def __init__(
        self,
        model: TrainedModel | str | Path,
        *,
        energy_error: float = 1e-3,
        steps: int = 3,
        most_builds: int = 8,
        device: str = "auto",
    ) -> None:
        super().__init__()
        self.model = model if isinstance(model, TrainedModel) else TrainedModel.load(model, device=device)
        if not self.model.has_fock:
            raise InputError("the model predicts no Fock matrices, from which a calculation could start")
        if not energy_error > 0 or steps < 1 or most_builds < 1:
            raise InputError(
                f"energy_error = {energy_error}, steps = {steps}, most_builds = {most_builds}: expected "
                "positive numbers"
            )
        self.energy_error, self.steps, self.most_builds = energy_error, steps, most_builds
        self.builds = 0
        self._found: Refinement | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill ``results``; forces only when asked for. ``builds`` counts Fock builds of all calls.

        Raises:
            DomainError: the structure is outside the model's domain.
            ConvergenceError: the energy is not there after ``most_builds`` Fock builds.
        """
        super().calculate(atoms, properties, system_changes)
        if system_changes or self._found is None:
            self._found = None
            prediction: Prediction = self.model.predict(structures.from_atoms(self.atoms))
            self._found = prediction.refine_to(
                self.energy_error / EV_PER_HARTREE, steps=self.steps, most_builds=self.most_builds
            )
            self.builds += self._found.builds
        found = self._found
        energy, error = EV_PER_HARTREE * found.energy, EV_PER_HARTREE * found.error
        self.results.update(energy=energy, free_energy=energy, energy_error=error)
        self.results.update(_properties_of(found.prediction))
        if "forces" in properties:
            self.results["forces"] = EV_PER_ANGSTROM_PER_AU * found.forces


def _properties(models: Sequence[TrainedModel]) -> list[str]:
    """Return what all models can predict."""
    names: list[str] = []
    if all(model.has_energy for model in models):
        forces = all(model.has_forces for model in models)
        names += FROM_ENERGY if forces else FROM_ENERGY[:2]
        if len(models) > 1:
            names += ["energy_std", *(["forces_std"] if forces else [])]
    if models[0].has_fock:
        names += FROM_FOCK
    return names


def _charge_and_spin(atoms: Atoms) -> tuple[int, int]:
    """Return charge and 2S of a structure."""
    molecule = structures.from_atoms(atoms)
    return molecule.charge, molecule.spin


def _in_ev(entry: EnsembleEnergy) -> dict[str, Any]:
    """Return energies in eV and forces in eV/Å under ASE's names."""
    energy = EV_PER_HARTREE * entry.energy
    results: dict[str, Any] = {"energy": energy, "free_energy": energy}
    if entry.energy_std is not None:
        results["energy_std"] = EV_PER_HARTREE * entry.energy_std
    if entry.forces is not None:
        results["forces"] = EV_PER_ANGSTROM_PER_AU * entry.forces
    if entry.forces_std is not None:
        results["forces_std"] = EV_PER_ANGSTROM_PER_AU * entry.forces_std
    return results


def _from_fock(models: Sequence[TrainedModel], atoms: Atoms) -> dict[str, Array]:
    """Return dipole (e·Å) and charges of the first model's Fock matrix."""
    return _properties_of(models[0].predict(atoms))


def _properties_of(prediction: Prediction) -> dict[str, Array]:
    """Return dipole (e·Å) and charges of a prediction."""
    results = {"charges": prediction.charges}
    if prediction.dipole is not None:
        results["dipole"] = prediction.dipole / DEBYE_PER_AU * ANGSTROM_PER_BOHR
    return results
