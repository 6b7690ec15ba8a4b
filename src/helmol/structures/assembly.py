"""Put whole molecules together: dimers at given distances, complexes of several fragments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from helmol.arrays import Array, IntArray
from helmol.config import Config
from helmol.errors import InputError
from helmol.structures.settle import SettleConfig, contacts, settle
from helmol.structures.structure import Structure
from helmol.system import Molecule

CONTACT_ANG = 1.0
"""Surfaces of fragments start this far from touching, Å beyond the sum of covalent radii."""


class DimersConfig(Config):
    """Set the distances and orientations of dimers."""

    distances_ang: tuple[Annotated[float, Field(ge=0, le=1000)], ...] = Field(min_length=1)
    """Distances of the closest two atoms of different molecules, Å."""

    n_orientations: int = Field(default=1, ge=1, le=1_000_000)
    """Random orientations; each is taken at all distances."""

    @field_validator("distances_ang")
    @classmethod
    def _not_too_close(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) < 0.5:
            raise ValueError("distances below 0.5 Å make no sense")
        return value


class ComplexesConfig(SettleConfig):
    """Set how complexes are drawn from fragments."""

    n: int = Field(ge=1, le=10_000_000)
    """Complexes to make."""

    n_fragments: tuple[Annotated[int, Field(ge=0, le=1000)], Annotated[int, Field(ge=0, le=1000)]] = (2, 4)
    """Smallest and largest number of fragments."""

    max_atoms: int = Field(default=150, ge=2, le=100_000)
    """Fragments are added only up to this number of atoms."""

    @field_validator("n_fragments")
    @classmethod
    def _two_at_least(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 2 <= value[0] <= value[1]:
            raise ValueError("expected two numbers, the first at least 2 and the second not smaller")
        return value


def dimers(
    first: Structure, second: Structure, config: DimersConfig, *, seed: int = 0, name: str | None = None
) -> list[Structure]:
    """Place two rigid molecules at given closest distances, in random orientations.

    The spins add up (high spin).

    Returns:
        ``n_orientations × len(distances_ang)`` structures.
    """
    random, name = np.random.default_rng(seed), name or f"{first.id}+{second.id}"
    structures = []
    for k in range(config.n_orientations):
        rotation, direction = _rotation(random), _direction(random)
        fixed = _centred(first.molecule)
        turned = _centred(second.molecule) @ rotation.T
        for distance in config.distances_ang:
            shift = _approach(fixed, turned, direction, _beyond(distance))
            dimer = _joined([first.molecule, second.molecule], [fixed, turned + shift])
            provenance = {
                "source": "dimers", "first": first.id, "second": second.id, "orientation": k,
                "distance_ang": distance, "seed": seed,
            }  # fmt: skip
            structures.append(Structure(f"{name}-o{k:03d}-d{distance:.3f}", dimer, provenance))
    return structures


def draw_fragments(
    fragments: Sequence[Structure], config: ComplexesConfig, *, seed: int = 0
) -> list[tuple[Structure, ...]]:
    """Draw the fragments of all complexes, every fragment about as often as any other.

    Raises:
        InputError: a fragment has unpaired electrons (how they would couple is not known), or two
            fragments are too large.
    """
    for fragment in fragments:
        if fragment.molecule.spin:
            raise InputError(f"the fragment {fragment.id!r} has unpaired electrons: closed shells are needed")
    smallest = min(f.molecule.n_atoms for f in fragments)
    fitting = [f for f in fragments if f.molecule.n_atoms + smallest <= config.max_atoms]
    if not fitting:
        raise InputError(f"no two fragments have {config.max_atoms} atoms or fewer together")
    random, deck, drawn = np.random.default_rng([seed, 2]), list[int](), list[tuple[Structure, ...]]()
    while len(drawn) < config.n:
        wanted = int(random.integers(*config.n_fragments, endpoint=True))
        chosen: list[Structure] = []
        n_atoms = 0
        while len(chosen) < wanted:
            room = config.max_atoms - n_atoms - (0 if chosen else smallest)
            if not any(f.molecule.n_atoms <= room for f in fitting):
                break
            while True:
                deck = deck or random.permutation(len(fitting)).tolist()
                fragment = fitting[deck.pop()]
                if fragment.molecule.n_atoms <= room:
                    break
            chosen.append(fragment)
            n_atoms += fragment.molecule.n_atoms
        drawn.append(tuple(chosen))
    return drawn


def complexed(
    fragments: Sequence[Structure], config: SettleConfig, *, seed: Sequence[int] = (0,), name: str
) -> Structure:
    """Pack fragments one after another into contact, in random orientations, and let them settle.

    Raises:
        InputError: no attempt gave an acceptable structure; says why the last one did not.
    """
    problem = ""
    for attempt in range(config.attempts):
        random = np.random.default_rng([*seed, attempt])
        placed = packed(
            [f.molecule.numbers for f in fragments], [f.molecule.positions_ang for f in fragments], random
        )
        try:
            molecule = _joined([f.molecule for f in fragments], placed)
            molecule, facts = settle(molecule, config)
        except InputError as error:
            problem = str(error)
            continue
        provenance = {
            "source": "complexes", "fragments": [f.id for f in fragments], "seed": list(seed),
            "attempt": attempt, **facts,
        }  # fmt: skip
        return Structure(name, molecule, provenance)
    raise InputError(f"no acceptable complex of {len(fragments)} fragments: {problem}")


def packed(
    numbers: Sequence[IntArray], positions_ang: Sequence[Array], random: np.random.Generator
) -> list[Array]:
    """Bring fragments one after another into contact with those before, in random orientations.

    Args:
        numbers: atomic numbers of each fragment.
        positions_ang: of each fragment by itself, Å.
        random: decides orientations and directions.

    Returns:
        Positions of each fragment, Å; no two atoms of different fragments are closer than the sum of their
        covalent radii and ``CONTACT_ANG``.
    """
    placed: list[Array] = []
    for k, shape in enumerate(positions_ang):
        turned = (shape - shape.mean(axis=0)) @ _rotation(random).T
        if placed:
            touching = contacts(np.concatenate(numbers[:k]), numbers[k]) + CONTACT_ANG
            turned = turned + _approach(
                np.concatenate(placed), turned, _direction(random), _clear_of(touching)
            )
        placed.append(np.asarray(turned))
    return placed


def _clear_of(touching: Array) -> Callable[[Array], float]:
    """Return the function of all distances that says how far the closest two are from touching, Å."""
    return lambda distances: float((distances - touching).min())


def _approach(fixed: Array, moving: Array, direction: Array, separation: Callable[[Array], float]) -> Array:
    """Return the shift along a direction at which the separation first vanishes on the way in, Å."""

    def apart(length: float) -> float:
        distances = np.linalg.norm(fixed[:, None] - (moving + length * direction)[None], axis=-1)
        return separation(distances)

    size = float(np.linalg.norm(fixed, axis=1).max() + np.linalg.norm(moving, axis=1).max())
    outer = size + 20.0
    while apart(outer) < 0:
        outer *= 2
    inner = outer
    while inner > -outer and apart(inner) > 0:
        outer, inner = inner, inner - 0.2
    for _ in range(40):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if apart(middle) > 0 else (outer, middle)
    return outer * direction


def _beyond(wanted: float) -> Callable[[Array], float]:
    """Return the function of all distances that says how far the closest two are beyond one, Å."""
    return lambda distances: float(distances.min()) - wanted


def _joined(molecules: Sequence[Molecule], positions_ang: Sequence[Array]) -> Molecule:
    """Return one molecule of several; charges and unpaired electrons add up."""
    return Molecule.from_angstrom(
        np.concatenate([m.numbers for m in molecules]),
        np.concatenate(positions_ang),
        charge=sum(m.charge for m in molecules),
        spin=sum(m.spin for m in molecules),
    )


def _centred(molecule: Molecule) -> Array:
    """Return positions about their mean, Å."""
    return np.asarray(molecule.positions_ang - molecule.positions_ang.mean(axis=0))


def _direction(random: np.random.Generator) -> Array:
    """Return a random unit vector."""
    vector = random.normal(size=3)
    return np.asarray(vector / np.linalg.norm(vector))


def _rotation(random: np.random.Generator) -> Array:
    """Return a random proper rotation, all alike probable."""
    q, r = np.linalg.qr(random.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.linalg.det(q))
