"""What a model has learnt, and so what it may be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from helmol.basis import BasisSet
from helmol.elements import SYMBOLS, some_symbols
from helmol.errors import DomainError
from helmol.system import LevelOfTheory, Molecule


@dataclass(frozen=True)
class Domain:
    """Hold the level of theory, basis, target, charges and spins that a model was trained on.

    ``states`` are the charges and spins that occurred together; empty: all combinations (older models).
    ``pairs`` are the elements that occurred together in a molecule, by atomic number, the smaller first; of
    two atoms of one element twice the same. Empty: not known (older models).
    """

    level: LevelOfTheory
    basis: BasisSet
    target: str
    charges: tuple[int, ...]
    spins: tuple[int, ...]
    states: tuple[tuple[int, int], ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()

    def __repr__(self) -> str:
        what = f"{self.level.label}, {self.target}, {some_symbols(self.basis.elements)}"
        return f"Domain({what}; charges {_join(self.charges)}; spins {_join(self.spins)})"

    @property
    def n_spins(self) -> int:
        """Fock matrices per molecule: 2 for unrestricted labels, else 1."""
        return self.level.n_spins

    def check(self, molecule: Molecule) -> None:
        """Raise DomainError if the molecule's elements, charge or spin were not in the training set."""
        unknown = sorted(set(molecule.numbers.tolist()) - set(self.basis.elements))
        if unknown:
            raise DomainError(
                f"the model has not learnt {', '.join(SYMBOLS[n] for n in unknown)} "
                f"(it knows {', '.join(SYMBOLS[n] for n in self.basis.elements)})"
            )
        if molecule.charge not in self.charges:
            raise DomainError(
                f"the model has not learnt charge {molecule.charge} (it knows {_join(self.charges)})"
            )
        if molecule.spin not in self.spins:
            raise DomainError(
                f"the model has not learnt spin 2S = {molecule.spin} (it knows {_join(self.spins)})"
            )

        if self.states and (molecule.charge, molecule.spin) not in self.states:
            known = ", ".join(f"{charge} with {spin}" for charge, spin in self.states)
            raise DomainError(
                f"the model has learnt charge {molecule.charge} and spin 2S = {molecule.spin}, but not "
                f"together (it knows charge {known})"
            )

    def new_pairs(self, molecule: Molecule) -> tuple[str, ...]:
        """Return the pairs of elements of a molecule that occurred in no training molecule (``N-P``)."""
        if not self.pairs:
            return ()
        new = sorted(element_pairs(molecule) - set(self.pairs))
        return tuple(f"{SYMBOLS[a]}-{SYMBOLS[b]}" for a, b in new)

    def check_basis(self, basis: BasisSet) -> None:
        """Raise DomainError if an element has other basis functions than in training."""
        for number, entry in basis.elements.items():
            if number not in self.basis.elements:
                known = ", ".join(SYMBOLS[n] for n in self.basis.elements)
                raise DomainError(f"the model has not learnt {SYMBOLS[number]} (it knows {known})")
            if (what := self.basis.elements[number].difference(entry)) is not None:
                raise DomainError(
                    f"the basis {basis.name!r} of {SYMBOLS[number]} is not the model's {self.basis.name!r}: "
                    f"it {what}"
                )

    def check_data(self, level: LevelOfTheory, basis: BasisSet, *, energies: bool = False) -> None:
        """Raise DomainError if data of this level and basis cannot be compared with the model.

        Args:
            level: of the data.
            basis: of the data.
            energies: whether energies and forces are compared, too.
        """
        if level.xc_resolved != self.level.xc_resolved:
            raise DomainError(
                f"the data are {level.xc!r} ({level.xc_resolved}), the model learnt {self.level.xc!r} "
                f"({self.level.xc_resolved})"
            )
        if level.method != self.level.method:
            raise DomainError(f"the data are {level.method}, the model learnt {self.level.method}")
        if energies and level.dispersion != self.level.dispersion:
            raise DomainError(
                f"the energies of the data have the empirical dispersion {level.dispersion}, those that the "
                f"model learnt {self.level.dispersion}"
            )
        self.check_basis(basis)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary."""
        return {
            "level": self.level.to_json(),
            "basis": self.basis.to_json(),
            "target": self.target,
            "charges": list(self.charges),
            "spins": list(self.spins),
            "states": [list(state) for state in self.states],
            # Models without them keep their description, and what is derived from it.
            **({"pairs": [list(pair) for pair in self.pairs]} if self.pairs else {}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Domain:
        """Rebuild from :meth:`to_json`."""
        return cls(
            LevelOfTheory.from_json(data["level"]),
            BasisSet.from_json(data["basis"]),
            data["target"],
            tuple(data["charges"]),
            tuple(data["spins"]),
            tuple((charge, spin) for charge, spin in data.get("states", ())),
            tuple((first, second) for first, second in data.get("pairs", ())),
        )


def element_pairs(molecule: Molecule) -> set[tuple[int, int]]:
    """Return the pairs of atomic numbers of two atoms of a molecule, the smaller first."""
    count = Counter(molecule.numbers.tolist())
    twice = {(z, z) for z, n in count.items() if n > 1}
    return twice | {(a, b) for a in count for b in count if a < b}


def _join(values: tuple[int, ...]) -> str:
    return ", ".join(str(value) for value in values)
