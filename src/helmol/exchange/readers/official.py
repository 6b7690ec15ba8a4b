"""The official splits of published data sets, as positions of rows.

Source: the loaders published with the data sets; their random numbers are those of
``numpy.random.RandomState`` and :mod:`random`, which stay the same between versions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from helmol.arrays import IntArray
from helmol.errors import InputError

Positions = IntArray
NAMES = ("train", "val", "test")

MD17_SIZES = {4999: (500, 500), 30000: (25000, 500), 26978: (25000, 500)}
"""Training and validation rows by the number of rows: water; ethanol and uracil; malondialdehyde."""

QH9_STABLE = 130831
QH9_STABLE_OOD = (104001, 17495, 9335)
"""Molecules of at most 20, of 21 and 22, and of at least 23 atoms, as published."""

FRAMES = 100
"""Frames of one molecule in QH9 dynamic."""

DYNAMIC_MOLECULES = (2998, 999)
"""Molecules of the 300k and 100k files of QH9 dynamic."""


def md17(n: int) -> dict[str, Positions]:
    """Return consecutive chunks of ``RandomState(42).permutation(n)``."""
    if n not in MD17_SIZES:
        raise InputError(f"{n} rows: the official split is of 4999, 30000 or 26978")
    n_train, n_validation = MD17_SIZES[n]
    order = np.random.RandomState(42).permutation(n)
    return _cut(order, n_train, n_validation)


def qh9_stable_id(n: int) -> dict[str, Positions]:
    """Return 80/10/10 of ``RandomState(43).permutation(n)``, rounded down."""
    if n != QH9_STABLE:
        raise InputError(f"{n} rows: the official split is of {QH9_STABLE}")
    order = np.random.RandomState(43).permutation(n)
    return _cut(order, int(n * 0.8), int(n * 0.1))


def qh9_stable_ood(n_atoms: Sequence[int]) -> dict[str, Positions]:
    """Return molecules of at most 20, of 21 and 22, and of at least 23 atoms."""
    sizes = np.asarray(n_atoms)
    groups = (sizes <= 20, (sizes >= 21) & (sizes <= 22), sizes >= 23)
    counts = tuple(int(group.sum()) for group in groups)
    if counts != QH9_STABLE_OOD:
        raise InputError(f"{counts} molecules by size: the official split has {QH9_STABLE_OOD}")
    return {name: np.flatnonzero(group) for name, group in zip(NAMES, groups, strict=True)}


def qh9_dynamic_geo(n: int) -> dict[str, Positions]:
    """Return 80/10/10 frames of each molecule; the seed is the position of its last row."""
    _check_dynamic(n)
    parts = []
    for last in range(FRAMES - 1, n, FRAMES):
        order = np.random.RandomState(last).permutation(FRAMES)
        parts.append(_cut(last - FRAMES + 1 + order, 80, 10))
    return {name: np.concatenate([part[name] for part in parts]) for name in NAMES}


def qh9_dynamic_mol(n: int) -> dict[str, Positions]:
    """Return whole molecules, 80/10/10, in the order of ``random.seed(43); random.shuffle``."""
    _check_dynamic(n)
    n_molecules = n // FRAMES
    molecules = list(range(n_molecules))
    random.Random(43).shuffle(molecules)
    cut = _cut(np.array(molecules), int(n_molecules * 0.8), int(n_molecules * 0.1))
    frames = np.arange(FRAMES)
    return {name: (np.sort(m)[:, None] * FRAMES + frames).ravel() for name, m in cut.items()}


def _check_dynamic(n: int) -> None:
    if n not in [FRAMES * m for m in DYNAMIC_MOLECULES]:
        wanted = " or ".join(str(FRAMES * m) for m in DYNAMIC_MOLECULES)
        raise InputError(f"{n} rows: the official split is of {wanted}")


def _cut(order: Positions, n_train: int, n_validation: int) -> dict[str, Positions]:
    parts = np.split(order, [n_train, n_train + n_validation])
    return dict(zip(NAMES, parts, strict=True))


def by_id(positions: dict[str, Positions], ids: Sequence[str]) -> dict[str, list[str]]:
    """Turn positions of rows into ids."""
    return {name: [ids[k] for k in rows] for name, rows in positions.items()}
