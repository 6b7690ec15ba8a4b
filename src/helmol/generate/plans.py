"""Structures that a worker makes just before it labels them.

Relaxing random molecules and embedding conformers take long for many of them; what is only planned here
is made in parallel, needs no file in between, and comes out the same wherever and whenever it is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from helmol import structures
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.structures import (
    ComplexesConfig,
    Composition,
    ConformersConfig,
    RandomConfig,
    Structure,
)


@dataclass(frozen=True)
class Plan(ABC):
    """Hold what decides a structure that does not exist yet.

    Attributes:
        id: of the structure to come.
        numbers: atomic numbers as far as they are known; no others occur than these and ``elements``.
        elements: what else may occur.
        spin: 2S.
    """

    id: str
    numbers: tuple[int, ...]
    elements: tuple[int, ...]
    spin: int

    @abstractmethod
    def make(self) -> Structure:
        """Make the structure.

        Raises:
            InputError: there is no such structure; says why.
        """

    @property
    def n_atoms(self) -> int:
        """Number of atoms, about."""
        return len(self.numbers)


Work = Structure | Plan
"""What a worker takes: a structure, or how to make one."""


@dataclass(frozen=True)
class ConformerPlan(Plan):
    """Plan the k-th conformer of a SMILES."""

    name: str
    smiles: str
    k: int
    config: ConformersConfig
    seed: int

    def make(self) -> Structure:
        """Embed all conformers and take one; the others are made by their own plans."""
        found = structures.conformers(self.smiles, self.config, seed=self.seed, name=self.name)
        if self.k >= len(found):
            raise InputError(f"{self.smiles} has {len(found)} distinct conformers, this would be one more")
        return found[self.k]


@dataclass(frozen=True)
class RandomPlan(Plan):
    """Plan a random molecule; ``n_atoms`` is that of the composition."""

    composition: Composition
    config: RandomConfig
    seed: tuple[int, ...]

    def make(self) -> Structure:
        """Grow, relax and judge it."""
        return structures.random_molecule(self.composition, self.config, seed=self.seed, name=self.id)

    @property
    def n_atoms(self) -> int:
        """Number of atoms, give or take a hydrogen atom."""
        return self.composition.n_atoms


@dataclass(frozen=True)
class ComplexPlan(Plan):
    """Plan a complex of fragments."""

    fragments: tuple[Structure, ...]
    config: ComplexesConfig
    seed: tuple[int, ...]

    def make(self) -> Structure:
        """Pack, relax and judge it."""
        return structures.complexed(self.fragments, self.config, seed=self.seed, name=self.id)


def conformer_plans(
    named: Sequence[tuple[str, str]], config: ConformersConfig, *, seed: int
) -> list[ConformerPlan]:
    """Plan the conformers of named SMILES.

    A SMILES that cannot be read becomes a plan that fails, not the end of all others.

    Raises:
        InputError: RDKit is missing.
    """
    structures.flat_molecule("C")
    plans = []
    for name, smiles in named:
        try:
            numbers, _, spin = structures.flat_molecule(smiles)
        except InputError:
            numbers, spin = (), 0
        plans += [
            ConformerPlan(f"{name}-c{k:02d}", numbers, (), spin, name, smiles, k, config, seed)
            for k in range(config.n_conformers)
        ]
    return plans


def random_plans(config: RandomConfig, *, seed: int) -> list[RandomPlan]:
    """Plan the molecules of a random recipe."""
    width = max(5, len(str(config.n - 1)))
    return [
        RandomPlan(
            f"random-{k:0{width}d}", composition.dealt, config.numbers, 0, composition, config, (seed, k)
        )
        for k, composition in enumerate(structures.compositions(config, seed=seed))
    ]


def complex_plans(fragments: Sequence[Structure], config: ComplexesConfig, *, seed: int) -> list[ComplexPlan]:
    """Plan complexes of fragments."""
    width = max(5, len(str(config.n - 1)))
    return [
        ComplexPlan(
            f"complex-{k:0{width}d}",
            tuple(int(z) for fragment in chosen for z in fragment.molecule.numbers),
            (),
            0,
            chosen,
            config,
            (seed, k),
        )
        for k, chosen in enumerate(structures.draw_fragments(fragments, config, seed=seed))
    ]


def n_atoms(work: Work) -> int:
    """Return the number of atoms of a structure, or about that of a plan."""
    return work.n_atoms if isinstance(work, Plan) else work.molecule.n_atoms


def spin(work: Work) -> int:
    """Return 2S."""
    return work.spin if isinstance(work, Plan) else work.molecule.spin


def elements(work: Work) -> set[int]:
    """Return the atomic numbers that may occur."""
    return {*work.numbers, *work.elements} if isinstance(work, Plan) else set(work.molecule.numbers.tolist())


def formula(work: Work) -> str:
    """Return the formula, with ``...`` for what is not known yet."""
    if isinstance(work, Structure):
        return work.molecule.formula
    counts = Counter(work.numbers)
    known = "".join(f"{SYMBOLS[z]}{counts[z] if counts[z] > 1 else ''}" for z in sorted(counts))
    return known + ("..." if work.n_atoms > len(work.numbers) or not known else "")
