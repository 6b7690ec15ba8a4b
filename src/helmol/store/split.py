"""Divide samples into named, disjoint sets of explicit ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from helmol.errors import InputError

if TYPE_CHECKING:
    from helmol.store.packed import Store


def random_split(
    ids: Sequence[str],
    *,
    sizes: Mapping[str, int] | None = None,
    fractions: Mapping[str, float] | None = None,
    seed: int = 0,
) -> dict[str, list[str]]:
    """Draw disjoint random splits; the same ids (in any order) and seed give the same splits.

    Args:
        ids: ids of all samples, each once.
        sizes: number of samples per split; what is left over belongs to no split.
        fractions: share of each split, sum at most 1; rounded down, except that a sum of 1 leaves
            the remainder to the last split. Give either ``sizes`` or ``fractions``.
        seed: of the permutation (NumPy's ``default_rng``).

    Returns:
        Ids by split name, in the order drawn.

    Raises:
        InputError: both or neither of sizes and fractions, an id twice, or more asked for than there is.
    """
    if len(set(ids)) != len(ids):
        raise InputError("an id stands twice in the list to be split")
    counts = split_counts(len(ids), sizes=sizes, fractions=fractions)
    ordered = sorted(ids)
    drawn = [ordered[k] for k in np.random.default_rng(seed).permutation(len(ordered))]
    splits, start = {}, 0
    for name, count in counts.items():
        splits[name] = drawn[start : start + count]
        start += count
    return splits


def split_counts(
    n: int, *, sizes: Mapping[str, int] | None, fractions: Mapping[str, float] | None
) -> dict[str, int]:
    """Return how many of ``n`` samples each split gets, see :func:`random_split`.

    Raises:
        InputError: both or neither of sizes and fractions, or more asked for than there is.
    """
    if (sizes is None) == (fractions is None):
        raise InputError("give either sizes or fractions of a split")
    counts = dict(sizes) if sizes is not None else _counts(n, fractions or {})
    if any(count < 0 for count in counts.values()) or sum(counts.values()) > n:
        wanted = " + ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(f"cannot draw {wanted} from {n} samples")
    return counts


def _counts(n: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers for fractions."""
    total = sum(fractions.values())
    if not fractions or any(f < 0 for f in fractions.values()) or total > 1 + 1e-9:
        raise InputError(f"fractions must be at least 0 and sum to at most 1, got {dict(fractions)}")
    # The tiny addition keeps 0.7 of 10 at 7 although 0.7 * 10 may be 6.999...
    counts = {name: int(f * n + 1e-9) for name, f in fractions.items()}
    if abs(total - 1) < 1e-9:
        last = list(counts)[-1]
        counts[last] = n - sum(count for name, count in counts.items() if name != last)
    return counts


def split_indices(store: Store, split: str, *, seen: Collection[str] = ()) -> list[int]:
    """Return the positions of a split's samples.

    Raises:
        InputError: no such split, or nothing in it.
    """
    if split == "unseen" and split not in store.splits:
        indices = [i for i, id in enumerate(store.ids) if id not in seen]
        if not indices:
            raise InputError(
                f"the model was trained or chosen on all {len(store)} molecules of {store.path}, which has "
                "no split 'test': --split all measures the errors on those"
            )
        return indices
    if split != "all" and split not in store.splits:
        have = ", ".join(store.splits) or "none"
        raise InputError(
            f"store {store.path} has no split {split!r} (it has {have}): use --split all or one of these"
        )
    indices = list(range(len(store))) if split == "all" else [int(i) for i in store.indices(split)]
    if not indices:
        raise InputError(f"split {split!r} of {store.path} is empty")
    return indices
