"""Most cycles of an SCF on a coarse grid, corrected to be those of the mean field's own grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pyscf import df, lib
from pyscf.scf import diis

from helmol.arrays import Array
from helmol.dft.field import build_fitted, on_grid
from helmol.dft.kept import SHARE_FOR_ORBITALS, KeptOrbitals
from helmol.dft.ladder import ROUNDING
from helmol.dft.mole import find_basis

START_GRID_LEVEL = 0
"""PySCF grid level of the cycles."""

MIDDLE_GRID_LEVEL = 1
"""PySCF grid level of the first correction."""

MIDDLE_PAYS = 6.0
"""By how much a mean field's own grid must be larger than the coarse one for the middle one to be used: from
grid level 2 on."""

ROUNDS = ((1e-3, 2e-2), (1e-5, 5e-4))
"""Energy and orbital gradient to which the cycles on the coarse grid converge before the first and the second
correction, Eh. Each need be as good as the correction before it; the later ones go to the end."""

CLOSER = 0.1
"""Share of the mean field's tolerances to which the last cycles converge."""

CORRECTIONS = 8
"""Evaluations on the mean field's own grid after which this way counts as leading nowhere."""

AUXILIARY = ("def2-universal-jfit", "def2-universal-jkfit")
"""Sets that fit Coulomb, and Coulomb and exchange, on the coarse side of a mean field without fitting."""

KRYPTON = 36
"""Nuclear charge up to which those sets are for all electrons."""

if TYPE_CHECKING:
    _Scf: Any
else:
    _Scf = object


class Corrected(_Scf):
    """Mix-in for SCF classes: a potential and an energy that are exact at one density, and near it nearly so.

    With ``E_f, V_f`` the exact functional and its potential (all two-electron terms), ``E_c, V_c`` those of
    this mean field, ``E(D) = E_c(D) + [E_f − E_c](D₀) + Tr [V_f − V_c](D₀) (D − D₀)``. The gradient of the
    energy at D₀ is exact, and what it misses at D is ``(K_f − K_c)(D − D₀)``, where K is the response of the
    potential.
    """

    __name_mixin__ = "Corrected"
    _helmol_change: Array | None
    _helmol_constant: float
    _helmol_exact: tuple[Any, Any] | None
    _helmol_last: tuple[Any, Any] | None
    _helmol_memory: list[tuple[Array, Array]]
    _helmol_matrices: tuple[Array, Array]

    def get_hcore(self, mol: Any = None) -> Any:
        """Return the core Hamiltonian, computed once."""
        return self._helmol_matrices[0]

    def get_ovlp(self, mol: Any = None) -> Any:
        """Return the overlap, computed once."""
        return self._helmol_matrices[1]

    def get_veff(self, mol: Any = None, dm: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the corrected potential with its energies, as PySCF does."""
        if self._helmol_exact is not None and dm is self._helmol_exact[0]:
            found = self._helmol_exact[1]
        else:
            # Non-local correlation, which has a grid of its own, is left to the correction.
            with lib.temporary_env(self, nlc=0):
                found = super().get_veff(mol, dm, *args, **kwargs)
            if self._helmol_change is not None:
                change = self._helmol_change
                exc = found.exc + self._helmol_constant + float(np.sum(change * np.asarray(dm)))
                found = lib.tag_array(np.asarray(found) + change, **{**vars(found), "exc": exc})
        self._helmol_last = (dm, found)
        return found

    def correct(self, density: Any, exact: Any, mine: Any) -> None:
        """Make energy and potential exact at a density.

        Args:
            density: ``[nao, nao]`` or ``[2, nao, nao]``.
            exact: the potential wanted, as PySCF's ``get_veff`` gives it, with its energies.
            mine: the same, as it comes from this object.
        """
        change = np.asarray(exact) - np.asarray(mine)
        self._helmol_change = change if self._helmol_change is None else self._helmol_change + change
        self._helmol_constant += float(exact.exc + exact.ecoul - mine.exc - mine.ecoul)
        self._helmol_constant -= float(np.sum(change * np.asarray(density)))
        self._helmol_exact = (density, exact)
        # What DIIS has seen stays true: every Fock matrix changes by the same matrix.
        self._helmol_memory[:] = [(d, f + change) for d, f in self._helmol_memory]

    def last(self) -> tuple[Any, Any]:
        """Return the density of the orbitals at hand and its potential."""
        density = self.make_rdm1()
        if self._helmol_last is not None and np.array_equal(self._helmol_last[0], density):
            return self._helmol_last
        return density, self.get_veff(dm=density)


class SharedJk(_Scf):
    """Mix-in for SCF classes with the same fitted integrals: what one has built the others take.

    A density is evaluated on two or three grids at the end of a round.
    """

    __name_mixin__ = "SharedJk"
    _helmol_jk: dict[Any, Any]

    def get_jk(
        self,
        mol: Any = None,
        dm: Any = None,
        hermi: int = 1,
        with_j: bool = True,
        with_k: bool = True,
        omega: float | None = None,
    ) -> tuple[Any, Any]:
        """Return Coulomb and exchange matrices (PySCF's interface)."""
        known, key = self._helmol_jk, (hermi, with_j, with_k, omega)
        if known.get("density") is not dm:
            known.clear()
            known["density"] = dm
        if key not in known:
            known[key] = super().get_jk(mol, dm, hermi, with_j, with_k, omega)
        # PySCF adds to them in place.
        vj, vk = (None if matrix is None else np.array(matrix) for matrix in known[key])
        return vj, vk


class RememberingDiis(diis.CDIIS):
    """PySCF's DIIS that begins with the densities and Fock matrices of the rounds before."""

    def __init__(self, mf: Any, filename: Any = None) -> None:
        super().__init__(mf, filename)
        self._memory: list[tuple[Array, Array]] = mf._helmol_memory
        self._begun = False

    def update(self, s: Any, d: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the extrapolated Fock matrix (PySCF's interface)."""
        if not self._begun:
            self._begun = True
            for density, fock in self._memory:
                super().update(s, density, fock)
        self._memory.append((np.asarray(d), np.array(f)))
        del self._memory[: -self.space]
        return super().update(s, d, f, *args, **kwargs)


@dataclass(frozen=True)
class Evaluation:
    """Hold what was found on the mean field's own grid at a density.

    Attributes:
        density: ``[nao, nao]`` or ``[2, nao, nao]``.
        potential: PySCF's effective potential with its energies.
        fock: Fock matrix, Eh.
        energy: Eh.
        predicted: the energy that the corrected one has there, Eh.
        gradient: norm of the orbital gradient, Eh.
        mo_coeff: orbitals of the density, which diagonalise the Fock matrix among the occupied ones and among
            the empty ones.
        mo_energy: their energies, Eh.
        mo_occ: their occupations.
    """

    density: Any
    potential: Any
    fock: Array
    energy: float
    predicted: float
    gradient: float
    mo_coeff: Any
    mo_energy: Any
    mo_occ: Any

    def converged(self, conv_tol: float, conv_tol_grad: float) -> bool:
        """Return whether gradient and error of the predicted energy are within tolerances."""
        rounding = ROUNDING * abs(self.energy)
        return self.gradient <= conv_tol_grad and abs(self.energy - self.predicted) <= max(conv_tol, rounding)


class TwoGrids:
    """Run the cycles of a mean field on a coarse grid, with a linear correction renewed until it stands.

    A round minimises the energy of :class:`Corrected`; the first correction is to a middle grid, every later
    one to the mean field's own. A density that reproduces itself is one of the SCF on that grid: there the
    gradient of the energy is the same.
    C₆H₈O₃ at PBE/def2-SVP from PySCF's guess: 205,424 points, 14,736 of them in the coarse grid and two
    evaluations on the former instead of fourteen; gradients there 6e-4 and 3e-6 Eh.

    Args:
        mf: PySCF's RKS or UKS object.
        max_memory: MB; shares of it may hold basis functions on the grids and fitted integrals.

    Attributes:
        own: the mean field on its own grid.
        evaluations: on the mean field's own grid, up to here.
    """

    def __init__(self, mf: Any, *, max_memory: float) -> None:
        self.evaluations = 0
        self._mf = mf
        self._before: tuple[Any, ...] = ()
        self._max_memory, self._kept_mb = max_memory, SHARE_FOR_ORBITALS * max_memory
        if mf.grids.coords is None:
            mf.initialize_grids(mf.mol)
        self.own = mf.copy()
        if not needs_fit(mf):
            lib.set_class(self.own, (SharedJk, self.own.__class__))
            self.own._helmol_jk = {}
        self._grids = on_grid(mf, START_GRID_LEVEL).grids.build(with_non0tab=True)

    @property
    def ratio(self) -> float:
        """By how much the mean field's own grid is larger than the coarse one."""
        return len(self.own.grids.coords) / len(self._grids.coords)

    @functools.cached_property
    def coarse(self) -> Any:
        """The corrected mean field on the coarse grid, with fitted integrals."""
        mf = self._mf
        coarse = self.own.copy()
        coarse.grids = self._grids
        if needs_fit(mf):
            coarse = coarse.density_fit(auxbasis=auxiliary_for(mf))
        build_fitted(coarse.with_df, max_memory=self._max_memory)
        coarse.direct_scf = False
        lib.set_class(coarse, (Corrected, coarse.__class__))
        coarse._helmol_change, coarse._helmol_constant, coarse._helmol_memory = None, 0.0, []
        coarse._helmol_exact = coarse._helmol_last = None
        coarse._numint = KeptOrbitals(coarse.grids, limit_mb=self._kept_mb, like=mf._numint)
        coarse._helmol_matrices = mf.get_hcore(), mf.get_ovlp()
        coarse.verbose, coarse.chkfile, coarse.callback, coarse.scf_summary = 0, None, None, {}
        coarse.conv_check = False
        if remembers(mf):
            coarse.DIIS = RememberingDiis
        return coarse

    def rounds(
        self, solve: Callable[[Any, Any], object], density: Any, *, conv_tol: float, conv_tol_grad: float
    ) -> Iterator[Evaluation]:
        """Yield evaluations on the mean field's own grid, each at the end of the cycles after the one before.

        It ends where the cycles on the coarse grid do not converge, or after :data:`CORRECTIONS`.

        Args:
            solve: converges a mean field from a density, ``None`` for PySCF's guess.
            density: where to start.
            conv_tol: of the energy, Eh, to which the last density is wanted.
            conv_tol_grad: of the orbital gradient, Eh.
        """
        coarse, last = self.coarse, (CLOSER * conv_tol, CLOSER * conv_tol_grad)
        middle = self._middle()
        for step in range(CORRECTIONS + (middle is not None)):
            wanted = ROUNDS[step + (middle is None)] if step + (middle is None) < len(ROUNDS) else last
            rounding = ROUNDING * abs(float(coarse.e_tot)) if coarse.e_tot else 0.0
            coarse.conv_tol = max(wanted[0], last[0], rounding)
            coarse.conv_tol_grad = max(wanted[1], last[1])
            solve(coarse, density)
            if not coarse.converged:
                return
            density, mine = coarse.last()
            if remembers(self._mf):
                coarse.diis_start_cycle = 0
            if middle is not None and step == 0:
                exact = middle.get_veff(dm=density)
            else:
                found = self._evaluated(density)
                exact = found.potential
                yield found
            coarse.correct(density, exact, mine)

    def _middle(self) -> Any:
        """Return the mean field on the middle grid, ``None`` if it is not much cheaper than its own."""
        coarse = self.coarse
        if self.ratio < MIDDLE_PAYS:
            return None
        middle = coarse.view(lib.drop_class(coarse.__class__, Corrected))
        middle.grids = on_grid(self._mf, MIDDLE_GRID_LEVEL).grids
        middle.nlc = 0
        # Used once: nothing is kept.
        middle._numint = KeptOrbitals(middle.grids, limit_mb=0, like=self._mf._numint)
        return middle

    def _evaluated(self, density: Any) -> Evaluation:
        """Evaluate energy and Fock matrix on the mean field's own grid, with its own integrals."""
        own, coarse = self.own, self.coarse
        if not self.evaluations:
            kept_mb = self._kept_mb - coarse._numint.kept_mb - self._exact_integrals()
            own._numint = KeptOrbitals(own.grids, limit_mb=max(0.0, kept_mb), like=self._mf._numint)
        core, overlap = coarse.get_hcore(), coarse.get_ovlp()
        potential = own.get_veff(own.mol, density, *self._before)
        self._before = density, potential
        self.evaluations += 1
        fock = own.get_fock(core, overlap, potential, density)
        gradient = own.get_grad(coarse.mo_coeff, coarse.mo_occ, fock)
        mo_energy, mo_coeff = own.canonicalize(coarse.mo_coeff, coarse.mo_occ, fock)
        return Evaluation(
            density=density,
            potential=potential,
            fock=np.asarray(fock),
            energy=float(own.energy_tot(density, core, potential)),
            predicted=float(coarse.e_tot),
            gradient=float(np.linalg.norm(gradient)),
            mo_coeff=mo_coeff,
            mo_energy=mo_energy,
            mo_occ=coarse.mo_occ,
        )

    def _exact_integrals(self) -> float:
        """Compute the exact integrals if PySCF would keep them in memory, and return what they take, MB."""
        own = self.own
        if needs_fit(own) and own._eri is None and own._is_mem_enough():
            # Before the basis functions on the grid take the memory: one table costs less than two builds.
            own._eri = own.mol.intor("int2e", aosym="s8")
            return float(1e-6 * own._eri.nbytes)
        return 0.0


def needs_fit(mf: Any) -> bool:
    """Return whether some two-electron term of a mean field is not fitted."""
    if getattr(mf, "with_df", None) is None:
        return True
    return bool(mf.only_dfj) and is_hybrid(mf)


def is_hybrid(mf: Any) -> bool:
    """Return whether the functional has exact exchange."""
    return bool(mf._numint.libxc.is_hybrid_xc(mf.xc))


def auxiliary_for(mf: Any) -> dict[str, Any]:
    """Return an auxiliary basis for the coarse side of a mean field, by element.

    One of :data:`AUXILIARY`, which go with any basis; even-tempered Gaussians where they have no functions
    (made for effective core potentials, they have none for the cores of elements beyond Kr).
    """
    mol, name = mf.mol, AUXILIARY[is_hybrid(mf)]
    symbols = {mol.atom_symbol(k): mol.atom_pure_symbol(k) for k in range(mol.natm)}
    heavy = {mol.atom_symbol(k) for k in range(mol.natm) if mol.atom_charge(k) > KRYPTON}
    found = {s: None if s in heavy else find_basis(name, pure) for s, pure in symbols.items()}
    if all(found.values()):
        return found
    even = df.aug_etb(mol)
    return {s: functions or even[s] for s, functions in found.items()}


def remembers(mf: Any) -> bool:
    """Return whether a mean field's DIIS can go on with what it has seen before a correction."""
    plain = mf.diis is True and issubclass(diis.CDIIS, mf.DIIS)
    return plain and not (mf.diis_damp or mf.level_shift or getattr(mf, "damp", 0))
