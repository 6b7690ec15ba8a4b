"""From a guessed Fock matrix to energy, forces and orbitals by one Fock build and a few linear responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from pyscf import dft, gto
from pyscf.scf import _response_functions

from helmol import properties
from helmol.arrays import Array
from helmol.brief import brief
from helmol.dft.dispersion import dispersion
from helmol.dft.energy import SMALLEST_GAP
from helmol.dft.field import auxiliary_basis, mean_field, on_grid
from helmol.dft.level import LevelConfig
from helmol.dft.mole import molecule_from_mole
from helmol.errors import InputError

COARSE = 0
"""PySCF grid level of the responses."""

THIRD = 0.05
"""What is of third order in a round, as a multiple of the 3/2 power of what the round gains, Eh^(−1/2), until
a second build shows it: 0.004 to 0.018 was found (water, CH₃, a QM9 molecule; PBE, B3LYP)."""


@dataclass(frozen=True)
class Refined:
    """Hold what a guess becomes; matrices in PySCF's AO order, as those of a PySCF mean field.

    Attributes:
        energy: of the refined density, to second order in its change, Eh.
        remaining: what one more response would still gain, ``Σ f r²/(ε_a − ε_i)`` with the residual r of
            Newton's equation, Eh: how far the responses are from their end. Not what is of third order.
        gained: energy of the guess's density, minus :attr:`energy`, Eh.
        error: estimate of the error of :attr:`energy`, Eh: :attr:`remaining`, and what is of third order,
            which after two rounds is scaled from what the second build showed of the first round's.
        fock: Fock matrix at the refined density, to first order in its change, Eh.
        mo_energy: of the occupied orbitals, then of the empty ones, each ascending, Eh.
        mo_coeff: ``[nao, nmo]``, or ``[2, nao, nmo]``; the occupied orbitals come first.
        mo_occ: ``[nmo]``, or ``[2, nmo]``.
        density: ``[nao, nao]``, or ``[2, nao, nao]``.
        builds: Fock builds.
        responses: responses, each of the cost of Coulomb (and exchange) terms and a coarse grid.
    """

    energy: float
    remaining: float
    gained: float
    error: float
    fock: Array
    mo_energy: Array
    mo_coeff: Array
    mo_occ: Array
    density: Array
    builds: int
    responses: int

    __repr__ = brief


def refine(
    mole: gto.Mole,
    level: LevelConfig,
    fock: Array,
    *,
    steps: int = 2,
    rounds: int = 1,
    tolerance: float = 0.0,
) -> Refined:
    """Take Newton steps from the density of a Fock matrix towards that of the SCF.

    Per round: ``F[D]`` is built once. With its orbitals made canonical among the occupied and among the
    empty ones, ``(ε_a − ε_i) x_ai + (C_aᵀ G[δD(x)] C_i) = −F_ai`` is solved by ``steps`` steps of conjugate
    gradients, preconditioned with ``ε_a − ε_i``; G is the response of the potential, its functional on a
    coarse grid. Then the orbitals are rotated by ``exp(x)``, and with ΔD the exact change of the density

        ``E = E[D] + Tr F[D] ΔD + ½ Tr ΔD G[ΔD]``,   ``F = F[D] + G[ΔD]``.

    Args:
        mole: the molecule.
        level: functional, grid, fitting.
        fock: PySCF's order, ``[nao, nao]``, or ``[2, nao, nao]`` of an unrestricted level, Eh.
        steps: of conjugate gradients in each round; 0: the guess's density as it is, ``E[D]`` and ``F[D]``.
        rounds: Fock builds, at most.
        tolerance: of the estimated error of the energy, Eh, with which the rounds end.

    Raises:
        InputError: the matrix does not fit, or the numbers are negative.

    Source: Bacskay, Chem. Phys. 61, 385 (1981), for the equations.
    """
    if steps < 0 or rounds < 1:
        raise InputError(f"steps = {steps} and rounds = {rounds}: expected 0 or more, and 1 or more")
    mf = mean_field(mole, level)
    n_spins, nao = (2 if isinstance(mf, dft.uks.UKS) else 1), int(mole.nao)
    shape = (2, nao, nao) if n_spins == 2 else (nao, nao)
    fock = np.asarray(fock, dtype=np.float64)
    if fock.shape != shape:
        raise InputError(f"a Fock matrix of shape {fock.shape} where the level of theory has {shape}")
    overlap, core = mf.get_ovlp(), mf.get_hcore()
    mo_energy, mo_coeff = properties.orbitals(fock, overlap)
    mo_occ = properties.occupations(mo_energy, int(mole.nelectron), spin=int(mole.spin))
    spins = [
        (coeff[:, occ > 0], coeff[:, occ == 0])
        for coeff, occ in zip(mo_coeff.reshape(n_spins, nao, -1), np.atleast_2d(mo_occ), strict=True)
    ]
    empirical, _ = dispersion(molecule_from_mole(mole), level)
    trace = _Trace()
    for _ in range(rounds):
        density = _density(spins, n_spins)
        potential = mf.get_veff(mole, density)
        built = np.asarray(mf.get_fock(core, overlap, potential, density))
        trace.built(float(mf.energy_tot(density, core, potential)) + empirical)
        spins = _canonical(spins, built.reshape(n_spins, nao, nao))
        if not steps:
            gradient = _gradient(spins, built.reshape(n_spins, nao, nao))
            trace.stayed(_gain(gradient, spins, built, n_spins))
            break
        respond = _response(mf, level, spins, n_spins)
        x, remaining = _newton(spins, built.reshape(n_spins, nao, nao), respond, steps, n_spins)
        spins = [_rotated(orbitals, one) for orbitals, one in zip(spins, x, strict=True)]
        change = _density(spins, n_spins) - density
        answer = respond(change)
        gain = -float((built * change).sum() + 0.5 * (answer * change).sum())
        trace.stepped(gain, remaining, steps + 1)
        built = built + answer
        spins = _canonical(spins, built.reshape(n_spins, nao, nao))
        if trace.error <= tolerance:
            break
    coeff, occ = _orbitals(spins, n_spins)
    levels = np.einsum("...pi,...pq,...qi->...i", coeff, built, coeff)
    return Refined(
        trace.energy, trace.remaining, trace.first - trace.energy, trace.error, built, levels, coeff, occ,
        _density(spins, n_spins), trace.builds, trace.responses,
    )  # fmt: skip


class _Trace:
    """Follow the energy through the rounds, and how far it may be off."""

    def __init__(self) -> None:
        self.first = self.energy = self.remaining = self.error = np.inf
        self.builds = self.responses = 0
        self._third, self._gain = THIRD, 0.0

    def built(self, energy: float) -> None:
        """Take the energy of a density as it was built: the last round's was right to second order only."""
        if self.builds and self._gain > 0:
            self._third = abs(energy - self.energy) / self._gain**1.5
        self.builds += 1
        self.first = energy if self.builds == 1 else self.first
        self.energy = energy

    def stayed(self, remaining: float) -> None:
        """Take that there is no step: all that a step would gain is missing."""
        self.remaining = self.error = remaining

    def stepped(self, gain: float, remaining: float, responses: int) -> None:
        """Take what a round has gained."""
        self.energy -= gain
        self.remaining, self._gain = remaining, max(gain, 0.0)
        self.responses += responses
        self.error = remaining + self._third * self._gain**1.5


def forces_of(mole: gto.Mole, level: LevelConfig, refined: Refined) -> Array:
    """Return ``−dE/dR`` as if a refined density were that of the SCF, Eh/bohr, ``[n_atoms, 3]``.

    The energy-weighted density is ``½ D F D`` (each spin: ``D F D``): no orbital energies of a guess.
    """
    mf = mean_field(mole, level)
    mf.mo_coeff, mf.mo_occ, mf.mo_energy = refined.mo_coeff, refined.mo_occ, refined.mo_energy
    mf.converged = True
    gradient = mf.nuc_grad_method()
    gradient.verbose = 0
    _, slope = dispersion(molecule_from_mole(mole), level)
    return np.asarray(-gradient.kernel() - slope, dtype=np.float64)


Spins = list[tuple[Array, Array]]
"""Occupied and empty orbitals of every spin, ``[nao, n]``; of a closed shell once."""


def _density(spins: Spins, n_spins: int) -> Array:
    """Return the density matrix, of a closed shell of both spins."""
    found = np.stack([occupied @ occupied.T for occupied, _ in spins])
    return found if n_spins == 2 else 2 * found[0]


def _canonical(spins: Spins, fock: Array) -> Spins:
    """Rotate the occupied orbitals among themselves, and the empty ones, so that F is diagonal in each."""
    return [
        (
            occupied @ scipy.linalg.eigh(occupied.T @ matrix @ occupied)[1],
            empty @ scipy.linalg.eigh(empty.T @ matrix @ empty)[1],
        )
        for (occupied, empty), matrix in zip(spins, fock, strict=True)
    ]


def _gradient(spins: Spins, fock: Array) -> list[Array]:
    """Return ``F_ai`` of every spin."""
    return [empty.T @ matrix @ occupied for (occupied, empty), matrix in zip(spins, fock, strict=True)]


def _gaps(spins: Spins, fock: Array) -> list[Array]:
    """Return ``ε_a − ε_i`` of every spin, none below :data:`helmol.dft.energy.SMALLEST_GAP`."""
    found = []
    for (occupied, empty), matrix in zip(spins, fock, strict=True):
        low = np.einsum("pi,pq,qi->i", occupied, matrix, occupied)
        high = np.einsum("pa,pq,qa->a", empty, matrix, empty)
        found.append(np.maximum(high[:, None] - low[None], SMALLEST_GAP))
    return found


def _gain(residual: list[Array], spins: Spins, fock: Array, n_spins: int) -> float:
    """Return ``Σ f r²/(ε_a − ε_i)``, f = 2 of a closed shell."""
    gaps = _gaps(spins, fock.reshape(len(spins), *fock.shape[-2:]))
    total = sum(float((r * r / gap).sum()) for r, gap in zip(residual, gaps, strict=True))
    return (2 if n_spins == 1 else 1) * total


def _response(mf: Any, level: LevelConfig, spins: Spins, n_spins: int) -> Any:
    """Return the function that gives the change of the potential with a change of the density."""
    rough = on_grid(mf, COARSE)
    if not hasattr(rough, "with_df"):
        rough = rough.density_fit(auxbasis=auxiliary_basis(mf.mol, level))
    coeff, occ = _orbitals(spins, n_spins)
    if n_spins == 2:
        return _response_functions._gen_uhf_response(rough, coeff, occ, hermi=1)
    return _response_functions._gen_rhf_response(rough, coeff, occ, singlet=None, hermi=1)


def _orbitals(spins: Spins, n_spins: int) -> tuple[Array, Array]:
    """Return orbitals and occupations as PySCF has them."""
    coeff = np.stack([np.hstack(pair) for pair in spins])
    occ = np.stack([np.r_[np.ones(occupied.shape[1]), np.zeros(empty.shape[1])] for occupied, empty in spins])
    return (coeff, occ) if n_spins == 2 else (coeff[0], 2 * occ[0])


def _newton(spins: Spins, fock: Array, respond: Any, steps: int, n_spins: int) -> tuple[list[Array], float]:
    """Solve Newton's equation approximately.

    Returns:
        ``x_ai`` of every spin; what a further step would gain, Eh.
    """
    gaps = _gaps(spins, fock)
    right = _joined([-g for g in _gradient(spins, fock)])
    diagonal = _joined(gaps)
    shapes = [gap.shape for gap in gaps]

    def hessian(vector: Array) -> Array:
        x = _parted(vector, shapes)
        change = np.stack(
            [
                half + half.T
                for half in (
                    empty @ one @ occupied.T for (occupied, empty), one in zip(spins, x, strict=True)
                )
            ]
        )
        answer = np.asarray(respond(change if n_spins == 2 else 2 * change[0])).reshape(fock.shape)
        images = []
        for (occupied, empty), one, matrix, moved in zip(spins, x, fock, answer, strict=True):
            high, low = empty.T @ matrix @ empty, occupied.T @ matrix @ occupied
            images.append(high @ one - one @ low + empty.T @ moved @ occupied)
        return _joined(images)

    x, residual = np.zeros_like(right), right
    ready = residual / diagonal
    direction, product = ready, float(residual @ ready)
    for _ in range(steps):
        image = hessian(direction)
        curvature = float(direction @ image)
        if curvature <= 0 or product == 0:
            # Downhill without end: not the neighbourhood of a minimum; what there is has to do.
            break
        length = product / curvature
        x, residual = x + length * direction, residual - length * image
        ready = residual / diagonal
        before, product = product, float(residual @ ready)
        direction = ready + product / before * direction
    return _parted(x, shapes), (2 if n_spins == 1 else 1) * product


def _joined(parts: list[Array]) -> Array:
    return np.concatenate([part.ravel() for part in parts])


def _parted(vector: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(vector, ends), shapes, strict=True)]


def _rotated(orbitals: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
    """Return the orbitals after the rotation ``exp(x − xᵀ)`` between empty and occupied ones."""
    occupied, empty = orbitals
    n, m = occupied.shape[1], empty.shape[1]
    turn = np.zeros((n + m, n + m))
    turn[n:, :n], turn[:n, n:] = x, -x.T
    new = np.hstack([occupied, empty]) @ scipy.linalg.expm(turn)
    return new[:, :n], new[:, n:]
