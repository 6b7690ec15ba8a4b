"""The start that a model gives an SCF, behind a guard."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pyscf import lib, scf

from helmol import dft, properties
from helmol.dft.mixin import Mixin, Scf
from helmol.errors import DomainError, HelmolError, InputError
from helmol.predict import TrainedModel
from helmol.pyscf.geometries import MODEL, Geometries

log = logging.getLogger("helmol.pyscf")

BETTER = (0.1, 0.002, 0.0001)
"""A start is used if its first SCF step moves less than this share of the electrons that PySCF's guess has to
move to get where that step leads; by the number of Fock builds that the model's references take. In 437
SCFs (``benchmarks/harm``) never more builds were needed than from PySCF's guess below 0.1, one or more were
saved below 0.002, two below 0.0001 but for ethene, of one."""

SYMMETRIC = 1e-6
"""Electrons that the density of a start may have to move to be as symmetric as the molecule. PySCF's guess
is, and an SCF that stays so has few directions to go: N₂ in STO-3G takes six builds, from a Fock matrix with
noise of 2 mEh eight. Equivariant models have at most 1e-9, noise of 0.3 mEh 3e-6."""

OPEN_GAP = 0.1
"""Gap in Eh below which a closed shell is no start for UKS: a solution with broken spin symmetry may be near,
and PySCF's guess has it broken. Stretched F₂, B3LYP: 0.05 and one build more than from PySCF's guess."""

SAME_SPINS = 1e-6
"""Densities of both spins that differ by no element more than this are the same."""

GUESSES = ("minao", "atom", "huckel", "mod_huckel", "hcore", "1e", "vsap", "sap")
"""Names of PySCF's own guesses; those that begin with ``chk`` read ``mf.chkfile``."""

UNUSABLE = (HelmolError, ValueError, ArithmeticError, RuntimeError)
"""What a start raises that cannot be had. ``RuntimeError``: torch reports a full GPU so, and a guess must not
end the user's SCF."""


@dataclass(frozen=True)
class StartInfo:
    """Say what happened when an SCF asked for its start.

    Attributes:
        used: whether the SCF started from the model.
        reason: why not, else ``None``.
        seconds: wall time for the start: inference, integrals, guard.
        residual: ``‖FDS−SDF‖`` at the model's density, Eh.
        moved: electrons that the first SCF step moves from the model's density.
        moved_fallback: electrons that PySCF's guess has to move to get where that step leads, which is nearly
            what its own first step moves, and takes no build.
        hidden_fock_builds: Fock builds that are no part of the SCF itself: inside the model (a
            delta target's reference), or by the guard for a start that was not taken.
        beyond: what acts on the electrons that the model does not know (a solvent, point charges, a field,
            another functional), and another basis; a start is used all the same, under the guard.
        start: what the SCF started from: ``model``, in a scanner ``last density`` or ``extrapolated
            density``, the name of PySCF's guess, ``None`` for a density of the caller's.
        compared: electrons that the first step moves from each start that was looked at; in a scanner the
            newest value of each.
    """

    used: bool
    reason: str | None = None
    seconds: float = 0.0
    residual: float | None = None
    moved: float | None = None
    moved_fallback: float | None = None
    hidden_fock_builds: int = 0
    beyond: tuple[str, ...] = ()
    start: str | None = None
    compared: dict[str, float] = field(default_factory=dict)


GIVEN = StartInfo(False, "kernel() had a density or orbitals to start from and asked for no guess")
"""What happened where PySCF asks for no start: ``dm0``, or a second ``kernel()``."""


def attach(mf: Any, model: TrainedModel | str | Path, *, fallback: bool = True) -> Any:
    """Make ``mf.kernel()`` start from the model's Fock matrix.

    The density of the predicted Fock matrix replaces PySCF's initial guess; the SCF itself, and so
    its converged energy, stays PySCF's. In another basis than the model's the occupied orbitals are
    projected; another functional starts from the density as it is; RKS, UKS, ROKS and their HF, density
    fitting and ``newton()`` take it in the form they have. Guards, in order: the model's domain (element,
    charge, spin); finite numbers; ``Tr DS = n``, in each spin; the symmetry of the molecule, if it has any;
    broken symmetry of the spins, if that is wanted; and how many electrons the first SCF step moves
    (:func:`helmol.properties.electrons_moved`), whose Fock build is the one SCF needs first anyway and is
    handed on. The start is used if that is little beside what lies between PySCF's own guess and where the
    step leads (:data:`BETTER`), which takes no build to know. The
    residual ``‖FDS−SDF‖`` is no such measure: a density that fills the wrong orbitals can have a small one.

    The Fock matrix at the model's density is the first point of the SCF's DIIS, which PySCF begins one cycle
    later because its own guesses are no Slater determinants. An SCF whose start is refused is
    PySCF's own, after one Fock build that is lost.

    A scanner (geometry optimisation, MD) has two starts more: the last density, and that of the last two
    geometries extrapolated. Each is looked at when it is there first, and from time to time; else the SCF
    starts from what had the smallest first step (``helmol_info.start``, ``helmol_info.compared``).

    Another functional or basis, a solvent, point charges, fields, relativistic terms and methods of the
    user's own change what the model has learnt, but its start may serve all the same: it is used under the
    same guard, said in a warning and in ``helmol_info.beyond``.

    ``mf.init_guess`` set after this call, an array or one of PySCF's names, is what is used then; set
    before, it is refused here. Attached objects can be copied, pickled and sent to other processes.

    Args:
        mf: a molecular SCF object of any functional and basis; changed in place.
        model: a loaded model or its folder.
        fallback: whether a start that is refused gives way to PySCF's guess with a logged warning
            (default), or raises.

    Returns:
        ``mf``; after ``mf.kernel()`` ``mf.helmol_info`` (:class:`StartInfo`) says what happened in it.

    Raises:
        InputError: there is no model at that path, ``mf`` is no SCF object, is periodic, or has an
            ``init_guess`` of the user's own.
        DomainError: at ``mf.kernel()``, if ``fallback`` is off and the start is refused.
    """
    if not isinstance(mf, scf.hf.SCF):
        raise InputError(f"cannot attach to a {type(mf).__name__}: expected an SCF such as dft.RKS(mol)")
    if hasattr(mf.mol, "lattice_vectors"):
        raise InputError(
            f"cannot attach to {type(mf).__name__} of a periodic cell: helmol knows molecules only"
        )
    own = vars(mf).get("init_guess", type(mf).init_guess)
    if not (isinstance(own, str) and own.lower() == type(mf).init_guess):
        what = repr(own) if isinstance(own, str) else "an array"
        raise InputError(
            f"mf.init_guess is {what}, a start of your own: set it to {type(mf).init_guess!r} to start from "
            "the model"
        )
    # From now on, what stands there was set after the model.
    vars(mf).pop("init_guess", None)
    if not isinstance(model, TrainedModel):
        model = TrainedModel.load(model)
    if not isinstance(mf, _LearntStart):
        lib.set_class(mf, (_LearntStart, mf.__class__), f"Helmol{mf.__class__.__name__}")
    mf._helmol_model, mf._helmol_fallback, mf._helmol_ready, mf._helmol_point = model, fallback, None, None
    mf._helmol_start = mf._helmol_said = mf.helmol_info = None
    return mf


class _LearntStart(Mixin):
    """Mix-in for SCF classes (PySCF's own way of adding behaviour, see ``lib.set_class``).

    A string in ``mf.init_guess`` would not do: PySCF runs minao for every string it does not know.
    """

    __name_mixin__ = "Helmol"
    helmol_info: StartInfo | None
    _helmol_start: StartInfo | None
    _helmol_ready: Any
    _helmol_point: tuple[Any, Any] | None
    _keys = {"helmol_info"}  # noqa: RUF012 - PySCF's protocol

    def build(self, *args: Any, **kwargs: Any) -> Any:
        """Forget what was asked before: PySCF calls this at the beginning of every kernel."""
        self._helmol_start = self._helmol_point = None
        return super().build(*args, **kwargs)

    def pre_kernel(self, envs: Mapping[str, Any]) -> None:
        """Give DIIS the point that the guard has built: PySCF calls this before the first cycle."""
        super().pre_kernel(envs)
        point, self._helmol_point = self._helmol_point, None
        own = self.diis_start_cycle > 1 or "get_fock" in vars(self)
        if point is None or envs["mf_diis"] is None or own:
            return
        density, potential = point
        # The way in which the cycles give theirs, whatever the kind of DIIS.
        self.get_fock(
            envs["h1e"], envs["s1e"], potential, density, cycle=0, diis=envs["mf_diis"], diis_start_cycle=0
        )

    def _finalize(self) -> Any:
        """Say what happened in this kernel: PySCF calls this at its end."""
        self.helmol_info, self._helmol_start = self._helmol_start or GIVEN, None
        return super()._finalize()

    def get_init_guess(self, mol: Any = None, key: Any = None, **kwargs: Any) -> Any:
        """Return the start's density matrix: the model's, or a guess asked for by name or as an array.

        Raises:
            InputError: PySCF has no guess of that name (and would silently take minao).
            DomainError: the model's start is refused and there is no fall-back.
        """
        mol = self.mol if mol is None else mol
        default = type(self).init_guess
        key = vars(self).get("init_guess", default) if key is None else key
        if not isinstance(key, str):
            self._helmol_start = StartInfo(False, "mf.init_guess is an array, which was used")
            return super().get_init_guess(mol, key, **kwargs)
        if key.lower() not in GUESSES and not key.lower().startswith("chk"):
            raise InputError(f"unknown init_guess {key!r}: PySCF has {', '.join(GUESSES)}, chkfile")
        if "init_guess" in vars(self) or key.lower() != default:
            self._helmol_start = StartInfo(False, f"the guess {key!r} was asked for", start=key.lower())
            return super().get_init_guess(mol, key, **kwargs)
        begin = time.perf_counter()
        pyscf_guess = functools.partial(super().get_init_guess, mol, default, **kwargs)
        try:
            info, density = _guarded(self, mol, pyscf_guess)
        except HelmolError as error:
            self.helmol_info = StartInfo(False, str(error), seconds=time.perf_counter() - begin)
            raise
        self._helmol_start = replace(info, seconds=time.perf_counter() - begin)
        return density

    def __getstate__(self) -> dict[str, Any]:
        """Return PySCF's own choice of attributes, without a potential at hand."""
        return {**super().__getstate__(), "_helmol_ready": None, "_helmol_point": None}

    def _adopt(self, other: Any) -> None:
        """Take over what the start of another SCF of the same molecule has to say."""
        self.helmol_info = self._helmol_start = other.helmol_info
        self._helmol_said = other._helmol_said

    def get_veff(self, mol: Any = None, dm: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Hand on the potential that the guard has built for this very density, else build it."""
        ready, self._helmol_ready = self._helmol_ready, None
        if ready is not None and dm is ready[0]:
            return ready[1]
        return super().get_veff(mol, dm, *args, **kwargs)

    def as_scanner(self) -> Any:
        """Return a scanner that chooses between the model and the densities of the geometries before."""
        scanner = super().as_scanner()
        if not isinstance(scanner, _FreshStart):
            lib.set_class(scanner, (_FreshStart, scanner.__class__), scanner.__class__.__name__)
        scanner._helmol_path = Geometries()
        return scanner


class _FreshStart(Scf):
    """Mix-in for scanners: PySCF's would start from the last density alone."""

    __name_mixin__ = "Fresh"
    _helmol_path: Geometries

    def __call__(self, mol_or_geom: Any, **kwargs: Any) -> float:
        """Return the energy at a geometry."""
        self._helmol_path.add(self)
        kwargs.setdefault("dm0", None)
        return float(super().__call__(mol_or_geom, **kwargs))


def _guarded(mf: Any, mol: Any, pyscf_guess: Any) -> tuple[StartInfo, Any]:
    """Return the start's density matrix and what was decided."""
    path: Geometries | None = getattr(mf, "_helmol_path", None)
    others = path.densities(mf, mol) if path is not None else {}
    if path is not None and others and (chosen := _along(mf, mol, path, others)) is not None:
        return chosen
    info, density = _from_nothing(mf, mol, pyscf_guess)
    if path is not None and info.moved is not None and info.used:
        path.moved[MODEL] = info.moved
    return info, density


def _from_nothing(mf: Any, mol: Any, pyscf_guess: Any) -> tuple[StartInfo, Any]:
    """Choose between the model's start and PySCF's guess."""
    model, hidden, guess = mf._helmol_model, 0, pyscf_guess()
    try:
        density, beyond = _learnt_density(mf, mol, model)
        hidden = reference_builds(model)
        if _may_break(mf, density) and mf.init_guess_breaksym == "mix":
            raise DomainError(
                "mf.init_guess_breaksym asks for broken spin symmetry: the model's start has none"
            )
        _check_symmetry(mf, mol, density, guess)
        first = _step(mf, mol, density)
    except UNUSABLE as error:
        if not mf._helmol_fallback:
            raise
        return _fall_back(StartInfo(False, str(error), hidden_fock_builds=hidden), mf), guess
    off = properties.electrons_moved(_both_spins(guess), _both_spins(first.after), mf.get_ovlp(mol))
    info = StartInfo(
        True, residual=first.residual, moved=first.moved, moved_fallback=off, hidden_fock_builds=hidden,
        start=MODEL, compared={MODEL: first.moved}, beyond=beyond,
    )  # fmt: skip
    if not first.moved < BETTER[hidden] * off:
        reason = (
            f"its first step moves {first.moved:.3g} electrons, from PySCF's guess to there it is {off:.3g}"
        )
    elif first.gap < OPEN_GAP and _may_break(mf, density):
        reason = f"it is a closed shell with a gap of {first.gap:.3g} Eh, and spins may break their symmetry"
    else:
        return _use(mf, density, first, _said(mf, info)), density
    if not mf._helmol_fallback:
        raise DomainError(f"the model's start is refused: {reason}")
    return _fall_back(replace(info, used=False, reason=reason, hidden_fock_builds=hidden + 1), mf), guess


def _along(mf: Any, mol: Any, path: Geometries, others: dict[str, Any]) -> tuple[StartInfo, Any] | None:
    """Choose between the model's start and the densities that follow from the geometries before.

    No guess of PySCF's is looked at: it knows nothing of them and has never the smaller step.

    Returns:
        What was decided and the density, ``None`` if no start can be had.
    """
    beyond: tuple[str, ...] = ()
    looked: dict[str, tuple[Any, _Step]] = {}
    tried: list[str] = []
    reason, hidden = None, 0
    names = [*others, MODEL]
    queue = path.to_look_at(names)
    while queue:
        tried.append(name := queue.pop(0))
        try:
            if name == MODEL:
                density, beyond = _learnt_density(mf, mol, mf._helmol_model)
                hidden += reference_builds(mf._helmol_model)
            else:
                density = others[name]
            step = _step(mf, mol, density)
        except UNUSABLE as error:
            reason, worse = str(error), True
            path.moved[name] = np.inf
        else:
            looked[name] = density, step
            worse = path.is_worse(name, step.moved)
            path.moved[name] = step.moved
        if worse:
            # What was best is no more: all the others are looked at.
            queue = [each for each in names if each not in tried]
    if not looked:
        return None
    best = min(looked, key=lambda name: looked[name][1].moved)
    density, step = looked[best]
    used = best == MODEL
    info = StartInfo(
        used, None if used else reason or f"the first step from the {best} is smaller",
        residual=step.residual, moved=path.moved.get(MODEL), hidden_fock_builds=hidden + len(looked) - 1,
        start=best, compared=dict(path.moved), beyond=beyond if used else (),
    )  # fmt: skip
    return _use(mf, density, step, _said(mf, info)), density


def _use(mf: Any, density: Any, step: _Step, info: StartInfo) -> StartInfo:
    """Keep the potential of the density that is taken: the SCF asks for it next, DIIS begins with it."""
    mf._helmol_ready = mf._helmol_point = (density, step.potential)
    return info


def _said(mf: Any, info: StartInfo) -> StartInfo:
    """Say what acts on the electrons that the model does not know, once as long as it stays the same."""
    if info.beyond and info.beyond != mf._helmol_said:
        mf._helmol_said = info.beyond
        unknown = ", ".join(info.beyond)
        log.warning("the model does not know of %s: its start is used under the guard", unknown)
    return info


def _check_symmetry(mf: Any, mol: Any, density: Any, guess: Any) -> None:
    """Refuse a density that is less symmetric than PySCF's guess.

    Raises:
        DomainError: it is.
    """
    overlap = mf.get_ovlp(mol)
    apart = dft.asymmetry(np.asarray(density), mol, overlap)
    if apart > SYMMETRIC and apart > dft.asymmetry(np.asarray(guess), mol, overlap) + SYMMETRIC:
        raise DomainError(f"{apart:.2g} electrons break the symmetry of the molecule")


def _may_break(mf: Any, density: Any) -> bool:
    """Return whether a density is that of a closed shell in a mean field that can break it."""
    closed = float(np.ptp(_both_spins(density), axis=0).max()) < SAME_SPINS
    return closed and isinstance(mf, scf.uhf.UHF)


def _both_spins(density: Any) -> Any:
    plain = np.asarray(density)
    return plain if plain.ndim == 3 else np.stack([plain, plain]) / 2


def reference_builds(model: TrainedModel) -> int:
    """Return how many Fock builds the reference matrices of a model take."""
    return sum(dft.FOCK_BUILDS[name] for name in model.needed_references)


def _fall_back(info: StartInfo, mf: Any) -> StartInfo:
    """Say that PySCF's own guess is used."""
    guess = type(mf).init_guess
    log.warning("SCF starts from PySCF's %r guess, not from the model: %s", guess, info.reason)
    return replace(info, start=guess)


def _learnt_density(mf: Any, mol: Any, model: TrainedModel) -> tuple[Any, tuple[str, ...]]:
    """Return the density matrix of the predicted Fock matrix after all checks that cost no build.

    Returns:
        The density in the form of the mean field, and what the model does not know of the calculation.

    Raises:
        DomainError: anything outside what the model has learnt, or numbers that make no sense.
    """
    level = model.domain.level
    if (builds := reference_builds(model)) >= len(BETTER):
        raise DomainError(f"its references take {builds} Fock builds, more than a start saves")
    if not isinstance(mf, (scf.hf.RHF, scf.uhf.UHF)) or hasattr(mol, "lattice_vectors"):
        kind = type(mf).__name__.replace(_LearntStart.__name_mixin__, "")
        raise DomainError(f"{kind} is not supported: only molecular RKS, UKS, ROKS and their HF")
    if dft.has_own_overlap(mf, mol):
        raise DomainError("the SCF has an overlap of its own (get_ovlp)")
    beyond = [*filter(None, [dft.other_functional(mf, level)]), *dft.beyond_the_molecule(mf, mol)]
    other = dft.other_functions(mol, dft.level_from(level))
    source = mol if other is None else dft.build_mole(dft.molecule_from_mole(mol), dft.level_from(level))
    prediction = model.predict(source)
    if not np.isfinite(prediction.fock).all():
        raise DomainError("the predicted Fock matrix is not finite")
    same_spins = isinstance(mf, scf.uhf.UHF) == (prediction.mo_energy.ndim == 2)
    if other is None and same_spins and not isinstance(mf, scf.rohf.ROHF):
        # Occupations as the mean field wants them: smeared, by symmetry.
        mo_occ = mf.get_occ(prediction.mo_energy, prediction.mo_coeff)
        density = mf.make_rdm1(prediction.mo_coeff, mo_occ)
    else:
        occupied = dft.split_spins(prediction.mo_coeff, prediction.mo_occ)
        if occupied is None:
            raise DomainError("the predicted occupations are fractional")
        if other is not None:
            occupied = dft.in_basis(occupied, source, mol)
            beyond.append(f"the basis of the SCF ({other})")
        density = dft.density_of(mf, occupied)
    electrons = float((np.asarray(density) * mf.get_ovlp(mol)).sum())
    if abs(electrons - mol.nelectron) > 1e-6 * mol.nelectron:
        raise DomainError(f"the predicted density holds {electrons:.6f} electrons, not {mol.nelectron}")
    return density, tuple(beyond)


@dataclass(frozen=True)
class _Step:
    """One Fock build at a density and what it says about the density."""

    potential: Any
    residual: float
    moved: float
    after: Any
    gap: float


def _step(mf: Any, mol: Any, density: Any) -> _Step:
    """Build F at a density and make one SCF step without keeping it.

    Raises:
        DomainError: what comes out is not finite.
    """
    potential = mf.get_veff(mol, density)
    overlap, plain = mf.get_ovlp(mol), np.asarray(density)
    fock = mf.get_fock(mf.get_hcore(mol), overlap, potential, density)
    mo_energy, mo_coeff = mf.eig(fock, overlap)
    mo_occ = mf.get_occ(mo_energy, mo_coeff)
    after = np.asarray(mf.make_rdm1(mo_coeff, mo_occ))
    residual = properties.residual(dft.spin_focks(fock), plain, overlap)
    moved = properties.electrons_moved(plain, after, overlap)
    if not np.isfinite([residual, moved]).all():
        raise DomainError("the Fock matrix at the density of the start is not finite")
    gap = properties.gap(np.asarray(mo_energy), np.asarray(mo_occ))
    return _Step(potential, residual, moved, after, gap)
