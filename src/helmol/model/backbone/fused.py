"""The SO(2) convolution as two differentiable steps with hand-written gradients.

Same function as the plain form in :mod:`helmol.model.backbone.so2`, tested equal to it (a first map with
radial weights of directed edges has the plain form alone). What it saves:

* every product reads and writes slices of whole ``[E, K, C]`` arrays in place: no splits, no joins;
* an order m > 0 is a product of complex numbers, done with three real matrix products instead of
  four: ``out₊ = (x₊+x₋)W_r − x₋(W_r+W_i)``, ``out₋ = (x₊+x₋)W_r + x₊(W_i−W_r)`` (Gauss); with unnatural
  channels the numbers are real and there are two;
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

from helmol.graph.axis import Axis
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


Weights = Sequence[Tensor]
"""Real and imaginary weight of one order, each ``[n·C_in, n·C_out]``; or the real one alone."""


def _product(out: Tensor, x: Tensor, weights: Weights, first: int, n: int, precision: str) -> None:
    """Write ``x (W_r + i W_i)`` of one order into its rows of ``out``."""
    real, *rest = weights
    if not rest:
        for start in (first, first + n):
            product(_half(x, start, n), real, precision, out=_half(out, start, n))
        return
    (imaginary,) = rest
    plus, minus = _half(x, first, n), _half(x, first + n, n)
    out_plus, out_minus = _half(out, first, n), _half(out, first + n, n)
    product(plus + minus, real, precision, out=out_plus)
    out_minus.copy_(out_plus)
    product(minus, real + imaginary, precision, out=out_plus, add=True, alpha=-1)
    product(plus, imaginary - real, precision, out=out_minus, add=True)


def _input_gradient(out: Tensor, g: Tensor, weights: Weights, first: int, n: int, precision: str) -> None:
    """Write ``g (W_r − i W_i)ᵀ`` of one order into its rows of ``out``."""
    real, *rest = weights
    if not rest:
        _product(out, g, [real.T], first, n, precision)
        return
    (imaginary,) = rest
    plus, minus = _half(g, first, n), _half(g, first + n, n)
    out_plus, out_minus = _half(out, first, n), _half(out, first + n, n)
    product(plus + minus, real.T, precision, out=out_plus)
    out_minus.copy_(out_plus)
    product(minus, (imaginary - real).T, precision, out=out_plus, add=True)
    product(plus, (imaginary + real).T, precision, out=out_minus, add=True, alpha=-1)


def _weight_gradient(
    x: Tensor, g: Tensor, weights: Weights, first: int, n: int, precision: str
) -> list[Tensor]:
    """Return ``x₊ᵀg₊ + x₋ᵀg₋`` and ``x₊ᵀg₋ − x₋ᵀg₊`` of one order, the second for complex weights."""
    x_plus, x_minus = _half(x, first, n), _half(x, first + n, n)
    g_plus, g_minus = _half(g, first, n), _half(g, first + n, n)
    if len(weights) == 1:
        real = product(x_plus.T, g_plus, precision)
        return [product(x_minus.T, g_minus, precision, out=real, add=True)]
    shared = product((x_plus - x_minus).T, g_plus, precision)
    imaginary = product(x_plus.T, g_minus - g_plus, precision, out=shared.clone(), add=True)
    return [product(x_minus.T, g_plus + g_minus, precision, out=shared, add=True), imaginary]


class FusedFirstOfPairs(torch.autograd.Function):
    """Sums and differences of the ends of each pair, then the first SO(2) map on them.

    All orders m > 0 are plain matrix products; see :class:`helmol.model.backbone.so2.SO2PairLinear`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, radial: Tensor, pairs: Pairs, axis: Axis, mmax: int, precision: str,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return hidden features ``[2P, K', C]``, |m| ≤ mmax, packed, and raw gates ``[2P, L·C]``.

        Args:
            ctx: autograd's.
            x: nodes ``[N, K, C]``, or both ends in the frames of the pairs ``[P, K, 2C]`` if those move.
            radial: ``[2P, L+1, C]``.
            pairs: the pairs.
            axis: what m = 0 consists of.
            mmax: largest order.
            precision: of the matrix products.
            weights: as ``SO2PairLinear.flat_weights`` lists them.
        """
        p, n_even = pairs.geometry.n_pairs, axis.n_even
        x, (bias, even_weights, odd_weights, orders) = x.contiguous(), _of_pairs(weights, axis)
        folded = _folded(x, radial, pairs, mmax)
        hidden = torch.empty_like(folded)
        gates = x.new_empty(len(folded), len(bias) - n_even)
        even, room, halves = axis.even(folded), axis.even(hidden), (slice(p), slice(p, None))
        for some, weight in zip(halves, even_weights, strict=True):
            product(even[some], weight[:, :n_even], precision, out=room[some])
            product(even[some], weight[:, n_even:], precision, out=gates[some])
        odd, room = axis.odd(folded), axis.odd(hidden)
        for some, weight in zip(halves, odd_weights, strict=False):
            product(odd[some], weight, precision, out=room[some])
        for (first, n), weight in zip(_blocks(axis, mmax), orders, strict=True):
            product(_half(folded, first, n), weight, precision, out=_half(hidden, first, n))
        hidden, gates = pairs.unfold(hidden), both_ways(gates, p) + bias[n_even:]
        axis.even(hidden).add_(bias[:n_even])
        ctx.axis, ctx.mmax, ctx.pairs, ctx.precision = axis, mmax, pairs, precision
        ctx.save_for_backward(x, radial, *weights)
        return hidden, gates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_hidden: Tensor, g_gates: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all inputs."""
        x, radial, *weights = ctx.saved_tensors
        pairs, axis, precision = ctx.pairs, ctx.axis, ctx.precision
        _, even_weights, odd_weights, orders = _of_pairs(weights, axis)
        p, blocks = pairs.geometry.n_pairs, _blocks(axis, ctx.mmax)
        halves = slice(p), slice(p, None)
        g_hidden = g_hidden.contiguous()
        g_bias = torch.cat([axis.even(g_hidden).sum(dim=0), g_gates.sum(dim=0)])
        g_hidden, g_gates = pairs.fold(g_hidden), both_ways(g_gates, p)
        folded = _folded(x, radial, pairs, ctx.mmax)
        g_even, g_odd = torch.cat([axis.even(g_hidden), g_gates], dim=1), axis.odd(g_hidden)
        gradients: list[Tensor | None] = [None] * len(weights)
        if any(ctx.needs_input_grad[6:]):  # forces alone need none of the weights' gradients
            even, odd = axis.even(folded), axis.odd(folded)
            gradients = [g_bias]
            gradients += [product(even[some].T, g_even[some], precision) for some in halves]
            if odd_weights:
                gradients += [product(odd[some].T, g_odd[some], precision) for some in halves]
            for first, n in blocks:
                rows = _half(folded, first, n), _half(g_hidden, first, n)
                gradients.append(product(rows[0].T, rows[1], precision))
        g_folded = folded  # its values are no longer needed
        room = axis.even(g_folded)
        for some, weight in zip(halves, even_weights, strict=True):
            product(g_even[some], weight.T, precision, out=room[some])
        room = axis.odd(g_folded)
        for some, weight in zip(halves, odd_weights, strict=False):
            product(g_odd[some], weight.T, precision, out=room[some])
        for (first, n), weight in zip(blocks, orders, strict=True):
            product(_half(g_hidden, first, n), weight.T, precision, out=_half(g_folded, first, n))
        if pairs.geometry.moving:
            g_x, g_radial = pairs.ends_folded_gradient(g_folded, x, radial)
        else:
            g_x, g_radial = pairs.gather_fold_gradient(g_folded, x, radial)
        return g_x, g_radial, None, None, None, None, *gradients


class FusedSecond(torch.autograd.Function):
    """Gate, then the second SO(2) map."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, raw: Tensor, axis: Axis, tanh: bool, mmax: int, precision: str,
        *weights: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return ``[E, K, C]``.

        Args:
            ctx: autograd's.
            hidden: ``[E, K', C]``, |m| ≤ mmax, packed.
            raw: gates before squashing, ``[E, L·C]``.
            axis: what m = 0 consists of.
            tanh: gates by tanh, else sigmoid.
            mmax: largest order.
            precision: of the matrix products.
            weights: as ``SO2Linear.flat_weights`` lists them.
        """
        (e, rows, c), lmax = hidden.shape, axis.lmax
        weight, bias, odd_weights, orders = _of_edges(weights, axis)
        gates = (torch.tanh(raw) if tanh else torch.sigmoid(raw)).view(e, lmax, c)
        gated = gate(hidden, gates, degree_of_m_major(lmax).to(hidden.device), axis)
        out = hidden.new_empty(e, (lmax + 1) ** 2, c)
        out[:, rows:] = 0
        zero = out[:, : lmax + 1] if not axis.unnatural else torch.empty_like(out[:, : lmax + 1])
        product(axis.even(gated), weight.T, precision, out=axis.even(zero)).add_(bias)
        if odd_weights:
            product(axis.odd(gated), odd_weights[0], precision, out=axis.odd(zero))
            out[:, : lmax + 1] = axis.unpack(zero)
        for (first, n), some in zip(_slices(lmax, mmax)[1:], orders, strict=True):
            _product(out, gated, some, first, n, precision)
        ctx.axis, ctx.tanh, ctx.mmax, ctx.precision = axis, tanh, mmax, precision
        ctx.save_for_backward(hidden, gates, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all inputs."""
        hidden, gates, *weights = ctx.saved_tensors
        axis, precision = ctx.axis, ctx.precision
        weight, _, odd_weights, orders = _of_edges(weights, axis)
        grad, slices = grad.contiguous(), _slices(axis.lmax, ctx.mmax)[1:]
        degree = degree_of_m_major(axis.lmax).to(grad.device)
        gated = gate(hidden, gates, degree, axis)
        zero = axis.pack(grad[:, : axis.lmax + 1])
        g_even, g_odd = axis.even(zero), axis.odd(zero)
        gradients: list[Tensor | None] = [None] * len(weights)
        if any(ctx.needs_input_grad[6:]):
            gradients = [product(g_even.T, axis.even(gated), precision), g_even.sum(dim=0)]
            if odd_weights:
                gradients.append(product(axis.odd(gated).T, g_odd, precision))
            for (first, n), some in zip(slices, orders, strict=True):
                gradients += _weight_gradient(gated, grad, some, first, n, precision)
        g_gated = gated  # its values are no longer needed
        product(g_even, weight, precision, out=axis.even(g_gated))
        if odd_weights:
            product(g_odd, odd_weights[0].T, precision, out=axis.odd(g_gated))
        for (first, n), some in zip(slices, orders, strict=True):
            _input_gradient(g_gated, grad, some, first, n, precision)
        g_hidden, g_gates = gate_gradient(g_gated, hidden, gates, degree, axis, tanh=ctx.tanh)
        return g_hidden, g_gates.flatten(1), None, None, None, None, *gradients


def _folded(x: Tensor, radial: Tensor, pairs: Pairs, mmax: int) -> Tensor:
    """Return sums and differences of the ends, ``[2P, K', C]``."""
    if pairs.geometry.moving:
        return pairs.ends_folded(x, radial, mmax)
    return pairs.gather_fold(x, radial, mmax)


def both_ways(x: Tensor, n_pairs: int) -> Tensor:
    """Return sums and differences of the halves of ``[2P, …]`` over √2, its own inverse."""
    a, b = x.tensor_split([n_pairs])
    return torch.cat([a + b, a - b]) * 0.5**0.5


def _blocks(axis: Axis, mmax: int) -> list[tuple[int, int]]:
    """Return the rows of m > 0 that one matrix of a map of pairs mixes: first row and number.

    All of an order, or with unnatural channels those of +m and those of −m apart.
    """
    slices = _slices(axis.lmax, mmax)[1:]
    if not axis.unnatural:
        return [(first, 2 * n) for first, n in slices]
    return [(start, n) for first, n in slices for start in (first, first + n)]


def _of_pairs(weights: Weights, axis: Axis) -> tuple[Tensor, Weights, Weights, Weights]:
    """Return bias, even and odd weights of m = 0, and those of m > 0, of an ``SO2PairLinear``."""
    first = 5 if axis.unnatural else 3
    return weights[0], weights[1:3], weights[3:first], weights[first:]


def _of_edges(weights: Weights, axis: Axis) -> tuple[Tensor, Tensor, Weights, list[Weights]]:
    """Return even weight, bias and odd weight of m = 0, and those of each m > 0, of an ``SO2Linear``."""
    if axis.unnatural:
        return weights[0], weights[1], weights[2:3], [[weight] for weight in weights[3:]]
    return weights[0], weights[1], (), list(zip(weights[2::2], weights[3::2], strict=True))
