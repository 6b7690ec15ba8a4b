"""PySCF's mean field at a level of theory, and cheap Fock matrices from it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from pyscf import df, dft, gto

from helmol.arrays import Array
from helmol.basis import from_house
from helmol.dft.densities import minao_density, silence
from helmol.dft.hartree import minao_hartree
from helmol.dft.integrals import house, house_shells, symmetric
from helmol.dft.level import EVEN_TEMPERED, LevelConfig, method_for, resolve_functional
from helmol.dft.lite import minao_lite
from helmol.dft.lite_gradient import minao_lite_gradient
from helmol.dft.mole import elements_mole, find_basis
from helmol.errors import InputError

SHARE_OF_MEMORY = 0.5
"""Share of ``max_memory_mb`` that fitted integrals may take."""


def mean_field(mole: gto.Mole, level: LevelConfig) -> Any:
    """Return an RKS or UKS object set up for a level of theory; nothing is computed yet.

    Hartree–Fock is ``xc="hf"`` of the same classes. Energies and gradients lack
    :func:`helmol.dft.dispersion`.

    Raises:
        InputError: unknown functional or auxiliary basis, or restricted asked for an open shell.
    """
    resolve_functional(level.xc)
    mf = (dft.UKS if method_for(level, int(mole.spin)) == "uks" else dft.RKS)(mole, xc=level.xc)
    silence(mf)
    if level.dispersion is None:
        mf.disp = False
    if level.density_fit:
        mf = mf.density_fit(auxbasis=auxiliary_basis(mole, level))
        # Else exchange is built from density differences, without the fast occupied-orbital route.
        mf.direct_scf = False
    mf.grids.level = level.grid_level
    if mf.do_nlc():
        mf.nlcgrids.level = 0
    mf.conv_tol, mf.conv_tol_grad = level.conv_tol, level.gradient_tolerance
    mf.max_cycle, mf.max_memory = level.max_cycle, level.max_memory_mb
    return mf


def auxiliary_basis(mole: gto.Mole, level: LevelConfig) -> dict[str, Any]:
    """Return the auxiliary basis by element: that of the level, or what PySCF takes for the level's basis.

    That is for Coulomb terms only where the functional has no exact exchange (``def2-universal-jfit`` for
    PBE/def2-SVP), else for both (``def2-svp-jkfit``); even-tempered Gaussians where there is no such set.
    The ``Mole`` itself carries parsed functions without a name, for which PySCF would take the last
    everywhere.

    Raises:
        InputError: a set that PySCF does not have, or without functions for an element.
    """
    symbols = sorted({symbol for symbol, _ in mole._atom})
    if level.auxbasis == EVEN_TEMPERED:
        return dict(df.aug_etb(mole))
    if level.auxbasis != "auto":
        if missing := [symbol for symbol in symbols if not find_basis(level.auxbasis, symbol)]:
            raise InputError(
                f"PySCF has no auxiliary basis {level.auxbasis!r} for {', '.join(missing)}: "
                "name another one, such as def2-universal-jkfit, or 'auto'"
            )
        return dict.fromkeys(symbols, level.auxbasis)
    named = mole.copy(deep=False)
    named.basis = dict.fromkeys(symbols, level.basis)
    with warnings.catch_warnings():
        # Elements that a set lacks.
        warnings.simplefilter("ignore")
        return dict(df.make_auxbasis(named, xc=level.xc))


def auxiliary_name(level: LevelConfig, numbers: Iterable[int]) -> str | None:
    """Return the auxiliary basis of some elements in words, ``None`` for a level without density fitting.

    Returns:
        The name of the set if it is one for all, else ``"H C: cc-pvdz-jkfit; K: even-tempered"``.

    Raises:
        InputError: as :func:`auxiliary_basis`.
    """
    if not level.density_fit:
        return None
    mole = elements_mole(level, numbers)
    functions, elements = auxiliary_basis(mole, level), dict[str, list[str]]()
    for symbol, _ in mole._atom:
        found = functions[symbol]
        name = found.lower() if isinstance(found, str) else EVEN_TEMPERED
        elements.setdefault(name, []).append(symbol)
    if len(elements) == 1:
        return next(iter(elements))
    return "; ".join(f"{' '.join(symbols)}: {name}" for name, symbols in elements.items())


def keep_fitted_integrals(mf: Any, level: LevelConfig) -> None:
    """Compute the three-index integrals of density fitting once, if they take less than half the memory.

    Without exact exchange PySCF would compute them anew in every cycle: C6H14 at PBE/def2-SVP takes 25.3
    CPU-s that way and 17.3 this way.
    """
    if not level.density_fit:
        return
    build_fitted(mf.with_df, max_memory=level.max_memory_mb)


def build_fitted(with_df: Any, *, max_memory: float) -> None:
    """Compute the three-index integrals of PySCF's ``DF`` object, if they take less than half the memory.

    Args:
        with_df: PySCF's ``DF`` object.
        max_memory: MB.
    """
    if with_df._cderi is not None:
        return
    n_ao, n_aux = int(with_df.mol.nao), int(df.make_auxmol(with_df.mol, with_df.auxbasis).nao)
    if 8e-6 * n_aux * n_ao * (n_ao + 1) / 2 < SHARE_OF_MEMORY * max_memory:
        with_df.build()


def reference_fock(mole: gto.Mole, level: LevelConfig, name: str) -> Array:
    """Return a cheap Fock matrix of a molecule, house order, Eh, exactly symmetric.

    * ``minao-lite``: kinetic energy and core potentials, nuclei and electrons of superposed neutral atoms,
      and the exchange-correlation potential of the sum of their densities
      (:func:`helmol.dft.lite.minao_lite`); no density matrix, no density fitting, no grid of the level's. The
      cheapest by far, and as near as ``minao``.
    * ``minao-hartree``: ``minao-lite`` whose charge has settled in its own Coulomb field
      (:func:`helmol.dft.hartree.minao_hartree`); three to five times nearer, for a fraction of a Fock build.
    * ``minao``: the Fock matrix of the level's functional at PySCF's minao density, on the level's
      grid and with its density fitting; one Fock build.
    * ``minao-df``: the same with fitted Coulomb and exchange (as the level fits, else with even-tempered
      Gaussians).
    * ``minao-coarse``: ``minao-df`` with the functional on grid level 1.
    * ``minao-step``: a damped SCF step: the Fock matrix at half the minao density plus half the density
      of the orbitals of ``minao-df`` on grid level 2; two Fock builds, one of them cheap.
    * ``sap``: ``T + V_SAP``, kinetic energy plus a superposition of atomic potentials (which holds
      the nuclear attraction); all-electron molecules only.

    Returns:
        ``[nao, nao]``, or ``[2, nao, nao]`` for an unrestricted level (equal spins).

    Raises:
        InputError: unknown name, or ``sap`` for an element with an ECP.

    Source: Lehtola, J. Chem. Theory Comput. 15, 1593 (2019) for SAP.
    """
    return reference_focks(mole, level, [name])[name]


def reference_focks(mole: gto.Mole, level: LevelConfig, names: Sequence[str]) -> dict[str, Array]:
    """Return several of :func:`reference_fock` by name, which share integrals and grid."""
    if set(names) <= set(OF_ATOMS):
        n_spins = 2 if method_for(level, int(mole.spin)) == "uks" else 1
        found = {name: OF_ATOMS[name](mole, level.xc) for name in names}
        return {name: house(symmetric(_spins(matrix, n_spins)), mole) for name, matrix in found.items()}
    mf = mean_field(mole, level)
    if any(FOCK_BUILDS.get(name) for name in names):
        # As beside a label: the matrix is the same to the last bit. Two builds take two thirds of the time.
        keep_fitted_integrals(mf, level)
    return {name: reference_of(mf, name) for name in names}


def reference_of(mf: Any, name: str) -> Array:
    """Return :func:`reference_fock` of a mean field; leaves its grid and integrals ready for use."""
    if name not in REFERENCES:
        raise InputError(f"unknown reference {name!r}: known are {', '.join(REFERENCES)}")
    return house(symmetric(REFERENCES[name](mf)), mf.mol)


def reference_gradient(mole: gto.Mole, level: LevelConfig, name: str, weights: Array) -> Array:
    """Return ``d/dR_A Σ X_µν H₀_µν`` of a cheap Fock matrix, X being held; what forces need of H₀.

    Args:
        mole: any molecule.
        level: level of theory.
        name: of a reference that has derivatives: ``minao-lite``.
        weights: X, of the shape of :func:`reference_fock`, house order.

    Returns:
        ``[n_atoms, 3]``, Eh/bohr times the unit of X; see
        :func:`helmol.dft.lite_gradient.minao_lite_gradient`.

    Raises:
        InputError: another reference, or weights of another shape.
    """
    if name != "minao-lite":
        raise InputError(
            f"the reference {name!r} has no derivatives with respect to positions: minao-lite has"
        )
    n_spins, n = 2 if method_for(level, int(mole.spin)) == "uks" else 1, int(mole.nao)
    wanted = (n, n) if n_spins == 1 else (2, n, n)
    if np.shape(weights) != wanted:
        raise InputError(f"the weights have the shape {np.shape(weights)}: expected {wanted}")
    total = from_house(np.asarray(weights).reshape(-1, n, n).sum(axis=0), house_shells(mole), "pyscf")
    return minao_lite_gradient(mole, level.xc, total)


def _spins(matrix: Array, n_spins: int) -> Array:
    """Return a matrix for one set of orbitals, or twice for alpha and beta."""
    return matrix if n_spins == 1 else np.array([matrix, matrix])


def on_grid(mf: Any, level: int) -> Any:
    """Return a copy of a mean field with a grid of this level, or of its own if that is coarser."""
    other = mf.copy()
    other.grids = dft.gen_grid.Grids(mf.mol)
    other.grids.level = min(level, mf.grids.level)
    return other


def _of_atoms(name: str) -> Callable[[Any], Array]:
    """Return the function that makes a matrix of superposed atoms for a mean field, PySCF order."""

    def made(mf: Any) -> Array:
        return _spins(OF_ATOMS[name](mf.mol, mf.xc), 2 if isinstance(mf, dft.uks.UKS) else 1)

    return made


def _minao(mf: Any) -> Any:
    """Return the Fock matrix at the minao density, PySCF order."""
    return mf.get_fock(dm=minao_density(mf))


def _sap(mf: Any) -> Any:
    """Return ``T + V_SAP``, PySCF order."""
    if mf.mol.has_ecp():
        raise InputError("the reference 'sap' has no potentials for elements with an ECP: use 'minao'")
    # An unrestricted mean field returns the potential twice.
    return mf.mol.intor_symmetric("int1e_kin") + np.asarray(mf.get_vsap())


def _minao_df(mf: Any) -> Any:
    """Return the Fock matrix at the minao density with fitted Coulomb (and exchange), PySCF order."""
    if hasattr(mf, "with_df"):
        return _minao(mf)
    fitted = mf.density_fit()
    # As in mean_field: else exchange misses the fast occupied-orbital route.
    fitted.direct_scf = False
    return _minao(fitted)


def _minao_coarse(mf: Any) -> Any:
    """Return :func:`_minao_df` with the functional on a coarse grid, PySCF order."""
    return _minao_df(on_grid(mf, COARSE_GRID_LEVEL))


def _minao_step(mf: Any) -> Any:
    """Return the Fock matrix after a damped SCF step from the minao density, PySCF order."""
    energies, orbitals = mf.eig(_minao_df(on_grid(mf, STEP_GRID_LEVEL)), mf.get_ovlp())
    stepped = mf.make_rdm1(orbitals, mf.get_occ(energies, orbitals))
    return mf.get_fock(dm=(1 - STEP) * np.asarray(minao_density(mf)) + STEP * np.asarray(stepped))


COARSE_GRID_LEVEL = 1
"""PySCF grid level of ``minao-coarse``."""
STEP_GRID_LEVEL = 2
"""PySCF grid level of the first half of ``minao-step``; level 1 costs a fifth less and moves the result by
0.7 µEh (H₂O) and 0.5 µEh (ethanol), level 2 by 0.03 and 0.01."""
STEP = 0.5
"""Share of the new density in ``minao-step``: a whole step overshoots by about as much as there is to go
(ethanol, PBE/def2-SVP: mean |F − H₀| 6.3 mEh before, 6.0 after a whole step, 1.2 after half a step)."""

OF_ATOMS: dict[str, Callable[[gto.Mole, str], Array]] = {
    "minao-lite": minao_lite,
    "minao-hartree": minao_hartree,
}
"""The references that need no mean field, of a molecule and a functional."""

FOCK_BUILDS = {
    **dict.fromkeys(OF_ATOMS, 0), "minao": 1, "minao-df": 1, "minao-coarse": 1, "minao-step": 2, "sap": 0,
}  # fmt: skip
"""Fock builds, of whatever cost, that each reference takes."""

REFERENCES: dict[str, Callable[[Any], Any]] = {
    **{name: _of_atoms(name) for name in OF_ATOMS},
    "minao": _minao,
    "minao-df": _minao_df,
    "minao-coarse": _minao_coarse,
    "minao-step": _minao_step,
    "sap": _sap,
}
"""Cheap Fock matrices by name."""
