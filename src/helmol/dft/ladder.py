"""What an SCF goes on with where DIIS gets nowhere: second order, and fractional occupation before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from helmol.arrays import Array
from helmol.errors import ConvergenceError

PATIENCE = 12
"""Cycles within which DIIS must bring the smallest orbital gradient down by ``PROGRESS``."""

FIRST_CYCLES = 10
"""Cycles that are not judged: from superposed atoms gradients may rise at first."""

NOISE = 1e-7
"""Orbital gradient that rounding may keep from falling, Eh: nothing near it counts as stalled."""

PROGRESS = 3.0
"""Factor that ``PATIENCE`` cycles must win."""

SECOND_ORDER_CYCLES = 30
"""Steps of the second-order solver, each of several Fock builds; what it converges takes at most 15."""

SMEARING = (0.02, 0.005)
"""Temperatures of the Fermi distribution, Eh, in turn."""

SMEARED_CYCLES = 15
"""SCF cycles at each temperature."""

ROUNDING = 1e-13
"""Relative error of an energy, which no density makes smaller."""

HOLE = 1e-3
"""By how much an occupied orbital may lie above an empty one on a coarse grid, Eh."""


class Ladder:
    """Converge mean fields of one molecule, each rung where the one before led nowhere.

    1. ``diis``: PySCF's own SCF, given up once it makes no progress (:func:`stalled`).
    2. ``newton``: PySCF's second-order solver from the orbitals of lowest energy that DIIS saw.
    3. ``smearing``: a few SCF cycles with the occupation of a Fermi distribution that cools down, then
       ``newton`` from the lowest orbitals of that Fock matrix.
    4. ``swap``: ``newton`` from the orbitals it ended with, the lowest of them occupied.

    The occupation is not the second-order solver's to choose. Where it leaves an electron in an orbital above
    an empty one, the next rung is tried, too.

    Attributes:
        steps: rungs used, in order.
        cycles: SCF cycles and steps of second order up to here.
    """

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.cycles = 0

    @property
    def beyond_diis(self) -> bool:
        """Whether DIIS alone did not do."""
        return self.steps not in ([], ["diis"])

    def solve(self, mf: Any, density: Any = None) -> None:
        """Converge a mean field to its own tolerances, within its ``max_cycle`` cycles in all.

        It gets orbitals, energy, ``converged`` and ``cycles``. Once DIIS did not do, a later mean field goes
        on in second order from the orbitals it has.

        Args:
            mf: PySCF's mean field, or one on another grid with the same functions.
            density: where to start, by default at PySCF's guess.
        """
        before = self.cycles
        if not self.beyond_diis:
            start = self._diis(mf, density)
            if start is None:
                mf.cycles = self.cycles - before
                return
        else:
            start = mf.mo_coeff, mf.mo_occ
        for rung in (lambda: start, lambda: self._smeared(mf, start, before), lambda: self._swapped(mf)):
            if (left := mf.max_cycle - (self.cycles - before)) <= 0:
                break
            orbitals, occupations = rung()
            self.newton(mf, orbitals, occupations, max_cycle=left)
            if mf.converged and gap(mf) > -HOLE:
                break
        mf.cycles = self.cycles - before

    def newton(self, mf: Any, orbitals: Array, occupations: Array, *, max_cycle: int) -> None:
        """Converge a mean field in second order from orbitals, whose occupation stays."""
        self._note("newton")
        second = mf.newton()
        second.max_cycle = max(1, min(SECOND_ORDER_CYCLES, max_cycle))
        if mf.e_tot:
            second.conv_tol = max(mf.conv_tol, ROUNDING * abs(float(mf.e_tot)))
        count = _Count()
        second.callback = count
        second.kernel(orbitals, occupations)
        # The last call comes after the last step.
        self.cycles += max(0, count.n - 1)
        mf.mo_coeff, mf.mo_occ, mf.mo_energy = second.mo_coeff, second.mo_occ, second.mo_energy
        mf.e_tot, mf.converged = float(second.e_tot), bool(second.converged)

    def _diis(self, mf: Any, density: Any) -> tuple[Array, Array] | None:
        """Run the plain SCF; return where to go on, ``None`` if it converged or has no cycles left."""
        self._note("diis")
        watch = _Watch(max(NOISE, float(mf.conv_tol_grad)))
        mf.callback = watch
        try:
            mf.kernel(dm0=density)
        except _Stalled:
            mf.converged = False
        finally:
            mf.callback = None
            self.cycles += len(watch.gradients)
        if not mf.converged and watch.best is not None:
            mf.e_tot = watch.lowest
        done = mf.converged or len(watch.gradients) >= mf.max_cycle or watch.best is None
        return None if done else watch.best

    def _smeared(self, mf: Any, start: tuple[Array, Array], before: int) -> tuple[Array, Array]:
        """Return the lowest orbitals of a Fock matrix of fractional occupation."""
        self._note("smearing")
        density = mf.make_rdm1(*start)
        for temperature in SMEARING:
            warm = mf.smearing(sigma=temperature, method="fermi", fix_spin=True)
            warm.conv_tol, warm.conv_tol_grad = 1e-4, 1e-2
            warm.max_cycle = max(1, min(SMEARED_CYCLES, mf.max_cycle - (self.cycles - before)))
            warm.kernel(dm0=density)
            self.cycles += int(warm.cycles)
            density = np.asarray(warm.make_rdm1())
        energies, orbitals = mf.eig(mf.get_fock(dm=density), mf.get_ovlp())
        return orbitals, mf.get_occ(energies, orbitals)

    def _swapped(self, mf: Any) -> tuple[Array, Array]:
        """Return the orbitals of a solution with a hole, the lowest occupied."""
        self._note("swap")
        return mf.mo_coeff, mf.get_occ(mf.mo_energy, mf.mo_coeff)

    def _note(self, step: str) -> None:
        """Write a step down, once where it is repeated."""
        if self.steps[-1:] != [step]:
            self.steps.append(step)


def stalled(gradients: list[float], tolerance: float) -> bool:
    """Return whether an SCF gets nowhere, by the norms of its orbital gradient, cycle by cycle.

    It does where the smallest of the last ``PATIENCE`` is more than a third of the smallest before, and not
    within the tolerance, where only the rounding of the energy is waited for.
    """
    if len(gradients) < FIRST_CYCLES + PATIENCE:
        return False
    last = min(gradients[-PATIENCE:])
    return last > tolerance and last * PROGRESS > min(gradients[:-PATIENCE])


def gap(mf: Any) -> float:
    """Return the lowest empty orbital energy less the highest occupied one, Eh, the smaller of both spins.

    Below zero there is a hole: the density is not that of the lowest orbitals.
    """
    pairs = zip(np.atleast_2d(mf.mo_energy), np.atleast_2d(mf.mo_occ), strict=True)
    return min(
        (float(e[n == 0].min() - e[n > 0].max()) for e, n in pairs if (n > 0).any() and (n == 0).any()),
        default=float("inf"),
    )


def check_holes(mf: Any, allowed: float = 0.0) -> None:
    """Raise where an occupied orbital lies above an empty one by more than allowed, Eh.

    Raises:
        ConvergenceError: it does; the Fock matrix would not give its density back.
    """
    if mf.converged and (found := gap(mf)) < -allowed:
        raise ConvergenceError(
            "no solution was found that has its lowest orbitals occupied: in the one found an empty orbital "
            f"lies {-found:.4f} Eh below an occupied one (energy {float(mf.e_tot):.6f} Eh); "
            "another charge or spin may be this molecule's"
        )


class _Stalled(Exception):
    """Ends an SCF that gets nowhere."""


class _Count:
    """Counts calls."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, _: Any) -> None:
        self.n += 1


class _Watch:
    """Follows an SCF, keeps the orbitals of its lowest energy, and ends it once it gets nowhere."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.gradients: list[float] = []
        self.best: tuple[Array, Array] | None = None
        self.lowest = np.inf

    def __call__(self, variables: dict[str, Any]) -> None:
        self.gradients.append(float(variables["norm_gorb"]))
        if (energy := float(variables["e_tot"])) < self.lowest:
            self.lowest = energy
            self.best = np.array(variables["mo_coeff"]), np.array(variables["mo_occ"])
        if not variables["scf_conv"] and stalled(self.gradients, self.tolerance):
            raise _Stalled
