"""The running average of the weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def averaged_copy(model: M) -> M:
    """Return a copy of a model that will hold averages: no gradients, evaluation mode."""
    return copy.deepcopy(model).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: Sequence[Tensor], weights: Sequence[Tensor], *, keep: float) -> None:
    """Set ``average ← keep · average + (1 − keep) · weights`` for every parameter."""
    torch._foreach_lerp_(list(average), list(weights), 1 - keep)
