"""Cheap cycles for a user's own mean field: most of them on a coarse grid, to PySCF's result."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyscf import dft, lib, scf
from pyscf.dft import numint
from pyscf.lib import logger
from pyscf.scf import chkfile
from pyscf.soscf import newton_ah

from helmol.dft.attached import FOCK_METHODS
from helmol.dft.ladder import gap
from helmol.dft.mixin import Mixin
from helmol.dft.two_grids import Evaluation, TwoGrids
from helmol.errors import InputError

log = logging.getLogger("helmol.pyscf")

COARSE_PAYS = 2.0
"""By how much a mean field's own grid must be larger than the coarse one for two grids to pay."""

WORTH = 3.0
"""Factor by which every evaluation on the mean field's own grid must bring the gradient down."""

NO_CUTOFF = 1e-20
"""Density below which PySCF drops no points of a grid."""

OWN_METHODS = (*FOCK_METHODS, "get_grad", "energy_tot", "energy_elec", "pre_kernel", "post_kernel")
"""Methods of an SCF object that the cycles go through."""


@dataclass(frozen=True)
class CyclesInfo:
    """Say how an accelerated SCF went.

    Attributes:
        used: whether the result is that of the cheap cycles; else it is of PySCF's plain ones.
        reason: why not, else ``None``.
        coarse_cycles: SCF cycles on the coarse grid.
        fine_evaluations: of energy and Fock matrix on the mean field's own grid, with its own integrals, in
            the cheap cycles.
        gradient: norm of the orbital gradient at the last of these, Eh.
        seconds: wall time of the cheap cycles, with grids and fitted integrals.
    """

    used: bool
    reason: str | None = None
    coarse_cycles: int = 0
    fine_evaluations: int = 0
    gradient: float | None = None
    seconds: float = 0.0


def accelerate(mf: Any) -> Any:
    """Let most cycles of ``mf.kernel()`` run on a coarse grid with fitted integrals, to the same result.

    A linear correction makes energy and orbital gradient on the coarse side those of ``mf``'s own grid and
    integrals (:class:`helmol.dft.two_grids.TwoGrids`); two or three evaluations there are all that is left of
    a dozen. The SCF is converged by ``mf.conv_tol`` and ``mf.conv_tol_grad`` on them: energy, orbitals and
    forces are PySCF's. Where this way does not lead there, PySCF's own cycles go on, with a logged warning.

    RKS and UKS with any functional, basis, solvent, point charges, with fitted and exact integrals. What
    the cycles cannot do runs as ever, and ``mf.helmol_cycles.reason`` says so: Hartree–Fock, ROKS, second
    order (``mf.newton()``), smearing, methods of the SCF replaced on the object, a DIIS object or a
    convergence test of the user's own.

    ``mf.callback`` is called in every cycle, on the coarse side (where energies have the correction of that
    time) and on ``mf``'s own; ``mf.cycles`` counts those on the coarse side, ``mf.max_cycle`` limits
    them; ``mf.chkfile`` is written after every evaluation on ``mf``'s own side. Values of the basis functions
    on the grids take up to 35 % of ``mf.max_memory``, fitted integrals half of it.

    Goes together with :func:`helmol.pyscf.attach`, in either order: the guard of the start then works on
    the coarse side, too. Scanners, optimisers, ``mf.reset``, copies and pickles keep it,
    ``mf.undo_accelerate()`` returns a mean field without it.

    Args:
        mf: an SCF object, changed in place.

    Returns:
        ``mf``; after ``mf.kernel()`` ``mf.helmol_cycles`` (:class:`CyclesInfo`) says how it went.

    Raises:
        InputError: ``mf`` is no SCF object, or is periodic.
    """
    if not isinstance(mf, scf.hf.SCF):
        raise InputError(f"cannot accelerate a {type(mf).__name__}: expected an SCF such as dft.RKS(mol)")
    if hasattr(mf.mol, "lattice_vectors"):
        raise InputError(
            f"cannot accelerate {type(mf).__name__} of a periodic cell: helmol knows molecules only"
        )
    if not isinstance(mf, CheapCycles):
        lib.set_class(mf, (CheapCycles, mf.__class__), f"Cheap{mf.__class__.__name__}")
    # A second-order solver has a kernel of its own, which asks nobody.
    mf.helmol_cycles = CyclesInfo(False, obstacle(mf, {})) if isinstance(mf, newton_ah._CIAH_SOSCF) else None
    return mf


class CheapCycles(Mixin):
    """Mix-in for SCF classes: an SCF on two grids."""

    __name_mixin__ = "Cheap"
    helmol_cycles: CyclesInfo | None
    _keys = {"helmol_cycles"}  # noqa: RUF012 - PySCF's protocol

    def undo_accelerate(self) -> Any:
        """Return a view of the mean field with PySCF's own cycles."""
        plain = lib.view(self, lib.drop_class(self.__class__, CheapCycles))
        del plain.helmol_cycles
        return plain

    def newton(self) -> Any:
        """Return PySCF's second-order solver, which has steps of its own."""
        return self.undo_accelerate().newton()

    def scf(self, dm0: Any = None, **kwargs: Any) -> float:
        """Converge the SCF (PySCF's interface) and return its energy, Eh."""
        if (reason := obstacle(self, kwargs)) is not None:
            self.helmol_cycles = CyclesInfo(False, reason)
            return float(super().scf(dm0, **kwargs))
        self.dump_flags()
        self.build(self.mol)
        run = _Run(self, dump_chk=bool(kwargs.get("dump_chk", True)))
        self.helmol_cycles = run(dm0)
        if self.helmol_cycles.used:
            self._finalize()
            return float(self.e_tot)
        if self.helmol_cycles.coarse_cycles:
            log.warning("PySCF's own cycles go on: %s", self.helmol_cycles.reason)
        # From the beginning, or from where the cheap ones came to.
        info = vars(self).get("_helmol_start")
        super().scf(dm0 if run.density is None else run.density, **kwargs)
        if run.density is not None and info is not None:
            self.helmol_info = info
        return float(self.e_tot)


def obstacle(mf: Any, kwargs: Mapping[str, Any]) -> str | None:
    """Return why the cycles of a mean field cannot be made cheap, ``None`` if nothing is known against it.

    Args:
        mf: PySCF's mean field.
        kwargs: what ``mf.kernel`` was given besides a density.
    """
    kind = type(mf).__name__
    if isinstance(mf, newton_ah._CIAH_SOSCF):
        return f"{kind} is a second-order solver with steps of its own"
    if not isinstance(mf, dft.rks.KohnShamDFT) or mf._numint._xc_type(mf.xc) == "HF":
        return "there is no functional on a grid"
    if not isinstance(mf, scf.hf.RHF | scf.uhf.UHF) or isinstance(mf, scf.rohf.ROHF):
        return f"{kind} is not supported: only RKS and UKS"
    if any(base.__name__ == "_SmearingSCF" for base in type(mf).__mro__):
        return "occupations are smeared"
    if type(mf._numint) is not numint.NumInt:
        return f"the functional is integrated by a {type(mf._numint).__name__}"
    if mf.small_rho_cutoff > NO_CUTOFF:
        return f"mf.small_rho_cutoff = {mf.small_rho_cutoff:g} makes the grid depend on the start"
    if mf.max_cycle <= 0:
        return f"mf.max_cycle is {mf.max_cycle}"
    if isinstance(mf.diis, lib.diis.DIIS) or mf.diis_file:
        return "DIIS has an object or a file of its own"
    if callable(mf.check_convergence):
        return "mf.check_convergence is a test of its own"
    if own := [name for name in OWN_METHODS if name in vars(mf)]:
        return f"the SCF has its own {', '.join(own)}"
    if other := sorted(set(kwargs) - {"dump_chk"}):
        return f"kernel() was given {', '.join(other)}"
    return None


class _Run:
    """Run the cheap cycles of one ``kernel()``.

    Attributes:
        density: where the cycles came to, ``None`` before the first evaluation on the mean field's own side.
    """

    def __init__(self, mf: Any, *, dump_chk: bool) -> None:
        self.density: Any = None
        self._mf, self._dump_chk = mf, dump_chk and bool(mf.chkfile)
        self._cycles, self._gradients = 0, list[float]()
        self._last_energy = 0.0

    def __call__(self, dm0: Any) -> CyclesInfo:
        """Converge the mean field, or return why not."""
        begin = time.perf_counter()
        try:
            reason = self._reason(dm0)
        except np.linalg.LinAlgError as error:
            reason = f"the cycles on the coarse grid broke down: {error}"
        gradient = self._gradients[-1] if self._gradients else None
        seconds = time.perf_counter() - begin
        return CyclesInfo(reason is None, reason, self._cycles, len(self._gradients), gradient, seconds)

    def _reason(self, dm0: Any) -> str | None:
        """Return ``None`` once the mean field is converged, else why the cheap cycles end."""
        mf = self._mf
        if self._dump_chk:
            chkfile.save_mol(mf.mol, mf.chkfile)
        grids = TwoGrids(mf.undo_accelerate(), max_memory=mf.max_memory)
        if grids.ratio < COARSE_PAYS:
            return f"its grid is only {grids.ratio:.1f} times as large as the coarse one"
        mf.grids, mf.nlcgrids = grids.own.grids, grids.own.nlcgrids
        tolerance = mf.conv_tol, mf.conv_tol**0.5 if mf.conv_tol_grad is None else mf.conv_tol_grad
        for found in grids.rounds(self._solve, dm0, conv_tol=tolerance[0], conv_tol_grad=tolerance[1]):
            done = found.converged(*tolerance)
            self._say(grids, found, done)
            self.density, mf._eri = found.density, grids.own._eri
            if done and gap(found) < 0:
                return "an empty orbital lies below an occupied one"
            if done:
                mf.mo_coeff, mf.mo_energy, mf.mo_occ = found.mo_coeff, found.mo_energy, found.mo_occ
                mf.e_tot, mf.converged, mf.cycles = found.energy, True, self._cycles
                return None
            if len(self._gradients) > 1 and self._gradients[-1] * WORTH > self._gradients[-2]:
                return (
                    "the correction of the coarse grid does not get better: orbital gradients "
                    + ", ".join(f"{gradient:.1e}" for gradient in self._gradients)
                )
        return f"the cycles on the coarse grid did not converge, the last energy is {self._last_energy:.8f}"

    def _solve(self, coarse: Any, density: Any) -> None:
        """Run a round of cycles on the coarse grid."""
        mf, first = self._mf, not self._cycles
        coarse.max_cycle = max(1, mf.max_cycle - self._cycles)
        coarse.callback = self._each
        try:
            coarse.kernel(dm0=density)
        finally:
            if first and hasattr(mf, "_adopt"):
                mf._adopt(coarse)

    def _each(self, variables: dict[str, Any]) -> None:
        """Follow the cycles on the coarse grid."""
        mf, self._last_energy = self._mf, float(variables["e_tot"])
        logger.info(
            mf,
            "coarse cycle= %d E= %.15g  |g|= %4.3g",
            self._cycles + 1, variables["e_tot"], variables["norm_gorb"],
        )  # fmt: skip
        if callable(mf.callback):
            mf.callback({**variables, "cycle": self._cycles, "scf_conv": False})
        self._cycles += 1

    def _say(self, grids: TwoGrids, found: Evaluation, converged: bool) -> None:
        """Show an evaluation on the mean field's own side to log, checkpoint file and callback."""
        mf = self._mf
        self._gradients.append(found.gradient)
        logger.info(
            mf,
            "own grid: E= %.15g  predicted= %.15g  |g|= %4.3g",
            found.energy,
            found.predicted,
            found.gradient,
        )
        variables = {
            "mf": mf, "mol": mf.mol, "cycle": self._cycles - 1, "scf_conv": converged,
            "e_tot": found.energy, "last_hf_e": self._last_energy, "norm_gorb": found.gradient,
            "mo_energy": found.mo_energy, "mo_coeff": found.mo_coeff, "mo_occ": found.mo_occ,
            "dm": found.density, "vhf": found.potential, "fock": found.fock,
            "h1e": grids.coarse.get_hcore(), "s1e": grids.coarse.get_ovlp(),
            "conv_tol": mf.conv_tol, "conv_tol_grad": mf.conv_tol_grad,
        }  # fmt: skip
        if self._dump_chk:
            mf.dump_chk(variables)
        if callable(mf.callback):
            mf.callback(variables)
