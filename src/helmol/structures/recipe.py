"""Random molecules over most of the periodic table: what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from helmol.elements import SYMBOLS, atomic_number
from helmol.errors import InputError
from helmol.structures.settle import SettleConfig

NOBLE_GASES = (2, 10, 18, 36, 54)

ELEMENTS = tuple(z for z in range(1, 84) if not (21 <= z <= 30 or 57 <= z <= 71))
"""H to Bi without the first row of transition metals (Sc–Zn) and the lanthanides (La–Lu): 58."""

REPEATED = (5, 9, 14, 15, 16, 17, 32, 33, 34, 35, 51, 52, 53)
"""Elements dealt to a molecule with several atoms: no metals, whose clusters have open shells or no gap."""

FILLERS: Mapping[int, float] = {1: 0.46, 6: 0.28, 7: 0.10, 8: 0.16}
"""Elements that molecules consist of anyway, and their shares among the filling atoms."""


class RandomConfig(SettleConfig):
    """Set a recipe of random closed-shell molecules over the periodic table."""

    n: int = Field(ge=1, le=10_000_000)
    """Molecules to make."""

    min_atoms: int = Field(default=5, ge=2, le=500)
    """Fewest atoms."""

    max_atoms: int = Field(default=30, ge=2, le=500)
    """Most atoms; sizes are spread evenly on a logarithmic scale."""

    piece_atoms: int = Field(default=16, ge=5, le=500)
    """Larger molecules are packed from pieces of up to this many atoms, each grown and relaxed by itself; one
    of them holds the dealt elements."""

    elements: tuple[str, ...] | None = None
    """Chemical symbols; ``null`` takes the 58 elements H to Bi without Sc–Zn and La–Lu."""

    noble_gases: bool = False
    """Whether ``elements: null`` includes He, Ne, Ar, Kr and Xe."""

    filler: float = Field(default=0.6, ge=0, le=1)
    """Share of atoms that are H, C, N or O; the rest are elements dealt in turn, each in equally many
    molecules."""

    charged: float = Field(default=0.2, ge=0, le=1)
    """Share of molecules with charge +1 or −1."""

    @field_validator("elements")
    @classmethod
    def _known(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for symbol in value or ():
            try:
                if atomic_number(symbol) > 86:
                    raise ValueError(f"GFN2-xTB has no parameters for {symbol}, only up to Rn")
            except InputError as error:
                raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _sizes(self) -> RandomConfig:
        if self.max_atoms < self.min_atoms:
            raise ValueError("max_atoms is smaller than min_atoms")
        if self.elements is not None and not self.elements:
            raise ValueError("elements is empty: name some, or set it to null")
        return self

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers of the elements to use."""
        if self.elements is not None:
            return tuple(sorted({atomic_number(symbol) for symbol in self.elements}))
        return tuple(z for z in ELEMENTS if self.noble_gases or z not in NOBLE_GASES)


@dataclass(frozen=True)
class Composition:
    """Hold what one molecule must contain; the rest is drawn anew with each attempt.

    Attributes:
        dealt: atomic numbers of the atoms that were dealt to it.
        n_atoms: atoms in all.
        charge: asked for; a molecule without hydrogen may have to differ by one.
        pieces: what a large molecule is packed from; together they have its atoms and charge.
    """

    dealt: tuple[int, ...]
    n_atoms: int
    charge: int
    pieces: tuple[Composition, ...] = ()


def compositions(config: RandomConfig, *, seed: int = 0) -> list[Composition]:
    """Deal elements, sizes and charges to all molecules of a recipe.

    Every element that is no filler is dealt to equally many molecules (± 1), like cards of a deck that is
    shuffled when it is empty: the histogram over molecules is flat by construction.
    """
    random = np.random.default_rng([seed, 1])
    guests = [z for z in config.numbers if z not in FILLERS]
    deck: list[int] = []
    dealt_all: list[Composition] = []
    for _ in range(config.n):
        low, high = np.log([config.min_atoms - 0.5, config.max_atoms + 0.5])
        size = int(np.clip(np.rint(np.exp(random.uniform(low, high))), config.min_atoms, config.max_atoms))
        n_pieces = -(-size // config.piece_atoms)
        sizes = [size // n_pieces + (k < size % n_pieces) for k in range(n_pieces)]
        # One piece holds the dealt elements, if there are others to fill the rest: many together have no gap.
        only = len(guests) == len(config.numbers)
        held = [guests if k == 0 or only else [] for k in range(n_pieces)]
        parts = [_dealt(n, some, deck, config, random) for n, some in zip(sizes, held, strict=True)]
        charge = int(random.choice([-1, 1])) if random.uniform() < config.charged else 0
        pieces = tuple(
            Composition(part, n, 0 if k else charge)
            for k, (part, n) in enumerate(zip(parts, sizes, strict=True))
        )
        if n_pieces == 1:
            dealt_all += pieces
        else:
            dealt_all.append(Composition(tuple(sorted(sum(parts, ()))), size, charge, pieces))
    return dealt_all


def _dealt(
    size: int, guests: list[int], deck: list[int], config: RandomConfig, random: np.random.Generator
) -> tuple[int, ...]:
    """Deal elements to a molecule or piece of this many atoms, from the deck, which is filled when empty."""
    if not guests:
        return ()
    has_fillers = len(guests) < len(config.numbers)
    n_dealt = max(round(size * (1 - config.filler)), 1) if has_fillers else size
    # A handful of different elements, several atoms of each: molecules, not a zoo.
    n_kinds = min(n_dealt, int(random.integers(1, 5)), len(guests))
    kinds: list[int] = []
    while len(kinds) < n_kinds:
        if not deck:
            deck += random.permutation(guests).tolist()
        kinds.append(_next_card(deck, kinds))
    several = [z for z in kinds if z in REPEATED or not has_fillers]
    extra = random.choice(several, n_dealt - n_kinds).tolist() if several and n_dealt > n_kinds else []
    return tuple(sorted([*kinds, *extra]))


def _next_card(deck: list[int], kinds: list[int]) -> int:
    """Take the last card that is not held already, from a deck that may hold only such."""
    for k in reversed(range(len(deck))):
        if deck[k] not in kinds:
            return deck.pop(k)
    return deck.pop()


def filled(
    composition: Composition, config: RandomConfig, random: np.random.Generator
) -> tuple[list[int], int]:
    """Draw the filling atoms of one attempt such that all electrons are paired.

    A hydrogen atom is added, or taken away, where their number would be odd; without hydrogen among
    the elements the charge changes by one.

    Returns:
        Atomic numbers and charge.
    """
    numbers = list(composition.dealt)
    known = [z for z in FILLERS if z in config.numbers]
    if known:
        weights = np.array([FILLERS[z] for z in known])
        n = composition.n_atoms - len(numbers)
        numbers += random.choice(known, n, p=weights / weights.sum()).tolist()
    charge = composition.charge
    if (sum(numbers) - charge) % 2:
        if 1 not in config.numbers:
            charge += 1 if charge <= 0 else -1
        elif 1 in numbers and len(numbers) > config.min_atoms:
            numbers.remove(1)
        elif len(numbers) < config.max_atoms:
            numbers.append(1)
        else:
            charge += 1 if charge <= 0 else -1
    return sorted(numbers), charge


def element_counts(molecules: Any) -> dict[str, int]:
    """Return in how many molecules each element stands, by symbol in the order of the table."""
    numbers = [int(z) for molecule in molecules for z in set(molecule.numbers.tolist())]
    return {SYMBOLS[z]: numbers.count(z) for z in sorted(set(numbers))}
