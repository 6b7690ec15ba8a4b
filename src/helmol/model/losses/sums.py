"""Sums over a batch, of which this process may have a part only."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Total = Callable[..., tuple[Tensor, ...]]
"""Of sums over this process's part of a batch those over the whole batch, differentiable in one's own part.

A loss is a function of such totals: a mean over processes of their own root mean squares, or of means over
different numbers of things, would be another loss, with another gradient.
"""


def alone(*sums: Tensor) -> tuple[Tensor, ...]:
    """Return sums as they are: the part is the whole."""
    return sums
