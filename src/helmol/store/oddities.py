"""Signs that an SCF ended in another state than the wanted one, from its labels alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from helmol.arrays import Array
from helmol.basis import BasisSet
from helmol.properties import electronic_state, gap_flag
from helmol.system import Sample

CONTAMINATED = 0.1
"""Excess of ⟨S²⟩ above which an unrestricted determinant is no clean spin state."""

MOVED = 0.1
"""Electrons of a stored density outside the lowest orbitals of its Fock matrix that are too many."""


@dataclass(frozen=True)
class State:
    """Hold what the Fock matrix of a sample says about its electronic state, lowest orbitals filled.

    Attributes:
        gap: LUMO − HOMO, Eh; negative only across two spins. ``None`` if nothing is empty or filled.
        contamination: ``⟨S²⟩ − S(S+1)`` of an unrestricted sample, else ``None``.
        moved: electrons of the stored density outside the filled orbitals, ``None`` without density.
    """

    gap: float | None
    contamination: float | None
    moved: float | None

    @property
    def oddities(self) -> list[str]:
        """What somebody should look at, in words."""
        lines = [flag] if (flag := gap_flag(self.gap)) is not None else []
        if self.contamination is not None and self.contamination > CONTAMINATED:
            lines.append(f"<S2> is {self.contamination:.2f} above that of its spin: spin contamination")
        if self.moved is not None and self.moved > MOVED:
            lines.append(f"{self.moved:.2f} electrons are not in the lowest orbitals: an excited state?")
        return lines


def scf_state(sample: Sample, basis: BasisSet) -> State | None:
    """Diagonalise a sample's Fock matrices and fill the lowest orbitals.

    ``⟨S²⟩ = S_z (S_z + 1) + n_β − Σ_ij |⟨i_α|j_β⟩|²``; electrons moved are ``n − Tr D S P S`` with P
    the projector on the filled orbitals, summed over both spins.

    Returns:
        The state, ``None`` where the sample has no overlap.

    Raises:
        InputError: matrices that cannot be solved: not finite, or an overlap that is none.
    """
    overlap, fock, molecule = sample.matrices.overlap, sample.matrices.fock, sample.molecule
    if overlap is None:
        return None
    # Some programs have one Fock matrix for an open shell, too.
    both = np.stack([fock, fock]) if fock.ndim == 2 and molecule.spin else fock
    state = electronic_state(both, overlap, molecule, basis)
    alpha, beta = state.filled
    contamination = None
    if fock.ndim == 3:
        contamination = beta.shape[1] - float(((alpha.T @ overlap @ beta) ** 2).sum())
    electrons = basis.n_electrons(molecule.numbers, molecule.charge)
    return State(
        gap=None if np.isnan(state.gap) else state.gap,
        contamination=contamination,
        moved=_moved(sample.matrices.density, overlap, [alpha, beta], electrons),
    )


def _moved(density: Array | None, overlap: Array, occupied: list[Array], electrons: int) -> float | None:
    """Return the electrons of a density outside the filled orbitals."""
    if density is None:
        return None
    spins = density if density.ndim == 3 else np.stack([density, density]) / 2
    inside = [
        float(np.einsum("pi,pq,qi->", overlap @ c, d, overlap @ c, optimize=True))
        for c, d in zip(occupied, spins, strict=True)
    ]
    return electrons - sum(inside)
