"""Door from a molecule to PySCF's ``Mole`` and back, with the basis and ECP checked."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from pyscf import gto
from scipy.linalg import eigh

from helmol.basis import BasisSet
from helmol.dft.dispersion import check_dispersion
from helmol.dft.level import LevelConfig
from helmol.elements import SYMBOLS, atomic_number
from helmol.errors import InputError
from helmol.system import Molecule

ALL_ELECTRON_SHARE = 0.5
"""A basis that describes the nucleus reaches at least this share of −Z²/2, the energy of one
electron at the bare nucleus: all-electron sets reach 0.93 and more (relativistic ones 0.58 at
uranium), valence sets of heavy elements at most 0.15, uncontracted ones 0.45."""


def build_mole(molecule: Molecule, level: LevelConfig) -> gto.Mole:
    """Build PySCF's ``Mole`` (bohr, spherical functions, silent) of a molecule.

    Raises:
        InputError: unknown basis or ECP, an element that it (or the dispersion) does not have, a
            valence basis without its ECP, or electrons that do not go with the spin.
    """
    like = _mole_like(tuple(molecule.numbers.tolist()), level, molecule.charge, molecule.spin)
    mole = like.set_geom_(np.array(molecule.positions), unit="Bohr", inplace=False)
    # What it shares with others is never changed in place; where it talks to is what is there now.
    mole._atm, mole._bas, mole.stdout = like._atm.copy(), like._bas.copy(), sys.stdout
    return mole


@lru_cache(maxsize=32)
def _mole_like(numbers: tuple[int, ...], level: LevelConfig, charge: int, spin: int) -> gto.Mole:
    """Build the ``Mole`` of some atoms, wherever they are: once for all conformers."""
    atoms = [(SYMBOLS[number], (float(k), 0.0, 0.0)) for k, number in enumerate(numbers)]
    return _build(atoms, set(numbers), level, charge=charge, spin=spin)


def basis_set(level: LevelConfig, numbers: Iterable[int]) -> BasisSet:
    """Return the basis of some elements as PySCF has it.

    Raises:
        InputError: as :func:`build_mole`; nothing is computed, so it serves as a check before work.
    """
    return BasisSet.from_mole(elements_mole(level, numbers), level.basis)


def elements_without(level: LevelConfig, numbers: Iterable[int]) -> dict[int, str]:
    """Return by atomic number why a level cannot be used for an element; empty if it can for all."""
    found = {}
    for number in sorted({int(n) for n in numbers}):
        try:
            basis_set(level, [number])
        except InputError as error:
            found[number] = str(error)
    return found


def elements_mole(level: LevelConfig, numbers: Iterable[int]) -> gto.Mole:
    """Build a ``Mole`` of one atom of each element, for what depends on elements alone.

    Raises:
        InputError: as :func:`build_mole`.
    """
    elements = {int(n) for n in numbers}
    if not elements:
        raise InputError("a basis set of no elements was asked for")
    # Far apart: the functions do not depend on it, but coinciding nuclei are an error.
    atoms = [(SYMBOLS[number], (20.0 * k, 0.0, 0.0)) for k, number in enumerate(sorted(elements))]
    return _build(atoms, elements, level, charge=0, spin=None)


def molecule_from_mole(mol: gto.Mole) -> Molecule:
    """Return the molecule of a built ``Mole`` (with or without ECPs).

    Raises:
        InputError: the ``Mole`` is not built, is periodic, has ghost atoms, or states something that changes
            the Hamiltonian of the molecule: nuclei that are not points of charge Z, pseudopotentials that are
            no ECPs, a range-separated Coulomb operator, a number of electrons of its own.
    """
    if not mol._built:
        raise InputError("the gto.Mole is not built: call mol.build() first")
    if hasattr(mol, "lattice_vectors"):
        raise InputError("the pbc.gto.Cell is periodic: helmol knows molecules only")
    symbols = [mol.atom_pure_symbol(k) for k in range(mol.natm)]
    for k, symbol in enumerate(symbols):
        if symbol.upper().startswith(("GHOST", "X")) and symbol.upper() != "XE":
            raise InputError(f"atom {k + 1} of the gto.Mole is a ghost atom: real ones are needed")
    numbers = [atomic_number(symbol) for symbol in symbols]
    _refuse_other_nuclei(mol, numbers)
    if mol.omega:
        raise InputError(
            f"the gto.Mole has a range-separated Coulomb operator (mol.omega = {mol.omega:g}): set it to 0"
        )
    electrons = int(mol.atom_charges().sum()) - mol.charge
    if mol.nelectron != electrons:
        raise InputError(
            f"the gto.Mole was given {mol.nelectron} electrons, its nuclei and charge {mol.charge} make "
            f"{electrons}: set mol.charge and mol.spin instead"
        )
    positions = np.array(mol.atom_coords(unit="Bohr"))
    return Molecule(np.array(numbers), positions, mol.charge, mol.spin)


def _refuse_other_nuclei(mol: gto.Mole, numbers: list[int]) -> None:
    """Raise unless all nuclei are points of charge Z minus the core electrons of their ECP."""
    if mol._pseudo:
        names = ", ".join(sorted(mol._pseudo))
        raise InputError(f"the gto.Mole has GTH pseudopotentials ({names}): helmol knows ECPs only")
    for k, number in enumerate(numbers):
        symbol, model = SYMBOLS[number], int(mol._atm[k, gto.NUC_MOD_OF])
        if model == gto.NUC_GAUSS:
            raise InputError(
                f"atom {k + 1} ({symbol}) of the gto.Mole has a nucleus of finite size (nucmod): helmol "
                "knows point charges only"
            )
        ecp = mol._ecp.get(mol.atom_symbol(k), mol._ecp.get(mol.atom_pure_symbol(k)))
        wanted = number - (int(ecp[0]) if ecp else 0)
        if mol.atom_charge(k) != wanted:
            raise InputError(
                f"atom {k + 1} ({symbol}) of the gto.Mole has the nuclear charge {mol.atom_charge(k):g}, not "
                f"{wanted}: helmol knows real nuclei only"
            )


def other_functions(mol: gto.Mole, level: LevelConfig) -> str | None:
    """Return in words how basis or effective core potentials of a ``Mole`` differ from those of a level.

    Returns:
        ``None`` if they are the same functions and potentials, whatever they are called.

    Raises:
        InputError: as :func:`build_mole`, for the elements of ``mol``.
    """
    if mol.cart:
        return "it has Cartesian functions (mol.cart=True), spherical ones are wanted"
    wanted = elements_mole(level, {atomic_number(mol.atom_pure_symbol(k)) for k in range(mol.natm)})
    models = {wanted.atom_pure_symbol(k): k for k in range(wanted.natm)}
    for k in range(mol.natm):
        symbol = mol.atom_pure_symbol(k)
        where = f"atom {k + 1} ({symbol})"
        mine, other = _potential(mol, k), _potential(wanted, models[symbol])
        if mine != other:
            if not mine:
                return (
                    f"{where} has no effective core potential, the model's level has {level.ecp_name} for it"
                )
            if not other:
                return f"{where} has an effective core potential, the model's level has none for it"
            return f"{where} has another effective core potential than {level.ecp_name}"
        shells, model = _shells(mol, k), _shells(wanted, models[symbol])
        if [l for l, *_ in shells] != [l for l, *_ in model]:
            letters = ["".join("spdfghik"[l] for l, *_ in found) for found in (shells, model)]
            return f"{where} has the shells {letters[0]}, {level.basis} has {letters[1]}"
        if shells != model:
            return f"{where} has the shells of {level.basis} with other exponents or coefficients"
    return None


def _shells(mol: gto.Mole, atom: int) -> list[tuple[int, str]]:
    """Return angular momentum and text of the functions of every shell of an atom, contractions apart."""
    found = []
    for shell in mol.atom_shell_ids(atom):
        values = np.concatenate([mol.bas_exp(shell), mol.bas_ctr_coeff(shell).ravel()])
        text = ",".join(f"{value:.8e}" for value in values)
        found += [(int(mol.bas_angular(shell)), text)] * int(mol.bas_nctr(shell))
    return found


def _potential(mol: gto.Mole, atom: int) -> str:
    """Return the effective core potential of an atom as text, empty if it has none."""
    ecp = mol._ecp.get(mol.atom_symbol(atom), mol._ecp.get(mol.atom_pure_symbol(atom)))
    return repr(ecp) if ecp else ""


def _build(
    atoms: list[Any], elements: set[int], level: LevelConfig, *, charge: int, spin: int | None
) -> gto.Mole:
    """Build a ``Mole`` with basis and ECP looked up element by element."""
    check_dispersion(elements, level)
    basis, ecp = {}, {}
    for number in sorted(elements):
        symbol = SYMBOLS[number]
        basis[symbol] = _basis_of(level.basis, symbol)
        potential = _ecp_of(level.ecp_name, symbol, level.ecp_name == level.basis)
        if potential:
            ecp[symbol] = potential
        else:
            _refuse_valence_basis(level, number)
    mole = gto.Mole()
    mole.verbose, mole.unit, mole.cart = 0, "Bohr", False
    mole.atom, mole.basis, mole.ecp = atoms, basis, ecp
    mole.charge, mole.spin, mole.max_memory = charge, spin, level.max_memory_mb
    try:
        mole.build(dump_input=False, parse_arg=False)
    except RuntimeError as error:
        raise InputError(f"PySCF refuses the molecule: {' '.join(str(error).split())}") from error
    return mole


@lru_cache(maxsize=512)
def _basis_of(name: str, symbol: str) -> Any:
    """Return PySCF's parsed basis of one element."""
    found = find_basis(name, symbol)
    if not found:
        known = any(find_basis(name, other) for other in ("H", "C", "I"))
        what = f"the basis {name!r} has no functions for {symbol}" if known else f"unknown basis {name!r}"
        raise InputError(f"{what}: name one that PySCF has for every element, such as def2-svp")
    return found


def find_basis(name: str, symbol: str) -> Any:
    """Return PySCF's parsed basis of one element, or ``None``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gto.format_basis({symbol: name})[symbol]
    except Exception:  # PySCF raises half a dozen types here, from KeyError to OSError.
        return None


@lru_cache(maxsize=512)
def _ecp_of(name: str | None, symbol: str, optional: bool) -> Any:
    """Return PySCF's parsed ECP of one element, empty where the set has none for it."""
    if name is None:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return gto.basis.load_ecp(name, symbol)
    except Exception as error:
        # Most basis sets come without an ECP of their name; only a set asked for by name must exist.
        if optional:
            return []
        raise InputError(f"unknown effective core potential {name!r}: name one that PySCF has") from error


def _refuse_valence_basis(level: LevelConfig, number: int) -> None:
    """Raise if the basis leaves out a core that no ECP replaces."""
    share = _core_share(level.basis, number)
    if share < ALL_ELECTRON_SHARE:
        raise InputError(
            f"the basis {level.basis!r} of {SYMBOLS[number]} describes valence electrons only "
            f"({share:.0%} of the energy of a 1s electron) and no effective core potential goes with it: "
            "set level.ecp, or take an all-electron basis"
        )


@lru_cache(maxsize=512)
def _core_share(name: str, number: int) -> float:
    """Return the lowest energy of one electron at the bare nucleus over −Z²/2."""
    symbol = SYMBOLS[number]
    mole = gto.Mole()
    mole.verbose, mole.spin = 0, None
    mole.atom, mole.basis = [(symbol, (0.0, 0.0, 0.0))], {symbol: _basis_of(name, symbol)}
    mole.build(dump_input=False, parse_arg=False)
    hcore = mole.intor("int1e_kin") + mole.intor("int1e_nuc")
    lowest = eigh(hcore, mole.intor("int1e_ovlp"), eigvals_only=True)[0]
    return float(-2.0 * lowest / number**2)
