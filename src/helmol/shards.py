"""Parts of a piece of work for the jobs of an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from helmol.errors import InputError

T = TypeVar("T")


def check_shard(shard: tuple[int, int] | None) -> None:
    """Raise unless a shard is ``(i, n)`` with i from 1 to n, or none.

    Raises:
        InputError: it is not.
    """
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise InputError(f"shard {shard[0]}/{shard[1]}: expected i/n with i from 1 to n")


def part_of(items: Sequence[T], shard: tuple[int, int] | None) -> Sequence[T]:
    """Return the i-th of n parts, every n-th item, which may be none; without a shard all.

    Args:
        items: to divide.
        shard: ``(i, n)``, i from 1 to n.

    Raises:
        InputError: no such part.
    """
    check_shard(shard)
    return items if shard is None else items[shard[0] - 1 :: shard[1]]


def shard_of(items: Sequence[T], shard: tuple[int, int] | None) -> Sequence[T]:
    """Return :func:`part_of`, with at least one item.

    Raises:
        InputError: no such part, or nothing in it.
    """
    found = part_of(items, shard)
    if shard is not None and not found:
        number, n = shard
        raise InputError(f"shard {number}/{n} of {len(items)} molecules is empty: take fewer parts")
    return found
