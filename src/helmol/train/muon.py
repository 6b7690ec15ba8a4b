"""Muon: momentum whose matrix is replaced by the nearest (semi-)orthogonal one.

All matrices of one shape go through the iteration together, which is what makes it affordable for a
network of a few hundred small matrices on a CPU.

Source: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from helmol.arrays import IntArray
from helmol.train.ranks import ALONE, Ranks

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic ``a x + b x³ + c x⁵``, chosen by the authors to lift small singular values quickest; five
rounds bring those above 1e-3 of the largest into about 0.7 to 1.2."""
ROUNDS = 5
SMALLEST_BFLOAT16 = 64
"""Rows or columns, whichever are fewer, from which on a CPU gains by products in bfloat16."""
RMS_OF_ADAMW = 0.2
"""Typical root mean square of AdamW's update in units of its learning rate (Liu et al., arXiv 2502.16982)."""


def orthogonalise(matrices: Tensor) -> Tensor:
    """Return roughly ``U Vᵀ`` of ``U S Vᵀ`` for each matrix, ``[n, rows, columns]``; zero stays zero."""
    a, b, c = COEFFICIENTS
    kind = matrices.dtype
    if kind == torch.float32 and bfloat16_is_fast(matrices.device, min(matrices.shape[1:])):
        # The iteration only has to bring singular values near 1: rounding does not matter to it.
        matrices = matrices.bfloat16()
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(kind)


def bfloat16_is_fast(device: torch.device, size: int) -> bool:
    """Return whether the device multiplies bfloat16 matrices of this many rows or columns faster.

    A CPU that has the instructions is 1.2 to 3 times as fast with matrices from 64 rows on, but a call costs
    some 50 µs, so that it takes 2 to 5 times as long with small ones.
    """
    if device.type == "cpu":
        return (
            size >= SMALLEST_BFLOAT16
            and torch.backends.mkldnn.is_available()
            and torch.cpu._is_avx512_bf16_supported()
        )
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def orthogonalise_all(stacks: Sequence[Tensor], ranks: Ranks = ALONE) -> list[Tensor]:
    """Return :func:`orthogonalise` of stacks of matrices; several processes share the matrices.

    Each has matrices that cost about as much and gets the results of the others: the same up to the rounding
    of products that are made together.

    Args:
        stacks: each ``[n, rows, columns]``, the same in all processes.
        ranks: the processes.
    """
    if ranks.size == 1:
        return [orthogonalise(stack) for stack in stacks]
    bounds = _runs([_cost(stack) for stack in stacks for _ in stack], ranks.size)
    numel = np.cumsum([0, *(stack[0].numel() for stack in stacks for _ in stack)])[bounds]
    own, start = [stacks[0].new_empty(0)], 0
    for stack in stacks:
        first, last = (max(int(bound) - start, 0) for bound in bounds[ranks.rank : ranks.rank + 2])
        if first < min(last, len(stack)):
            own.append(orthogonalise(stack[first:last]).flatten())
        start += len(stack)
    whole = torch.cat(ranks.exchange(torch.cat(own), np.diff(numel).tolist()))
    parts = whole.split([stack.numel() for stack in stacks])
    return [part.view_as(stack) for part, stack in zip(parts, stacks, strict=True)]


def _cost(stack: Tensor) -> float:
    """Return in some unit what it takes to orthogonalise a matrix of a stack."""
    rows, columns = stack.shape[1:]
    return float(rows * columns * min(rows, columns))


def _runs(costs: Sequence[float], n: int) -> IntArray:
    """Return where ``n`` runs of things, in their order, begin and end that cost about as much.

    Matrices of one shape stay together so, as far as can be, and are quicker.
    """
    ends = np.cumsum(costs)
    return np.searchsorted(ends - np.array(costs) / 2, np.linspace(0, ends[-1], n + 1))


class Muon(torch.optim.Optimizer):
    """Update matrices by orthogonalised Nesterov momentum.

    ``m ← β m + (1 − β) g``; ``W ← (1 − η λ) W − η s · orth(β m + (1 − β) g)`` with
    ``s = 0.2 sqrt(max(rows, columns))``, so that an update has the size of AdamW's at the same η
    and rows and columns count alike.

    Args:
        matrices: parameters of two dimensions.
        lr: η.
        momentum: β.
        weight_decay: λ.
        ranks: processes with the same matrices and gradients, which share the work.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._ranks = ranks

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault((parameter.shape[0], parameter.shape[1]), []).append(parameter)
            if not shapes:
                continue
            wanted = [self._momentum(alike, group["momentum"]) for alike in shapes.values()]
            found = orthogonalise_all(wanted, self._ranks)
            for ((rows, columns), alike), updates in zip(shapes.items(), found, strict=True):
                scale = group["lr"] * RMS_OF_ADAMW * max(rows, columns) ** 0.5
                tensors: list[Tensor] = [*alike]
                if group["weight_decay"]:
                    torch._foreach_mul_(tensors, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(tensors, list(updates.unbind()), alpha=-scale)

    def _momentum(self, alike: list[nn.Parameter], decay: float) -> Tensor:
        """Advance the momentum of parameters of one shape and return the update it gives, stacked."""
        gradients = [parameter.grad for parameter in alike if parameter.grad is not None]
        for parameter in alike:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["momentum"] for parameter in alike]
        torch._foreach_lerp_(momenta, gradients, 1 - decay)
        return torch.stack(gradients).lerp(torch.stack(momenta), decay)
