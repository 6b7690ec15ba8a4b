"""Random molecules over most of the periodic table: where their atoms go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from helmol.arrays import Array, IntArray
from helmol.errors import InputError
from helmol.structures.assembly import complexed
from helmol.structures.recipe import NOBLE_GASES, Composition, RandomConfig, filled
from helmol.structures.settle import contacts, settle
from helmol.structures.structure import Structure
from helmol.system import Molecule

PARTNERS: Mapping[int, int] = {
    1: 1, 6: 4, 7: 3, 8: 2, 9: 1, 14: 4, 15: 4, 16: 3, 17: 1, 32: 4, 33: 3, 34: 2, 35: 1, 50: 4, 51: 3,
    52: 3, 53: 1,
}  # fmt: skip
"""Atoms that the growth attaches to an element at most; 4 for all others, metals mostly."""

NOBLE_GAS_ANG = 1.3
"""Noble gases are placed this far beyond the sum of covalent radii, Å."""

PACKED_SHARE = 20
"""Packed molecules are relaxed with so much fewer steps than their pieces."""

PIECE_GAPS_EV = (2.0, 0.5)
"""Smallest gap of a piece without and with dealt elements, eV: that of the whole is smaller."""

DIRECTIONS = 60
"""Random places tried per atom and clearance."""


def random_molecule(
    composition: Composition, config: RandomConfig, *, seed: Sequence[int] = (0,), name: str = "random"
) -> Structure:
    """Make one molecule: grow it atom by atom at random, let it settle with GFN2-xTB, judge it.

    A large one is packed from pieces made in this way, and settles again.

    Each atom is attached at bonding distance to an atom that has room, away from all others; elements
    with many partners first, hydrogen last. What does not relax, falls apart or has no gap is drawn anew,
    up to ``config.attempts`` times; the dealt elements stay, so that difficult ones are not lost.

    Args:
        composition: elements dealt to it, size, charge.
        config: recipe.
        seed: numbers that decide everything random.
        name: id of the structure.

    Raises:
        InputError: no attempt gave an acceptable molecule; says why the last one did not.

    Source: the idea of random "mindless" molecules: Korth, Grimme, J. Chem. Theory Comput. 5, 993 (2009).
    """
    if composition.pieces:
        return _packed(composition, config, seed=seed, name=name)
    problem = ""
    for attempt in range(config.attempts):
        random = np.random.default_rng([*seed, attempt])
        numbers, charge = filled(composition, config, random)
        try:
            molecule, facts = settle(grown(numbers, charge, random), config)
        except InputError as error:
            problem = str(error)
            continue
        provenance = {"source": "random", "seed": list(seed), "attempt": attempt, **facts}
        return Structure(name, molecule, provenance)
    raise InputError(f"no acceptable molecule in {config.attempts} attempts; the last: {problem}")


def _packed(composition: Composition, config: RandomConfig, *, seed: Sequence[int], name: str) -> Structure:
    """Make pieces, pack them into contact and let them settle; with new pieces if that fails.

    Raises:
        InputError: a piece cannot be made, or no attempt gave an acceptable whole.
    """
    # The pieces are relaxed already, and the time of a step grows with the cube of the size.
    once = config.model_copy(update={"attempts": 1, "relax_steps": config.relax_steps // PACKED_SHARE})
    problem = ""
    for attempt in range(config.attempts):
        pieces = [
            random_molecule(piece, own, seed=(*seed, attempt, k), name=f"{name}.{k}")
            for k, (piece, own) in enumerate(_pieces(composition, config))
        ]
        try:
            whole = complexed(pieces, once, seed=(*seed, attempt), name=name)
        except InputError as error:
            problem = str(error)
            continue
        facts = {key: whole.provenance[key] for key in ("surface", "relaxed", "gap_ev")}
        provenance = {"source": "random", "seed": list(seed), "attempt": attempt, "pieces": len(pieces)}
        return Structure(name, whole.molecule, {**provenance, **facts})
    raise InputError(f"no acceptable molecule in {config.attempts} attempts; the last: {problem}")


def _pieces(composition: Composition, config: RandomConfig) -> list[tuple[Composition, RandomConfig]]:
    """Return the pieces of a molecule, each with the recipe that keeps the whole within its bounds.

    To pair its electrons a piece may lose or win a hydrogen atom.
    """
    fewer, more = composition.n_atoms - config.min_atoms, config.max_atoms - composition.n_atoms
    recipes = []
    for piece in composition.pieces:
        less = int(fewer > 0)
        plus = int(not less and more > 0)
        fewer, more = fewer - less, more - plus
        gap = PIECE_GAPS_EV[bool(piece.dealt)] if config.min_gap_ev else 0.0
        changes = {
            "min_atoms": piece.n_atoms - less, "max_atoms": piece.n_atoms + plus,
            "min_gap_ev": max(config.min_gap_ev, gap),
        }  # fmt: skip
        recipes.append((piece, config.model_copy(update=changes)))
    return recipes


def grown(numbers: Sequence[int], charge: int, random: np.random.Generator) -> Molecule:
    """Place atoms one after another at random, each bonded to one before.

    Raises:
        InputError: an atom found no free place.
    """
    order = _order(numbers, random)
    room = np.array([PARTNERS.get(int(z), 0 if z in NOBLE_GASES else 4) for z in order])
    radii = contacts(order, order)
    positions = np.zeros((len(order), 3))
    for k in range(1, len(order)):
        noble = np.isin(order[k], NOBLE_GASES)
        anchor = _anchor(room[:k], random, any_will_do=bool(noble))
        positions[k] = _place(k, anchor, positions, radii, random, extra=NOBLE_GAS_ANG if noble else 0.0)
        if not noble:
            room[k] -= 1
            room[anchor] -= 1
    return Molecule.from_angstrom(order, positions, charge=charge)


def _order(numbers: Sequence[int], random: np.random.Generator) -> IntArray:
    """Return atoms with many partners first, noble gases last, equals shuffled."""
    shuffled = random.permutation(np.asarray(numbers))
    partners = np.array([-1 if z in NOBLE_GASES else min(PARTNERS.get(int(z), 4), 3) for z in shuffled])
    return np.asarray(shuffled[np.argsort(-partners, kind="stable")], dtype=np.int64)


def _anchor(room: IntArray, random: np.random.Generator, *, any_will_do: bool) -> int:
    """Choose an atom to attach to, by the room it has; crowded ones only if none has any."""
    weights = np.ones(len(room)) if any_will_do else np.maximum(room, 0).astype(np.float64)
    if weights.sum() == 0:
        weights = np.exp(room.astype(np.float64))
    return int(random.choice(len(room), p=weights / weights.sum()))


def _place(
    k: int, anchor: int, positions: Array, radii: Array, random: np.random.Generator, *, extra: float
) -> Array:
    """Return a place for atom ``k`` at bonding distance from its anchor and clear of all others, Å."""
    length = radii[k, anchor] * random.uniform(0.95, 1.1) + extra
    others = np.delete(np.arange(k), anchor)
    for clearance in (1.5, 1.3, 1.1, 0.95):
        directions = random.normal(size=(DIRECTIONS, 3))
        places = positions[anchor] + length * directions / np.linalg.norm(directions, axis=1, keepdims=True)
        distances = np.linalg.norm(places[:, None] - positions[None, others], axis=-1)
        free = np.flatnonzero((distances > clearance * radii[k, others]).all(axis=1))
        if len(free):
            return np.asarray(places[free[0]])
    raise InputError("an atom found no free place")
