"""Molecules of typical sizes, with typical shells; positions are random but spaced like atoms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helmol.arrays import IntArray
from helmol.basis import BasisSet, ElementBasis
from helmol.errors import ConfigError
from helmol.model import MODEL_PRESETS, Model, build
from helmol.system import LevelOfTheory, Molecule
from helmol.target import Domain

SPACING = 2.6
"""Edge of the cubic cell in bohr that holds one atom: the density of an organic molecule."""

DOUBLE_ZETA = {1: (0, 0, 1), 6: (0, 0, 0, 1, 1, 2), 8: (0, 0, 0, 1, 1, 2)}
"""Shells of H, C and O in def2-SVP."""
TRIPLE_ZETA = {
    1: (0, 0, 0, 1, 1),
    6: (0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3),
    8: (0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3),
}
"""Shells of H, C and O in def2-TZVPD."""

NO_LEVEL = LevelOfTheory("rks", "none", "none", "made up", None, 0, False, 1.0, "none")


@dataclass(frozen=True)
class Case:
    """Name a workload.

    Attributes:
        numbers: atoms of one molecule.
        batch: molecules per step.
        shells: of each element.
    """

    numbers: tuple[int, ...]
    batch: int
    shells: dict[int, tuple[int, ...]]

    @property
    def n_edges(self) -> int:
        """Directed edges per step, all pairs counted."""
        return self.batch * len(self.numbers) * (len(self.numbers) - 1)


def largest(path: Path | None, n_atoms: int) -> Molecule:
    """Return the largest molecule of a structure file, or a made-up organic one of ``n_atoms``."""
    if path is None:
        return molecules(Case(organic(n_atoms), 1, {}), seed=0)[0]
    from helmol.structures import read

    return max((structure.molecule for structure in read(path)), key=lambda m: len(m.numbers))


def untrained(preset: str, basis: str, numbers: IntArray) -> Model:
    """Return a model with random weights for some elements in a basis that PySCF knows.

    Raises:
        ConfigError: no such preset.
        InputError: no such basis, or not for these elements.
    """
    from helmol.dft import LevelConfig, basis_set

    if preset not in MODEL_PRESETS:
        raise ConfigError(f"unknown preset {preset!r}: expected one of {', '.join(MODEL_PRESETS)}")
    shells = basis_set(LevelConfig(basis=basis), sorted({int(z) for z in numbers}))
    return build(MODEL_PRESETS[preset], Domain(NO_LEVEL, shells, "fock", (0, 1), (0,)))


def organic(n_atoms: int) -> tuple[int, ...]:
    """Return H, C and O as in drug-like molecules."""
    return ((6, 1, 6, 1, 8, 1) * (n_atoms // 6 + 1))[:n_atoms]


CASES: dict[str, Case] = {
    "water": Case((8, 1, 1), 1, DOUBLE_ZETA),
    "water-64": Case((8, 1, 1), 64, DOUBLE_ZETA),
    "ethanol-16": Case((6, 6, 8, 1, 1, 1, 1, 1, 1), 16, DOUBLE_ZETA),
    "uracil": Case(organic(12), 1, DOUBLE_ZETA),
    "uracil-4": Case(organic(12), 4, DOUBLE_ZETA),
    "40-atoms": Case(organic(40), 1, DOUBLE_ZETA),
    "150-atoms-tz": Case(organic(150), 1, TRIPLE_ZETA),
}


def molecules(case: Case, *, seed: int) -> list[Molecule]:
    """Return the molecules of one step; a new seed gives new positions."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(len(case.numbers) ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[: len(case.numbers)]
    odd = sum(case.numbers) % 2
    return [
        Molecule(
            np.array(case.numbers),
            (grid + 0.25 * rng.uniform(-1, 1, size=grid.shape)) * SPACING,
            charge=odd,
        )
        for _ in range(case.batch)
    ]


def domain(case: Case) -> Domain:
    """Return a domain that covers the case."""
    elements = {z: ElementBasis(shells, 0, "made up") for z, shells in sorted(case.shells.items())}
    return Domain(NO_LEVEL, BasisSet("made up", elements), "fock", (0, 1), (0,))
