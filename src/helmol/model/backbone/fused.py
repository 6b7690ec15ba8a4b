"""The SO(2) convolution as two differentiable steps with hand-written gradients.

Same function as the plain form in :mod:`helmol.model.backbone.so2`, tested equal to it (a first map with
radial weights of directed edges has the plain form alone). What it saves:

* every product reads and writes slices of whole ``[E, K, C]`` arrays in place: no splits, no joins;
* an order m > 0 is a product of complex numbers, done with three real matrix products instead of
  four: ``out₊ = (x₊+x₋)W_r − x₋(W_r+W_i)``, ``out₋ = (x₊+x₋)W_r + x₊(W_i−W_r)`` (Gauss);
* only the nodes, the radial weights, the hidden features before the gate and the gates are kept for
  the gradient; what was rotated into the edge frames is rotated again.

It has no second derivatives: energies whose forces are trained use the plain form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from helmol.graph.layout import degree_of_m_major
from helmol.graph.pairs import Pairs
from helmol.model.backbone.layer_kernels import gate, gate_gradient
from helmol.model.backbone.products import product


def _slices(lmax: int, mmax: int) -> list[tuple[int, int]]:
    """Return for m = 0 … mmax the first m-major row and the number of degrees."""
    starts, start = [], 0
    for m in range(mmax + 1):
        n = lmax + 1 - m
        starts.append((start, n))
        start += n if m == 0 else 2 * n
    return starts


def _half(x: Tensor, first: int, n: int) -> Tensor:
    """View rows ``first … first+n`` of ``[E, K, C]`` as a matrix ``[E, n·C]`` without a copy."""
    e, k, c = x.shape
    return x.view(e, k * c)[:, first * c : (first + n) * c]


Pair = tuple[Tensor, Tensor]
"""Real and imaginary weight of one order, each ``[n·C_in, n·C_out]``."""


def _product(out: Tensor, x: Tensor, weights: Pair, first: int, n: int, precision: str) -> None:
    """Write ``x (W_r + i W_i)`` of one order into its rows of ``out``."""
    real, imaginary = weights
    plus, minus = _half(x, first, n), _half(x, first + n, n)
    out_plus, out_minus = _half(out, first, n), _half(out, first + n, n)
    product(plus + minus, real, precision, out=out_plus)
    out_minus.copy_(out_plus)
    product(minus, real + imaginary, precision, out=out_plus, add=True, alpha=-1)
    product(plus, imaginary - real, precision, out=out_minus, add=True)


def _input_gradient(out: Tensor, g: Tensor, weights: Pair, first: int, n: int, precision: str) -> None:
    """Write ``g (W_r − i W_i)ᵀ`` of one order into its rows of ``out``."""
    real, imaginary = weights
    plus, minus = _half(g, first, n), _half(g, first + n, n)
    out_plus, out_minus = _half(out, first, n), _half(out, first + n, n)
    product(plus + minus, real.T, precision, out=out_plus)
    out_minus.copy_(out_plus)
    product(minus, (imaginary - real).T, precision, out=out_plus, add=True)
    product(plus, (imaginary + real).T, precision, out=out_minus, add=True, alpha=-1)


def _weight_gradient(x: Tensor, g: Tensor, first: int, n: int, precision: str) -> Pair:
    """Return ``x₊ᵀg₊ + x₋ᵀg₋`` and ``x₊ᵀg₋ − x₋ᵀg₊`` of one order."""
    x_plus, x_minus = _half(x, first, n), _half(x, first + n, n)
    g_plus, g_minus = _half(g, first, n), _half(g, first + n, n)
    shared = product((x_plus - x_minus).T, g_plus, precision)
    imaginary = product(x_plus.T, g_minus - g_plus, precision, out=shared.clone(), add=True)
    return product(x_minus.T, g_plus + g_minus, precision, out=shared, add=True), imaginary


class FusedFirstOfPairs(torch.autograd.Function):
    """Sums and differences of the ends of each pair, then the first SO(2) map on them.

    All orders m > 0 are plain matrix products; see :class:`helmol.model.backbone.so2.SO2PairLinear`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, radial: Tensor, pairs: Pairs, mmax: int, precision: str, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return hidden features ``[2P, K', C]``, |m| ≤ mmax, and raw gates ``[2P, L·C]``.

        Args:
            ctx: autograd's.
            x: nodes ``[N, K, C]``, or both ends in the frames of the pairs ``[P, K, 2C]`` if those move.
            radial: ``[2P, L+1, C]``.
            pairs: the pairs.
            mmax: largest order.
            precision: of the matrix products.
            weights: as ``SO2PairLinear.flat_weights`` lists them.
        """
        p, zeros = pairs.geometry.n_pairs, radial.shape[1] * radial.shape[2]
        x, (bias, sums, differences, *orders) = x.contiguous(), weights
        folded = _folded(x, radial, pairs, mmax)
        hidden = torch.empty_like(folded)
        gates = x.new_empty(len(folded), len(bias) - zeros)
        halves = (slice(0, p), sums), (slice(p, 2 * p), differences)
        for rows, weight in halves:
            left = _half(folded, 0, radial.shape[1])[rows]
            product(left, weight[:, :zeros], precision, out=_half(hidden, 0, radial.shape[1])[rows])
            product(left, weight[:, zeros:], precision, out=gates[rows])
        for (first, n), weight in zip(_slices(radial.shape[1] - 1, mmax)[1:], orders, strict=True):
            left, right = _half(folded, first, 2 * n), _half(hidden, first, 2 * n)
            product(left, weight, precision, out=right)
        hidden, gates = pairs.unfold(hidden), both_ways(gates, p) + bias[zeros:]
        _half(hidden, 0, radial.shape[1]).add_(bias[:zeros])
        ctx.mmax, ctx.pairs, ctx.precision = mmax, pairs, precision
        ctx.save_for_backward(x, radial, *weights)
        return hidden, gates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_hidden: Tensor, g_gates: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all inputs."""
        x, radial, _, *weights = ctx.saved_tensors
        pairs, mmax, precision = ctx.pairs, ctx.mmax, ctx.precision
        p, degrees = pairs.geometry.n_pairs, radial.shape[1]
        slices = _slices(degrees - 1, mmax)
        g_hidden = g_hidden.contiguous()
        g_bias = torch.cat([_half(g_hidden, 0, degrees).sum(dim=0), g_gates.sum(dim=0)])
        g_hidden, g_gates = pairs.fold(g_hidden), both_ways(g_gates, p)
        folded = _folded(x, radial, pairs, mmax)
        halves = slice(p), slice(p, None)
        g_zero = torch.cat([_half(g_hidden, 0, degrees), g_gates], dim=1)
        left = _half(folded, 0, degrees)
        gradients: list[Tensor | None] = [None] * len(ctx.needs_input_grad[5:])
        if any(ctx.needs_input_grad[5:]):  # forces alone need none of the weights' gradients
            gradients = [g_bias]
            gradients += [product(left[some].T, g_zero[some], precision) for some in halves]
            for first, n in slices[1:]:
                rows = _half(folded, first, 2 * n), _half(g_hidden, first, 2 * n)
                gradients.append(product(rows[0].T, rows[1], precision))
        g_folded = folded  # its values are no longer needed
        for some, weight in zip(halves, weights[:2], strict=True):
            product(g_zero[some], weight.T, precision, out=_half(g_folded, 0, degrees)[some])
        for (first, n), weight in zip(slices[1:], weights[2:], strict=True):
            g_right = _half(g_hidden, first, 2 * n)
            product(g_right, weight.T, precision, out=_half(g_folded, first, 2 * n))
        if pairs.geometry.moving:
            g_x, g_radial = pairs.ends_folded_gradient(g_folded, x, radial)
        else:
            g_x, g_radial = pairs.gather_fold_gradient(g_folded, x, radial)
        return g_x, g_radial, None, None, None, *gradients


class FusedSecond(torch.autograd.Function):
    """Gate, then the second SO(2) map."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, raw: Tensor, tanh: bool, mmax: int, precision: str, *weights: Tensor
    ) -> Tensor:
        """Return ``[E, K, C]``.

        Args:
            ctx: autograd's.
            hidden: ``[E, K', C]``, |m| ≤ mmax.
            raw: gates before squashing, ``[E, L·C]``.
            tanh: gates by tanh, else sigmoid.
            mmax: largest order.
            precision: of the matrix products.
            weights: as ``SO2Linear.flat_weights`` lists them.
        """
        e, rows, c = hidden.shape
        lmax = raw.shape[1] // c
        weight, bias, complex_weights = _unpack(weights)
        gates = (torch.tanh(raw) if tanh else torch.sigmoid(raw)).view(e, lmax, c)
        gated = gate(hidden, gates, degree_of_m_major(lmax).to(hidden.device))
        out = hidden.new_empty(e, (lmax + 1) ** 2, c)
        out[:, rows:] = 0
        zero, orders = _half(out, 0, lmax + 1), _slices(lmax, mmax)[1:]
        product(_half(gated, 0, lmax + 1), weight.T, precision, out=zero).add_(bias)
        for (first, n), pair in zip(orders, complex_weights, strict=True):
            _product(out, gated, pair, first, n, precision)
        ctx.tanh, ctx.mmax, ctx.precision = tanh, mmax, precision
        ctx.save_for_backward(hidden, gates, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all inputs."""
        hidden, gates, *weights = ctx.saved_tensors
        lmax, precision = gates.shape[1], ctx.precision
        weight, _, complex_weights = _unpack(weights)
        grad, slices = grad.contiguous(), _slices(lmax, ctx.mmax)
        degree = degree_of_m_major(lmax).to(grad.device)
        gated = gate(hidden, gates, degree)
        g0 = _half(grad, 0, lmax + 1)
        gradients: list[Tensor | None] = [None] * len(weights)
        if any(ctx.needs_input_grad[5:]):
            gradients = _weight_gradients(g0, gated, grad, slices, precision)
        g_gated = gated  # its values are no longer needed
        product(g0, weight, precision, out=_half(g_gated, 0, lmax + 1))
        for (first, n), pair in zip(slices[1:], complex_weights, strict=True):
            _input_gradient(g_gated, grad, pair, first, n, precision)
        g_hidden, g_gates = gate_gradient(g_gated, hidden, gates, degree, tanh=ctx.tanh)
        return g_hidden, g_gates.flatten(1), None, None, None, *gradients


def _weight_gradients(
    g0: Tensor, x: Tensor, grad: Tensor, slices: Sequence[tuple[int, int]], precision: str
) -> list[Tensor | None]:
    """Return the gradients of all weights of one map, as ``SO2Linear.flat_weights`` lists them."""
    gradients: list[Tensor | None] = [product(g0.T, _half(x, *slices[0]), precision), g0.sum(dim=0)]
    for first, n in slices[1:]:
        gradients += _weight_gradient(x, grad, first, n, precision)
    return gradients


def _folded(x: Tensor, radial: Tensor, pairs: Pairs, mmax: int) -> Tensor:
    """Return sums and differences of the ends, ``[2P, K', C]``."""
    if pairs.geometry.moving:
        return pairs.ends_folded(x, radial, mmax)
    return pairs.gather_fold(x, radial, mmax)


def both_ways(x: Tensor, n_pairs: int) -> Tensor:
    """Return sums and differences of the halves of ``[2P, …]`` over √2, its own inverse."""
    a, b = x.tensor_split([n_pairs])
    return torch.cat([a + b, a - b]) * 0.5**0.5


def _unpack(weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Pair]]:
    """Return weight and bias of m = 0, and the complex weights, of ``SO2Linear.flat_weights``."""
    return weights[0], weights[1], list(zip(weights[2::2], weights[3::2], strict=True))
