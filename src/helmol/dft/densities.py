"""Densities of superposed atoms, from which cheap Fock matrices start."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.linalg
from pyscf import dft, gto, lib
from pyscf.scf import atom_hf, hf

from helmol.arrays import Array
from helmol.errors import InputError

ATOMIC_TOLERANCE = 1e-12
"""Convergence of the energy of an atom, Eh."""
ATOMIC_CYCLES = 200
"""SCF cycles after which an atom counts as failed; those of def2 sets take at most 15."""
HEAVIEST_OF_MINAO = 96
"""Atomic number up to which there are such orbitals; PySCF takes its guess ``atom`` for heavier atoms."""
LOST_ELECTRONS = 1e-8
"""Largest error of an atom's number of electrons."""


def minao_density(mf: Any) -> Any:
    """Return the superposition of atomic densities that the references ``minao…`` start from, PySCF order.

    An atom without effective core potential has PySCF's minao density: occupied orbitals of an ANO basis,
    projected onto the basis of the molecule. Where a potential replaces the core PySCF does the same, and
    loses electrons: of HI in def2-SVP it keeps 24.31 of 26. Such an atom has the density of its spherically
    averaged Hartree–Fock state in its own basis instead (:func:`hartree_fock_atom`), with all its electrons.

    Args:
        mf: PySCF's RKS or UKS object, of which only the molecule is used.

    Returns:
        ``[nao, nao]``, with orbitals and occupations attached as PySCF does, or ``[2, nao, nao]`` with
        equal spins for an unrestricted mean field.

    Raises:
        InputError: an element has no such density.
    """
    density = superposed_density(mf.mol)
    # Without breaking the symmetry: the matrix must rotate with the molecule.
    return np.array([density, density]) / 2 if isinstance(mf, dft.uks.UKS) else density


def superposed_density(mole: gto.Mole) -> Any:
    """Return :func:`minao_density` of both spins together, ``[nao, nao]``."""
    if any(mole.atom_charge(k) > HEAVIEST_OF_MINAO for k in range(mole.natm)):
        return hf.init_guess_by_minao(mole)
    coefficients, occupations = zip(_all_electron_orbitals(mole), *_atoms_with_potential(mole), strict=True)
    orbitals, occupied = np.hstack(coefficients), np.hstack(occupations)
    density = (orbitals * occupied) @ orbitals.T
    return lib.tag_array(density, mo_coeff=orbitals, mo_occ=occupied)


def _all_electron_orbitals(mole: gto.Mole) -> tuple[Array, Array]:
    """Return PySCF's minao orbitals ``[nao, n]`` and occupations ``[n]`` of the atoms without potential.

    They are those of ``pyscf.scf.hf.init_guess_by_minao``, which spends ten times as long on large molecules
    and reads its basis from a file each time.
    """
    # A ghost has functions and no electrons.
    atoms = [k for k in range(mole.natm) if mole.atom_charge(k) and not mole.atom_nelec_core(k)]
    if not atoms:
        return np.empty((int(mole.nao), 0)), np.empty(0)
    symbols = [mole.atom_pure_symbol(k) for k in atoms]
    there = gto.Mole()
    there.verbose, there.unit, there.spin = 0, "Bohr", None
    there.atom = [(symbol, mole.atom_coord(k)) for symbol, k in zip(symbols, atoms, strict=True)]
    there.basis = {symbol: _thawed(_minao_of(symbol)[0]) for symbol in symbols}
    there.build(dump_input=False, parse_arg=False)
    overlap = mole.intor_symmetric("int1e_ovlp")
    projected = gto.intor_cross("int1e_ovlp", mole, there)
    try:
        factor = scipy.linalg.cho_factor(overlap, lower=True, check_finite=False)
        orbitals = scipy.linalg.cho_solve(factor, projected, check_finite=False)
    except scipy.linalg.LinAlgError:  # functions that depend on each other
        orbitals = scipy.linalg.solve(overlap, projected)
    return orbitals, np.concatenate([_minao_of(symbol)[1] for symbol in symbols])


@lru_cache(maxsize=128)
def _minao_of(symbol: str) -> tuple[Any, Array]:
    """Return the atomic orbitals with electrons of an element, in PySCF's format, and their occupations.

    Open shells of the ground configuration are filled evenly.
    """
    shells, occupations = [], []
    for shell in gto.basis.load("ano", symbol)[:4]:  # s, p, d, f
        l, *primitives = shell
        full, part = atom_hf.frac_occ(symbol, l)
        filled = [2.0] * full + [part] * (part > 0)
        if filled:
            shells.append([l, *(row[: 1 + len(filled)] for row in primitives)])
            occupations.append(np.repeat(filled, 2 * l + 1))
    found = np.concatenate(occupations)
    found.flags.writeable = False
    return _frozen(shells), found


def _atoms_with_potential(mole: gto.Mole) -> list[tuple[Array, Array]]:
    """Return orbitals ``[nao, n]`` and occupations ``[n]`` of every atom with an effective core potential."""
    found = []
    for k, (_, _, first, last) in enumerate(mole.aoslice_by_atom()):
        if mole.atom_nelec_core(k):
            _, coefficients, occupations = hartree_fock_atom(*atom_of(mole, k))
            orbitals = np.zeros((int(mole.nao), coefficients.shape[1]))
            orbitals[first:last] = coefficients
            found.append((orbitals, occupations))
    return found


def silence(mf: Any) -> None:
    """Let a mean field say nothing and keep no checkpoint file.

    Mean fields end up in cycles of references: a scratch file that is left to the collector is closed late.
    PySCF makes none where its configuration mutes checkpoint files.
    """
    mf.verbose, mf.chkfile = 0, None
    if (scratch := getattr(mf, "_chkfile", None)) is not None:
        scratch.close()


def atom_of(mole: gto.Mole, atom: int) -> tuple[str, Any, Any]:
    """Return the element, basis and effective core potential of an atom, to be looked up by."""
    symbol, pure = mole.atom_symbol(atom), mole.atom_pure_symbol(atom)
    basis, potential = (_frozen(d.get(symbol, d.get(pure, ()))) for d in (mole._basis, mole._ecp))
    return pure, basis, potential


@lru_cache(maxsize=256)
def hartree_fock_atom(symbol: str, basis: Any, potential: Any) -> tuple[gto.Mole, Array, Array]:
    """Return the neutral, spherically averaged Hartree–Fock atom of an element in a basis.

    The shells of the non-relativistic ground configuration are filled evenly, as in PySCF's guess ``atom``.

    Args:
        symbol: of the element.
        basis: in PySCF's format, of tuples.
        potential: the effective core potential likewise, empty for none.

    Returns:
        The atom, coefficients ``[n_ao, n_ao]`` of its orbitals, PySCF order, and occupations ``[n_ao]``.

    Raises:
        InputError: PySCF knows no configuration for what is left beside the core, or does not converge.
    """
    mole = gto.Mole()
    mole.verbose, mole.spin, mole.atom = 0, None, [(symbol, (0.0, 0.0, 0.0))]
    mole.basis = {symbol: _thawed(basis)}
    mole.ecp = {symbol: _thawed(potential)} if potential else {}
    mole.build(dump_input=False, parse_arg=False)
    with warnings.catch_warnings():
        # PySCF's atoms use a function that PySCF calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        atom = (atom_hf.AtomHF1e if mole.nelectron == 1 else atom_hf.AtomSphAverageRHF)(mole)
    silence(atom)
    atom.conv_tol, atom.max_cycle = ATOMIC_TOLERANCE, ATOMIC_CYCLES
    try:
        atom.kernel()
    except (AssertionError, RuntimeError, IndexError) as error:
        # What PySCF raises for a core that it has no configuration of, or a basis without room for a shell.
        reason = error or "its basis is too small"
        raise InputError(f"there is no atomic density of {symbol}: {reason}") from error
    orbitals, occupations = np.asarray(atom.mo_coeff), np.asarray(atom.mo_occ)
    electrons = float(occupations.sum())
    if not atom.converged or abs(electrons - mole.nelectron) > LOST_ELECTRONS:
        raise InputError(
            f"there is no atomic density of {symbol}: PySCF's atom has {electrons:.3f} electrons of "
            f"{mole.nelectron}, converged: {atom.converged}"
        )
    for array in (orbitals, occupations):
        array.flags.writeable = False
    return mole, orbitals, occupations


def _frozen(values: Any) -> Any:
    """Return nested lists as nested tuples, which can be looked up by."""
    return (
        tuple(_frozen(value) for value in values) if isinstance(values, list | tuple | np.ndarray) else values
    )


def _thawed(values: Any) -> Any:
    """Return nested tuples as nested lists, as PySCF has them."""
    return [_thawed(value) for value in values] if isinstance(values, tuple) else values
