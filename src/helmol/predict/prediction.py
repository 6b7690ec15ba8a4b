"""The result of one prediction, in PySCF's AO order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from helmol import properties
from helmol.arrays import Array, IntArray
from helmol.basis import BasisSet, from_house
from helmol.damage import read_npz, understood
from helmol.errors import ConvergenceError, InputError
from helmol.files import replacing
from helmol.system import LevelOfTheory, Molecule
from helmol.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU, EV_PER_HARTREE

if TYPE_CHECKING:
    from helmol.predict.refinement import Refinement

MATRICES = ("fock", "overlap", "density", "mo_energy", "mo_coeff", "mo_occ", "charges")
"""Arrays of a prediction that are always there, besides those of the molecule."""

ENERGY_ERROR = 1e-3 / EV_PER_HARTREE
MOST_BUILDS = 8
"""Estimated error of a refined energy, Eh, and Fock builds for it."""

WITHOUT = "does not say in which basis it was made, as those of helmol 0.1: predict it again"
"""What is wrong with a prediction that something more is asked of."""


@dataclass(frozen=True)
class Prediction:
    """Hold what a predicted Fock matrix says about a molecule; matrices in **PySCF AO order**.

    Unrestricted predictions carry a leading axis of 2 (alpha, beta) on ``fock``, ``density`` and the
    ``mo_`` arrays, as those of PySCF's UKS; ``homo``, ``lumo`` and ``gap`` are of both spins together.

    Attributes:
        id: name of the molecule.
        molecule: nuclei (bohr), charge, spin.
        fock: predicted, ``[nao, nao]``, Eh.
        overlap: true, ``[nao, nao]``.
        mo_energy: ``[nmo]``, Eh.
        mo_coeff: ``[nao, nmo]``.
        mo_occ: ``[nmo]``.
        density: density matrix of the occupied orbitals, ``[nao, nao]``.
        charges: Mulliken charges, ``[n_atoms]``, e.
        dipole: about the origin, ``[3]``, **Debye** as in PySCF's ``mf.dip_moment()``; ``None``
            where no dipole integrals could be made (PySCF missing).
        residual: ``‖F[D] D S − S D F[D]‖`` in Eh with F built from the predicted density D, where
            asked for; what SCF would have to remove.
        moved: electrons that the first SCF step moves from the predicted density, with ``residual``.
        basis: shells of the molecule's elements.
        level: level of theory of the model, for all that PySCF is asked about.
        new_pairs: elements of which the model has seen no two atoms in one molecule (``N-P``).
    """

    id: str
    molecule: Molecule
    fock: Array
    overlap: Array
    mo_energy: Array
    mo_coeff: Array
    mo_occ: Array
    density: Array
    charges: Array
    dipole: Array | None = None
    residual: float | None = None
    moved: float | None = None
    basis: BasisSet | None = None
    level: LevelOfTheory | None = None
    new_pairs: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kind = "unrestricted, " if self.fock.ndim == 3 else ""
        facts = [f"{kind}nao={self.fock.shape[-1]}", f"gap={self.gap:.4g} Eh"]
        if self.dipole is not None:
            facts.append(f"dipole={float(np.linalg.norm(self.dipole)):.4g} Debye")
        if self.residual is not None:
            facts.append(f"residual={self.residual:.3g} Eh")
        facts += [f"FLAG: {flag}" for flag in self.flags]
        return f"Prediction({self.id!r}, {self.molecule!r}, {', '.join(facts)})"

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """What about the prediction somebody should look at, in words; empty if nothing is odd."""
        return all_flags(self.gap, self.moved, float(self.mo_occ.sum()), self.new_pairs)

    @cached_property
    def homo(self) -> float:
        """Energy of the highest occupied orbital, Eh."""
        return properties.frontier(self.mo_energy, self.mo_occ)[0]

    @cached_property
    def lumo(self) -> float:
        """Energy of the lowest empty orbital, Eh; NaN if all are filled."""
        return properties.frontier(self.mo_energy, self.mo_occ)[1]

    @cached_property
    def gap(self) -> float:
        """LUMO minus HOMO, Eh."""
        return self.lumo - self.homo

    @cached_property
    def lowdin_charges(self) -> Array:
        """Löwdin charges, ``[n_atoms]``, e; see :func:`helmol.properties.lowdin_charges`."""
        return properties.lowdin_charges(self._lowdin, offsets=self._offsets, charges=self._nuclear_charges)

    @cached_property
    def iao_charges(self) -> Array:
        """Charges in intrinsic atomic orbitals, ``[n_atoms]``, e; see :func:`helmol.properties.iao_charges`.

        Raises:
            InputError: PySCF is missing, or has no minimal basis of an element.
        """
        overlap, cross, offsets = self.pyscf_room.minimal_basis(self.mole)
        pairs = zip(
            self.mo_coeff.reshape(-1, *self.mo_coeff.shape[-2:]), np.atleast_2d(self.mo_occ), strict=True
        )
        return properties.iao_charges(
            [mo_coeff[:, mo_occ > 0] for mo_coeff, mo_occ in pairs], self.overlap,
            minimal=overlap, cross=cross, offsets=offsets, charges=self._nuclear_charges,
        )  # fmt: skip

    @cached_property
    def mulliken_spins(self) -> Array:
        """Mulliken spin populations, unpaired electrons of each atom, ``[n_atoms]``.

        Raises:
            InputError: the prediction is restricted.
        """
        return properties.mulliken_spins(self.density, self.overlap, offsets=self._offsets)

    @cached_property
    def lowdin_spins(self) -> Array:
        """Löwdin spin populations, unpaired electrons of each atom, ``[n_atoms]``.

        Raises:
            InputError: the prediction is restricted.
        """
        return properties.lowdin_spins(self._lowdin, offsets=self._offsets)

    @cached_property
    def mayer_bond_orders(self) -> Array:
        """Mayer bond orders, ``[n_atoms, n_atoms]``; see :func:`helmol.properties.mayer_bond_orders`."""
        return properties.mayer_bond_orders(self.density, self.overlap, offsets=self._offsets)

    @cached_property
    def wiberg_bond_orders(self) -> Array:
        """Wiberg bond orders in Löwdin's orbitals, ``[n_atoms, n_atoms]``."""
        return properties.wiberg_bond_orders(self._lowdin, offsets=self._offsets)

    @cached_property
    def quadrupole(self) -> Array:
        """Traceless quadrupole moment about the origin of the coordinates, ``[3, 3]``, Debye·Å.

        As PySCF's ``mf.quad_moment()``; see :meth:`quadrupole_about`.
        """
        return self.quadrupole_about((0.0, 0.0, 0.0))

    def quadrupole_about(self, origin: Sequence[float]) -> Array:
        """Return the traceless quadrupole moment about a point, ``[3, 3]``, Debye·Å.

        ``Θ = ½ Σ q (3 r rᵀ − r² 1)`` over nuclei and electrons (:func:`helmol.properties.quadrupole`). Where
        the molecule has a charge or a dipole it is another one about every point.

        Args:
            origin: the point, bohr, such as the centre of the nuclear charges.

        Raises:
            InputError: PySCF, which makes the integrals, is missing.
        """
        moment = properties.quadrupole(
            self.density, self.pyscf_room.quadrupole_integrals(self.mole, origin),
            positions=self.molecule.positions - np.asarray(origin), charges=self._nuclear_charges,
        )  # fmt: skip
        return DEBYE_PER_AU * ANGSTROM_PER_BOHR * moment

    def refine(self, *, steps: int = 2, rounds: int = 1, tolerance: float = 0.0) -> Refinement:
        """Take a few steps from the prediction towards the SCF; see :func:`helmol.dft.refine`.

        Args:
            steps: responses in each round, of which each costs less than a Fock build; 0: the energy of the
                predicted density.
            rounds: Fock builds, at most. One is right to second order, two nearly converge.
            tolerance: of the estimated error of the energy, Eh, with which the rounds end.

        Returns:
            Energy, forces, the refined prediction, and what is left.

        Raises:
            InputError: PySCF is missing, the prediction knows no level of theory, or negative numbers.
        """
        from helmol.predict.refinement import refined

        return refined(self, steps=steps, rounds=rounds, tolerance=tolerance)

    def refine_to(self, error: float, *, steps: int = 3, most_builds: int = MOST_BUILDS) -> Refinement:
        """Take as many steps towards the SCF as an energy of some accuracy takes; see :meth:`refine`.

        Args:
            error: estimated error of the energy that is wanted, Eh.
            steps: responses for each Fock build.
            most_builds: Fock builds, at most.

        Raises:
            InputError: as :meth:`refine`.
            ConvergenceError: it is not there after so many Fock builds.
        """
        found = self.refine(steps=steps, rounds=most_builds, tolerance=error)
        if not found.error <= error:
            uncertain = EV_PER_HARTREE * found.error
            raise ConvergenceError(
                f"the energy is still uncertain by {uncertain:.2g} eV after {found.builds} Fock builds: the "
                "prediction is too far from the SCF"
            )
        return found

    @cached_property
    def refined(self) -> Refinement:
        """What as many steps as an energy right to 1 meV takes give; see :meth:`refine_to`."""
        return self.refine_to(ENERGY_ERROR)

    @property
    def energy(self) -> float:
        """Energy of :attr:`refined`, Eh."""
        return self.refined.energy

    @property
    def energy_error(self) -> float:
        """Estimated error of :attr:`energy`, Eh."""
        return self.refined.error

    @property
    def forces(self) -> Array:
        """Forces of :attr:`refined`, ``[n_atoms, 3]``, Eh/bohr."""
        return self.refined.forces

    @property
    def mole(self) -> Any:
        """PySCF's ``Mole`` of the molecule in the model's basis.

        Raises:
            InputError: PySCF is missing, or the prediction knows no level of theory.
        """
        if self.level is None:
            raise InputError(f"prediction {self.id!r} {WITHOUT}")
        return self.pyscf_room.build_mole(self.molecule, self.pyscf_room.level_from(self.level))

    @property
    def pyscf_room(self) -> Any:
        """The module :mod:`helmol.dft`, which knows PySCF.

        Raises:
            InputError: PySCF is missing.
        """
        return dft_or("this needs PySCF for integrals: pip install pyscf")

    @cached_property
    def _lowdin(self) -> Array:
        return properties.lowdin_density(self.density, self.overlap)

    @property
    def known_basis(self) -> BasisSet:
        """Shells of the molecule's elements.

        Raises:
            InputError: the prediction does not know them.
        """
        if self.basis is None:
            raise InputError(f"prediction {self.id!r} {WITHOUT}")
        return self.basis

    @property
    def _offsets(self) -> IntArray:
        """First AO of each atom and, last, nao."""
        return self.known_basis.offsets(self.molecule.numbers)

    @property
    def _nuclear_charges(self) -> Array:
        return properties.nuclear_charges(self.molecule.numbers, self.known_basis)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a ``.npz`` holds, ``spin`` as 2S, ``basis`` and ``level`` as JSON.

        What is ``None`` is left out.
        """
        result: dict[str, npt.NDArray[Any]] = {
            "numbers": self.molecule.numbers,
            "positions": self.molecule.positions,
            "charge": np.array(self.molecule.charge),
            "spin": np.array(self.molecule.spin),
        }
        result |= {name: getattr(self, name) for name in MATRICES}
        if self.dipole is not None:
            result["dipole"] = self.dipole
        for name in ("residual", "moved"):
            if getattr(self, name) is not None:
                result[name] = np.array(getattr(self, name))
        for name, said in (("basis", self.basis), ("level", self.level)):
            if said is not None:
                result[name] = np.array(json.dumps(said.to_json()))
        if self.new_pairs:
            result["new_pairs"] = np.array(self.new_pairs, dtype=np.str_)
        result["flags"] = np.array(self.flags, dtype=np.str_)
        return result

    def save(self, path: Path, *, model: str = "", compress: bool = False) -> None:
        """Write :meth:`arrays`, and ``model`` (a fingerprint), to a ``.npz`` file, atomically.

        Compressed, matrices of 33 atoms in def2-SVP take a tenth less space, and 0.4 CPU-s.
        """
        write_npz(path, {"model": np.array(model), **self.arrays()}, compress=compress)

    @classmethod
    def load(cls, path: Path) -> Prediction:
        """Read back :meth:`save`; the name is that of the file.

        Raises:
            InputError: no such file, damage, or no result of a prediction.
        """
        return cls.from_arrays(read_npz(path), id=path.stem, where=str(path))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], *, id: str, where: str) -> Prediction:
        """Undo :meth:`arrays`.

        Args:
            arrays: by name.
            id: name of the molecule.
            where: they stand, for messages.

        Raises:
            InputError: they are no result of a prediction.
        """
        with understood(where):
            molecule = Molecule(
                arrays["numbers"], arrays["positions"], charge=int(arrays["charge"]), spin=int(arrays["spin"])
            )
            said = {name: json.loads(str(arrays[name])) for name in ("basis", "level") if name in arrays}
            return cls(
                id=id,
                molecule=molecule,
                **{name: arrays[name] for name in MATRICES},
                dipole=arrays.get("dipole"),
                residual=None if "residual" not in arrays else float(arrays["residual"]),
                moved=None if "moved" not in arrays else float(arrays["moved"]),
                basis=BasisSet.from_json(said["basis"]) if "basis" in said else None,
                level=LevelOfTheory.from_json(said["level"]) if "level" in said else None,
                new_pairs=new_pairs(arrays),
            )


def dft_or(lacking: str) -> Any:
    """Return the module :mod:`helmol.dft`, which knows PySCF.

    Args:
        lacking: what to say where PySCF is missing.

    Raises:
        InputError: it is.
    """
    try:
        from helmol import dft
    except ImportError as error:
        raise InputError(lacking) from error
    return dft


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]], *, compress: bool = False) -> None:
    """Write arrays to a ``.npz`` file, atomically."""
    write = np.savez_compressed if compress else np.savez
    with replacing(path) as temporary, temporary.open("wb") as file:
        write(file, allow_pickle=False, **arrays)


def new_pairs(arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[str, ...]:
    """Return the pairs of elements in the arrays of a prediction that were new to the model."""
    return tuple(str(pair) for pair in arrays.get("new_pairs", ()))


def all_flags(
    gap: float, moved: float | None, n_electrons: float, pairs: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return what about a prediction somebody should look at, in words."""
    new = f"the model has not seen {', '.join(pairs)} in one molecule" if pairs else None
    found = (properties.gap_flag(gap), properties.density_flag(moved, n_electrons), new)
    return tuple(flag for flag in found if flag is not None)


def make_prediction(
    fock: Array,
    molecule: Molecule,
    *,
    basis: BasisSet,
    overlap: Array,
    dipole_integrals: Array | None = None,
    level: LevelOfTheory | None = None,
    id: str = "",
) -> Prediction:
    """Derive orbitals, density, dipole and charges of a Fock matrix and turn to PySCF order.

    Args:
        fock: **house order**, ``[nao, nao]`` or ``[2, nao, nao]``, Eh.
        molecule: nuclei, charge, spin.
        basis: shells of its elements.
        overlap: house order, ``[nao, nao]``.
        dipole_integrals: house order, ``[3, nao, nao]``, about the origin, bohr.
        level: level of theory, for what needs PySCF later.
        id: name of the molecule.

    Raises:
        InputError: shapes do not fit, or an open shell with one Fock matrix.
    """
    state = properties.electronic_state(fock, overlap, molecule, basis)
    dipole = None if dipole_integrals is None else DEBYE_PER_AU * state.dipole(dipole_integrals)
    turned = from_house(fock, basis.shells(molecule.numbers), "pyscf")
    found: dict[str, Any] = {"fock": turned, "dipole": dipole, **state.arrays("pyscf")}
    part = basis.part(molecule.numbers)
    return Prediction(id=id, molecule=molecule, basis=part, level=level, **found)
