"""Divide samples so that those that belong together stay together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from helmol.errors import InputError
from helmol.store.split import split_counts

Order = Literal["random", "ascending", "largest-first"]


def group_split(
    groups: Mapping[str, str | int],
    *,
    sizes: Mapping[str, int] | None = None,
    fractions: Mapping[str, float] | None = None,
    order: Order = "random",
    seed: int = 0,
) -> dict[str, list[str]]:
    """Give whole groups to consecutive splits; the sizes come as near as the groups allow.

    The groups are put in a row, and the row is cut where the wanted sizes say; a group belongs to
    the split in which its middle falls.

    Args:
        groups: group of every sample, by id.
        sizes: wanted samples per split. Give either ``sizes`` or ``fractions``.
        fractions: wanted share per split, sum at most 1.
        order: of the groups: ``random``; ``ascending`` by the group itself (a number of atoms: the
            largest molecules come last); ``largest-first`` (the rarest groups come last).
        seed: of the random order.

    Raises:
        InputError: a split would stay empty, or the sizes are not possible.
    """
    members: dict[str | int, list[str]] = {}
    for id in sorted(groups):
        members.setdefault(groups[id], []).append(id)
    counts = split_counts(len(groups), sizes=sizes, fractions=fractions)
    ends = np.cumsum(list(counts.values()))
    splits: dict[str, list[str]] = {name: [] for name in counts}
    start = 0
    for key in _ordered(members, order, seed):
        middle = start + len(members[key]) / 2
        start += len(members[key])
        place = int(np.searchsorted(ends, middle, side="left"))
        if place < len(counts):
            splits[list(counts)[place]] += members[key]
    for name, ids in splits.items():
        if counts[name] and not ids:
            raise InputError(
                f"split {name!r} would be empty: {len(groups)} samples are in {len(members)} groups "
                f"that stay together, the largest of {max(map(len, members.values()))}"
            )
    return splits


def _ordered(members: Mapping[str | int, Sequence[str]], order: Order, seed: int) -> list[str | int]:
    """Return the groups in the row."""
    keys = sorted(members, key=lambda key: (isinstance(key, str), key))
    if order == "ascending":
        return keys
    if order == "largest-first":
        return sorted(keys, key=lambda key: -len(members[key]))
    return [keys[k] for k in np.random.default_rng(seed).permutation(len(keys))]
