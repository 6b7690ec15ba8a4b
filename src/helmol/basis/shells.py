"""What a basis set is to helmol: per element a list of shells, and a hash of their functions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from helmol.arrays import Int64, IntArray
from helmol.elements import SYMBOLS, some_symbols
from helmol.errors import InputError

LETTERS = "spdfghiklmnoq"
"""Names of the angular momenta."""

Signature = tuple[int, ...]
"""Angular momentum of each shell of an atom, in order; contractions are shells of their own.
Elements with equal signatures share the tables and the head's weights."""


def signature_nao(signature: Signature) -> int:
    """Return the number of atomic orbitals, ``Σ (2l+1)``."""
    return sum(2 * l + 1 for l in signature)


def shells_text(shells: Signature) -> str:
    """Return shells as chemists write them, ``[3s2p1d]``."""
    counts = Counter(sorted(shells))
    return f"[{''.join(f'{n}{LETTERS[l]}' for l, n in counts.items())}]"


@dataclass(frozen=True)
class ElementBasis:
    """Hold the shells of one element.

    Attributes:
        shells: angular momentum of each shell, PySCF's order.
        core_electrons: electrons replaced by an effective core potential.
        hash: of exponents, coefficients and ECP; decides whether two bases are the same.
    """

    shells: Signature
    core_electrons: int
    hash: str

    def difference(self, other: ElementBasis) -> str | None:
        """Return in words what another basis of the element has instead, ``None`` if it is the same."""
        if other == self:
            return None
        if other.core_electrons != self.core_electrons:
            has, wanted = (
                "no effective core potential" if not n else f"an effective core potential for {n} electrons"
                for n in (other.core_electrons, self.core_electrons)
            )
            return f"has {has}, expected {wanted}"
        if other.shells != self.shells:
            has, wanted = shells_text(other.shells), shells_text(self.shells)
            return f"has the shells {has}, expected {wanted}" + (" in another order" if has == wanted else "")
        what = " or another effective core potential" if self.core_electrons else ""
        return (
            f"has the shells {shells_text(self.shells)} with other exponents or coefficients{what} "
            f"(hash {other.hash}, expected {self.hash})"
        )


@dataclass(frozen=True)
class BasisSet:
    """Hold the shells of every element of a data set.

    Attributes:
        name: what the user called it, lower case; for people, never for comparisons.
        elements: by atomic number.
    """

    name: str
    elements: Mapping[int, ElementBasis]

    def __repr__(self) -> str:
        return f"BasisSet({self.name!r}, {some_symbols(self.elements)})"

    @classmethod
    def from_mole(cls, mol: Any, name: str) -> BasisSet:
        """Read the basis of a built ``pyscf.gto.Mole`` (spherical functions, any contraction).

        Raises:
            InputError: Cartesian functions, ghost atoms, or one element with two bases.
        """
        if mol.cart:
            raise InputError(
                "Cartesian basis functions (mol.cart=True) are not supported: use spherical ones"
            )
        shells_of_atom: list[list[int]] = [[] for _ in range(mol.natm)]
        for shell, atom in enumerate(mol._bas[:, 0].tolist()):
            shells_of_atom[atom].append(shell)
        elements: dict[int, ElementBasis] = {}
        # Atoms of one element share the numbers of their functions in PySCF's tables.
        known: dict[tuple[object, ...], ElementBasis] = {}
        for atom in range(mol.natm):
            symbol = mol.atom_pure_symbol(atom)
            if symbol.upper().startswith(("GHOST", "X")) and symbol.upper() != "XE":
                raise InputError(f"atom {atom + 1} is a ghost atom: helmol needs real atoms")
            core = int(mol.atom_nelec_core(atom))
            number = int(mol.atom_charge(atom)) + core
            key = mol.atom_symbol(atom), core, mol._bas[shells_of_atom[atom], 1:].tobytes()
            if key not in known:
                known[key] = _element_basis(mol, atom, shells_of_atom[atom], core)
            entry = known[key]
            if (what := elements.setdefault(number, entry).difference(entry)) is not None:
                first = next(k for k in range(atom) if mol.atom_charge(k) + mol.atom_nelec_core(k) == number)
                raise InputError(
                    f"two atoms of {SYMBOLS[number]} have different basis sets: atom {atom + 1} {what} as in "
                    f"atom {first + 1}; one basis per element is needed"
                )
        return cls(name.lower(), dict(sorted(elements.items())))

    def merged(self, other: BasisSet) -> BasisSet:
        """Return the union of two bases that agree where they overlap.

        Raises:
            InputError: an element has different functions in the two.
        """
        for number in self.elements.keys() & other.elements.keys():
            if (what := self.elements[number].difference(other.elements[number])) is not None:
                raise InputError(
                    f"the basis of {SYMBOLS[number]} differs between {self.name!r} and {other.name!r}: in "
                    f"the second it {what}"
                )
        return BasisSet(self.name, dict(sorted({**self.elements, **other.elements}.items())))

    def difference(self, other: BasisSet) -> str | None:
        """Return in words how another basis differs for the elements of this one, ``None`` if it does not."""
        for number, mine in self.elements.items():
            if number not in other.elements:
                return f"{SYMBOLS[number]} has no functions"
            if (what := mine.difference(other.elements[number])) is not None:
                return f"{SYMBOLS[number]} {what}"
        return None

    def part(self, numbers: Iterable[int] | Int64[IntArray, " n"]) -> BasisSet:
        """Return the basis of those of some elements that are there."""
        wanted = {int(number) for number in numbers}
        return BasisSet(self.name, {z: entry for z, entry in self.elements.items() if z in wanted})

    def signature(self, number: int) -> Signature:
        """Return the shells of an element.

        Raises:
            InputError: the element is not in this basis.
        """
        if number not in self.elements:
            known = ", ".join(SYMBOLS[n] for n in self.elements)
            raise InputError(f"element {SYMBOLS[number]} is not in the basis {self.name!r} (it has {known})")
        return self.elements[number].shells

    def shells(self, numbers: Sequence[int] | Int64[IntArray, " n_atoms"]) -> list[int]:
        """Return the angular momenta of all shells of a molecule, atom after atom."""
        return [l for number in numbers for l in self.signature(int(number))]

    def offsets(
        self, numbers: Sequence[int] | Int64[IntArray, " n_atoms"]
    ) -> Int64[IntArray, " n_atoms_and_end"]:
        """Return the first AO of each atom and, last, the number of AOs, ``[n_atoms + 1]``."""
        sizes = [signature_nao(self.signature(int(number))) for number in numbers]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

    def n_electrons(self, numbers: Sequence[int] | Int64[IntArray, " n_atoms"], charge: int) -> int:
        """Return the number of electrons outside the effective core potentials."""
        return int(sum(int(n) - self.elements[int(n)].core_electrons for n in numbers)) - charge

    @property
    def lmax(self) -> int:
        """Largest angular momentum of a shell."""
        return max(max(element.shells) for element in self.elements.values())

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return {
            "name": self.name,
            "elements": {
                str(number): {"shells": list(e.shells), "core_electrons": e.core_electrons, "hash": e.hash}
                for number, e in self.elements.items()
            },
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BasisSet:
        """Rebuild from :meth:`to_json`."""
        return cls(
            data["name"],
            {
                int(number): ElementBasis(tuple(e["shells"]), int(e["core_electrons"]), e["hash"])
                for number, e in data["elements"].items()
            },
        )


def _element_basis(mol: Any, atom: int, places: list[int], core: int) -> ElementBasis:
    """Return the functions of one atom, which are those of some shells of a molecule."""
    shells: list[int] = []
    digest = hashlib.sha256()
    for shell in places:
        l = int(mol.bas_angular(shell))
        shells += [l] * int(mol.bas_nctr(shell))
        for values in (mol.bas_exp(shell), mol.bas_ctr_coeff(shell)):
            digest.update(f"{l}:".encode() + _digits(values))
    if core:
        digest.update(_ecp_text(mol, atom).encode())
    return ElementBasis(tuple(shells), core, digest.hexdigest()[:16])


def _digits(values: npt.ArrayLike) -> bytes:
    """Return numbers as text of 9 significant digits, so that a hash survives rounding noise."""
    return ",".join(f"{value:.8e}" for value in np.asarray(values).ravel()).encode()


def _ecp_text(mol: Any, atom: int) -> str:
    """Return the parsed effective core potential of an atom as text."""
    ecp = mol._ecp
    return repr(ecp.get(mol.atom_symbol(atom), ecp.get(mol.atom_pure_symbol(atom))))
