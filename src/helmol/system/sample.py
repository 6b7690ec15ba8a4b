"""A labelled molecule, as it travels from DFT to the store to training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from helmol.arrays import Array
from helmol.brief import brief
from helmol.errors import InputError
from helmol.system.molecule import Molecule


@dataclass(frozen=True)
class Matrices:
    """Hold AO matrices in **house order** (see :mod:`helmol.basis`), Eh, float64.

    Attributes:
        fock: converged Fock (Kohn–Sham) matrix ``[nao, nao]``, or ``[2, nao, nao]`` (alpha, beta)
            for unrestricted samples; symmetric. Empty, ``[0, 0]``, where there is none: a sample of
            energy and forces alone.
        overlap: ``[nao, nao]``; ``None`` where the source has none.
        references: cheap Fock matrices of the same geometry by name (``"minao"``, ``"sap"``), same
            shape as ``fock``. Never a label; used as H₀ of a delta target and as baselines.
        density: density matrix, same shape as ``fock``, only where asked for.
    """

    fock: Array
    overlap: Array | None = None
    references: Mapping[str, Array] = field(default_factory=dict)
    density: Array | None = None

    __repr__ = brief

    def __post_init__(self) -> None:
        shape = self.fock.shape
        if len(shape) not in (2, 3) or shape[-1] != shape[-2] or (len(shape) == 3 and shape[0] != 2):
            raise InputError(f"fock has shape {shape}, expected [nao, nao] or [2, nao, nao]")
        if self.overlap is not None and self.overlap.shape != shape[-2:]:
            raise InputError(f"overlap has shape {self.overlap.shape}, expected {shape[-2:]}")
        for name, matrix in {**self.references, "density": self.density}.items():
            if matrix is not None and matrix.shape != shape:
                raise InputError(f"{name} has shape {matrix.shape}, expected {shape} like fock")

    @property
    def nao(self) -> int:
        """Number of atomic orbitals."""
        return int(self.fock.shape[-1])

    @property
    def n_spins(self) -> int:
        """Number of Fock matrices: 2 of an unrestricted sample, else 1."""
        return 2 if self.fock.ndim == 3 else 1

    @property
    def known(self) -> dict[str, Array]:
        """What is known without the SCF: the references by name, and ``overlap`` if there is one."""
        return {**self.references, **({} if self.overlap is None else {"overlap": self.overlap})}


@dataclass(frozen=True)
class Sample:
    """Hold one molecule with its labels; what is missing is ``None``, never zero.

    Attributes:
        id: unique within a store.
        molecule: nuclei, charge, spin.
        matrices: AO matrices, house order, Eh.
        energy: total energy, Eh.
        forces: −dE/dR, Eh/bohr, ``[n_atoms, 3]``.
        dipole: dipole moment in atomic units (e·bohr), ``[3]``.
        provenance: where the structure came from; JSON-able.
    """

    id: str
    molecule: Molecule
    matrices: Matrices
    energy: float | None = None
    forces: Array | None = None
    dipole: Array | None = None
    provenance: Mapping[str, object] = field(default_factory=dict)

    __repr__ = brief
