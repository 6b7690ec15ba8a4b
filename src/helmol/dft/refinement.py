"""From a guessed Fock matrix to energy, forces and orbitals by one Fock build and a few linear responses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pyscf import dft, gto

from helmol import properties
from helmol.arrays import Array
from helmol.brief import brief
from helmol.dft.coarse import on_coarse_grid
from helmol.dft.dispersion import dispersion
from helmol.dft.energy import SMALLEST_GAP
from helmol.dft.field import mean_field
from helmol.dft.level import LevelConfig
from helmol.dft.mole import molecule_from_mole
from helmol.errors import InputError

SHARE = 0.8
"""Of what one more response would gain, counted as error: a step gains more by the potential's not answering.
With this and :data:`THIRD` 39 of 40 estimates covered the true error (``benchmarks/refinement``: eight
molecules, none to four responses; with all of it 40), 20 of 20 and 19 of 20 in either half."""

THIRD = 0.05
"""What is of third order in a round, as a multiple of the 3/2 power of what the round gains, Eh^(−1/2), until
a second build shows it: 0.004 to 0.045 was found (water, CH₃, QM9, small molecules; PBE, B3LYP)."""


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
    mf, nao = mean_field(mole, level), int(mole.nao)
    shape = (2, nao, nao) if isinstance(mf, dft.uks.UKS) else (nao, nao)
    fock = np.asarray(fock, dtype=np.float64)
    if fock.shape != shape:
        raise InputError(f"a Fock matrix of shape {fock.shape} where the level of theory has {shape}")
    overlap, core = mf.get_ovlp(), mf.get_hcore()
    levels, coeff = properties.orbitals(fock, overlap)
    occ = properties.occupations(levels, int(mole.nelectron), spin=int(mole.spin))
    empirical, _ = dispersion(molecule_from_mole(mole), level)
    coarse = on_coarse_grid(mf, level) if steps else None
    trace = _Trace()
    for _ in range(rounds):
        density = mf.make_rdm1(coeff, occ)
        potential = mf.get_veff(mole, density)
        built = np.asarray(mf.get_fock(core, overlap, potential, density))
        trace.built(float(mf.energy_tot(density, core, potential)) + empirical)
        levels, coeff = mf.canonicalize(coeff, occ, built)
        gradient, diagonal = mf.get_grad(coeff, occ, built), _diagonal(levels, occ)
        if coarse is None:
            trace.stayed(float((gradient**2 / diagonal).sum()))
            break
        second, respond = coarse.newton(), coarse.gen_response(coeff, occ, hermi=1)
        _, hessian, _ = second.gen_g_hop(coeff, occ, built)
        x, remaining = _conjugate_gradients(hessian, -gradient, diagonal, steps)
        coeff = second.rotate_mo(coeff, second.update_rotate_matrix(x, occ))
        change = np.asarray(mf.make_rdm1(coeff, occ)) - np.asarray(density)
        answer = np.asarray(respond(change))
        gain = -float((built * change).sum() + 0.5 * (answer * change).sum())
        trace.stepped(gain, remaining, steps + 1)
        built = built + answer
        levels, coeff = mf.canonicalize(coeff, occ, built)
        if trace.error <= tolerance:
            break
    return Refined(
        trace.energy, trace.remaining, trace.first - trace.energy, trace.error, built, levels, coeff, occ,
        np.asarray(mf.make_rdm1(coeff, occ)), trace.builds, trace.responses,
    )  # fmt: skip


def energy_error(remaining: float, gained: float, third: float = THIRD) -> float:
    """Return how far a refined energy may be off, Eh: ``SHARE remaining + third gained^(3/2)``.

    Args:
        remaining: what a further response would gain, ``Σ f r²/(ε_a − ε_i)``, Eh.
        gained: what the round has gained, Eh.
        third: what is of third order, Eh^(−1/2).
    """
    return float(SHARE * remaining + third * max(gained, 0.0) ** 1.5)


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
        self.remaining, self.error = remaining, energy_error(remaining, 0.0)

    def stepped(self, gain: float, remaining: float, responses: int) -> None:
        """Take what a round has gained."""
        self.energy -= gain
        self.remaining, self._gain = remaining, max(gain, 0.0)
        self.responses += responses
        self.error = energy_error(remaining, self._gain, self._third)


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


def _diagonal(levels: Array, occ: Array) -> Array:
    """Return ``f (ε_a − ε_i)`` in the order of PySCF's rotations, f = 2 of a closed shell as there.

    No difference is taken for less than :data:`helmol.dft.energy.SMALLEST_GAP`.
    """
    factor = 2 if levels.ndim == 1 else 1
    gaps = [
        (energy[filled == 0][:, None] - energy[filled > 0]).ravel()
        for energy, filled in zip(np.atleast_2d(levels), np.atleast_2d(occ), strict=True)
    ]
    return np.asarray(factor * np.maximum(np.concatenate(gaps), SMALLEST_GAP))


def _conjugate_gradients(
    hessian: Callable[[Array], Array], right: Array, diagonal: Array, steps: int
) -> tuple[Array, float]:
    """Solve ``H x = b`` approximately by so many steps, preconditioned with a diagonal.

    Returns:
        x, and ``Σ r²/diagonal`` of what is left, which a further step would gain.
    """
    x, residual = np.zeros_like(right), right
    direction = residual / diagonal
    product = float(residual @ direction)
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
    return x, product
