"""The result of one prediction, in PySCF's AO order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helmol import properties
from helmol.arrays import Array
from helmol.basis import BasisSet, from_house
from helmol.damage import read_npz, understood
from helmol.files import replacing
from helmol.system import Molecule
from helmol.units import DEBYE_PER_AU

MATRICES = ("fock", "overlap", "density", "mo_energy", "mo_coeff", "mo_occ", "charges")
"""Arrays of a prediction that are always there, besides those of the molecule."""


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
        """What about the state somebody should look at, in words; empty if nothing is odd."""
        return state_flags(self.gap, self.moved, float(self.mo_occ.sum()))

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

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what a ``.npz`` holds, ``spin`` as 2S; ``dipole residual moved`` only where they exist."""
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
        result["flags"] = np.array(self.flags, dtype=np.str_)
        return result

    def save(self, path: Path, *, model: str = "", compress: bool = False) -> None:
        """Write :meth:`arrays`, and ``model`` (a fingerprint), to a ``.npz`` file, atomically.

        Compressed, matrices of 33 atoms in def2-SVP take a tenth less space, and 0.4 CPU-s.
        """
        write = np.savez_compressed if compress else np.savez
        with replacing(path) as temporary, temporary.open("wb") as file:
            write(file, allow_pickle=False, model=np.array(model), **self.arrays())

    @classmethod
    def load(cls, path: Path) -> Prediction:
        """Read back :meth:`save`; the name is that of the file.

        Raises:
            InputError: no such file, damage, or no result of a prediction.
        """
        arrays: dict[str, Any] = read_npz(path)
        with understood(str(path)):
            molecule = Molecule(
                arrays["numbers"], arrays["positions"], charge=int(arrays["charge"]), spin=int(arrays["spin"])
            )
            return cls(
                id=path.stem,
                molecule=molecule,
                **{name: arrays[name] for name in MATRICES},
                dipole=arrays.get("dipole"),
                residual=None if "residual" not in arrays else float(arrays["residual"]),
                moved=None if "moved" not in arrays else float(arrays["moved"]),
            )


def state_flags(gap: float, moved: float | None, n_electrons: float) -> tuple[str, ...]:
    """Return what about a predicted state somebody should look at, in words."""
    found = (properties.gap_flag(gap), properties.density_flag(moved, n_electrons))
    return tuple(flag for flag in found if flag is not None)


def make_prediction(
    fock: Array,
    molecule: Molecule,
    *,
    basis: BasisSet,
    overlap: Array,
    dipole_integrals: Array | None = None,
    id: str = "",
) -> Prediction:
    """Derive orbitals, density, dipole and charges of a Fock matrix and turn to PySCF order.

    Args:
        fock: **house order**, ``[nao, nao]`` or ``[2, nao, nao]``, Eh.
        molecule: nuclei, charge, spin.
        basis: shells of its elements.
        overlap: house order, ``[nao, nao]``.
        dipole_integrals: house order, ``[3, nao, nao]``, about the origin, bohr.
        id: name of the molecule.

    Raises:
        InputError: shapes do not fit, or an open shell with one Fock matrix.
    """
    state = properties.electronic_state(fock, overlap, molecule, basis)
    dipole = None if dipole_integrals is None else DEBYE_PER_AU * state.dipole(dipole_integrals)
    turned = from_house(fock, basis.shells(molecule.numbers), "pyscf")
    found: dict[str, Any] = {"fock": turned, "dipole": dipole, **state.arrays("pyscf")}
    return Prediction(id=id, molecule=molecule, **found)
