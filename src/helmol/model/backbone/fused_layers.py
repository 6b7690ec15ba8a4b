"""Norm and feed-forward of edge features as single steps with hand-written gradients.

Same functions as in :mod:`helmol.model.backbone.layers`, tested equal to them. Kept for the gradient are
the input, the features before the gate, the gates and one number per edge; the rest is computed again.
No second derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from helmol.model.backbone.layer_kernels import gate, gate_gradient, norm, norm_gradient
from helmol.model.backbone.products import product


class FusedNorm(torch.autograd.Function):
    """The equivariant norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, balance: Tensor, degree: Tensor, eps: float) -> Tensor:
        """Return ``[E, K, C]``; arguments as in :func:`helmol.model.backbone.layer_kernels.norm`."""
        x = x.contiguous()
        out = torch.empty_like(x)
        scale = norm(x, weight, balance, degree, eps, out)
        ctx.save_for_backward(x, scale, weight, balance, degree)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``x`` and ``weight``."""
        x, scale, weight, balance, degree = ctx.saved_tensors
        g_x = torch.zeros_like(x)
        g_weight = norm_gradient(g.contiguous(), x, scale, weight, balance, degree, g_x)
        return g_x, g_weight, None, None, None


class FusedFeedForward(torch.autograd.Function):
    """``x + second(gate(first(norm(x))))``."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, norm_weight: Tensor, balance: Tensor, degree: Tensor, eps: float,
        first: Tensor, first_bias: Tensor, gate_weight: Tensor, gate_bias: Tensor, second: Tensor,
        second_bias: Tensor, precision: str,
    ) -> Tensor:  # fmt: skip
        """Return ``[E, K, C]``.

        Args:
            ctx: autograd's.
            x: ``[E, K, C]``.
            norm_weight: ``[L+1, C]``.
            balance: ``[K, 1]``.
            degree: of each component, ``[K]``.
            eps: of the norm.
            first: ``[L+1, C, C]``, one map per degree.
            first_bias: ``[C]``, on l = 0.
            gate_weight: ``[L·C, C]``.
            gate_bias: ``[L·C]``.
            second: ``[L+1, C, C]``.
            second_bias: ``[C]``.
            precision: of the per-degree maps; the gates are float32.
        """
        x = x.contiguous()
        n, k, c = x.shape
        # Inside, components come first: one matrix product per component, each on dense rows.
        normed = x.new_empty(k, n, c)
        scale = norm(x, norm_weight, balance, degree, eps, normed.transpose(0, 1))
        hidden = product(normed, first.index_select(0, degree), precision)
        hidden[0] += first_bias
        gates = torch.addmm(gate_bias, normed[0], gate_weight.T).sigmoid_().view(n, len(first) - 1, c)
        gated = gate(hidden.transpose(0, 1), gates, degree)
        out = product(gated.transpose(0, 1), second.index_select(0, degree), precision)
        out[0] += second_bias
        ctx.save_for_backward(
            x, scale, hidden, gates, norm_weight, balance, degree, first, gate_weight, second
        )
        ctx.eps, ctx.precision = eps, precision
        return x + out.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``x`` and of all weights."""
        x, scale, hidden, gates, norm_weight, balance, degree, first, gate_weight, second = ctx.saved_tensors
        (n, k, c), precision = x.shape, ctx.precision
        g = g.contiguous()
        g_rows = g.transpose(0, 1)
        gated = gate(hidden.transpose(0, 1), gates, degree).transpose(0, 1)
        g_second = _by_degree(product(gated.mT, g_rows, precision), degree, second)
        g_gated = product(g_rows, second.index_select(0, degree).mT, precision).transpose(0, 1)
        g_hidden, g_gates = gate_gradient(g_gated, hidden.transpose(0, 1), gates, degree, tanh=False)
        g_hidden, g_gates = g_hidden.transpose(0, 1), g_gates.flatten(1)
        normed = x.new_empty(k, n, c)
        norm(x, norm_weight, balance, degree, ctx.eps, normed.transpose(0, 1))
        g_first = _by_degree(product(normed.mT, g_hidden, precision), degree, first)
        g_normed = product(g_hidden, first.index_select(0, degree).mT, precision)
        g_normed[0].addmm_(g_gates, gate_weight)
        g_x = g.clone()
        g_norm = norm_gradient(g_normed.transpose(0, 1), x, scale, norm_weight, balance, degree, g_x)
        return (
            g_x, g_norm, None, None, None, g_first, g_hidden[0].sum(dim=0), g_gates.T @ normed[0],
            g_gates.sum(dim=0), g_second, g_rows[0].sum(dim=0), None,
        )  # fmt: skip


def _by_degree(components: Tensor, degree: Tensor, like: Tensor) -> Tensor:
    """Sum gradients of the components ``[K, C, C]`` that share a degree's weight."""
    return torch.zeros_like(like).index_add(0, degree, components)
