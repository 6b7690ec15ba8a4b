"""The SO(2) convolution as one differentiable step with hand-written gradients.

Same function as the plain form in :mod:`helmol.model.backbone.so2`, tested equal to it. What it saves:

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

from helmol.graph.layout import degree_of_m_major, m_sizes
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


def _by_order(x: Tensor, factor: Tensor, out: Tensor, mmax: int) -> None:
    """Write ``out = x · factor`` where ``factor [E, L+1, C]`` is equal for ±m."""
    e, _, c = x.shape
    for m, (first, n) in enumerate(_slices(factor.shape[1] - 1, mmax)):
        signs = 1 if m == 0 else 2
        rows, shape = slice(first, first + signs * n), (e, signs, n, c)
        torch.mul(x[:, rows].view(shape), factor[:, None, m:], out=out[:, rows].view(shape))


def _summed_by_degree(x: Tensor, y: Tensor, lmax: int, mmax: int) -> Tensor:
    """Return ``Σ_m x · y`` for each degree, ``[E, L+1, C]``."""
    result = x.new_zeros(len(x), lmax + 1, x.shape[2])
    for m, (first, n) in enumerate(_slices(lmax, mmax)):
        for start in (first,) if m == 0 else (first, first + n):
            rows = slice(start, start + n)
            result[:, m:].addcmul_(x[:, rows], y[:, rows])
    return result


class FusedConvolution(torch.autograd.Function):
    """Ends of the edge times radial weights, first SO(2) map, gate, second SO(2) map; see above."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, radial: Tensor, pairs: Pairs | None, tanh: bool, mmax: int, precision: str,
        *weights: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return ``[E, K, C]``.

        Args:
            ctx: autograd's.
            x: nodes ``[N, K, C]`` if there are ``pairs``, else both ends in the edge frame ``[E, K, 2C]``.
            radial: ``[E, L+1, 2C]``.
            pairs: where the nodes are rotated to.
            tanh: gates by tanh, else sigmoid.
            mmax: largest order.
            precision: of the matrix products.
            weights: of both maps, as ``SO2Linear.flat_weights`` lists them.
        """
        e, k, lmax = len(radial), x.shape[1], radial.shape[1] - 1
        first_zero, first_bias, first_pairs, second_zero, second_bias, second_pairs = _unpack(weights, mmax)
        c = second_bias.shape[0] // (lmax + 1)
        x, (_, *orders) = x.contiguous(), _slices(lmax, mmax)
        degree = degree_of_m_major(lmax).to(x.device)
        scaled = _scaled(x, radial, pairs, mmax)
        hidden = x.new_empty(e, _rows(lmax, mmax), c)
        zero = product(_half(scaled, 0, lmax + 1), first_zero.T, precision).add_(first_bias)
        _half(hidden, 0, lmax + 1).copy_(zero[:, : (lmax + 1) * c])
        gates = zero[:, (lmax + 1) * c :].contiguous().view(e, lmax, c)
        gates = gates.tanh_() if tanh else gates.sigmoid_()
        for (first, n), pair in zip(orders, first_pairs, strict=True):
            _product(hidden, scaled, pair, first, n, precision)
        gated = gate(hidden, gates, degree)
        out = x.new_empty(e, k, c)
        out[:, hidden.shape[1] :] = 0
        zero = _half(out, 0, lmax + 1)
        product(_half(gated, 0, lmax + 1), second_zero.T, precision, out=zero).add_(second_bias)
        for (first, n), pair in zip(orders, second_pairs, strict=True):
            _product(out, gated, pair, first, n, precision)
        ctx.tanh, ctx.mmax, ctx.pairs, ctx.precision = tanh, mmax, pairs, precision
        ctx.save_for_backward(x, radial, hidden, gates, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of all inputs."""
        x, radial, hidden, gates, *weights = ctx.saved_tensors
        lmax, mmax, pairs, precision = radial.shape[1] - 1, ctx.mmax, ctx.pairs, ctx.precision
        first_zero, _, first_pairs, second_zero, _, second_pairs = _unpack(weights, mmax)
        grad, slices = grad.contiguous(), _slices(lmax, mmax)
        orders = slices[1:]
        degree = degree_of_m_major(lmax).to(grad.device)
        gated = gate(hidden, gates, degree)
        g0 = _half(grad, 0, lmax + 1)
        # Forces alone need none of the weights' gradients.
        learns = any(ctx.needs_input_grad[6:])
        nothing: list[Tensor | None] = [None] * (len(weights) // 2)
        second = _weight_gradients(g0, gated, grad, slices, precision) if learns else nothing
        g_gated = gated  # its values are no longer needed
        product(g0, second_zero, precision, out=_half(g_gated, 0, lmax + 1))
        for (first, n), pair in zip(orders, second_pairs, strict=True):
            _input_gradient(g_gated, grad, pair, first, n, precision)
        g_hidden, g_gates = gate_gradient(g_gated, hidden, gates, degree, tanh=ctx.tanh)
        scaled = _scaled(x, radial, pairs, mmax)
        g0 = torch.cat([_half(g_hidden, 0, lmax + 1), g_gates.flatten(1)], dim=1)
        first_grads = _weight_gradients(g0, scaled, g_hidden, slices, precision) if learns else nothing
        g_scaled = scaled
        product(g0, first_zero, precision, out=_half(g_scaled, 0, lmax + 1))
        for (first, n), pair in zip(orders, first_pairs, strict=True):
            _input_gradient(g_scaled, g_hidden, pair, first, n, precision)
        g_x, g_radial = _scaled_gradient(g_scaled, x, radial, pairs, mmax)
        return g_x, g_radial, None, None, None, None, *first_grads, *second


def _weight_gradients(
    g0: Tensor, x: Tensor, grad: Tensor, slices: Sequence[tuple[int, int]], precision: str
) -> list[Tensor | None]:
    """Return the gradients of all weights of one map, as ``SO2Linear.flat_weights`` lists them."""
    gradients: list[Tensor | None] = [product(g0.T, _half(x, *slices[0]), precision), g0.sum(dim=0)]
    for first, n in slices[1:]:
        gradients += _weight_gradient(x, grad, first, n, precision)
    return gradients


def _scaled(x: Tensor, radial: Tensor, pairs: Pairs | None, mmax: int) -> Tensor:
    """Return both ends of each edge in its frame times the radial weights, ``[E, K', 2C]``."""
    if pairs is not None:
        return pairs.gather_scale(x, radial, mmax)
    scaled = x.new_empty(len(x), _rows(radial.shape[1] - 1, mmax), x.shape[2])
    _by_order(x, radial, scaled, mmax)
    return scaled


def _scaled_gradient(
    g_scaled: Tensor, x: Tensor, radial: Tensor, pairs: Pairs | None, mmax: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`_scaled` with respect to ``x`` and ``radial``."""
    if pairs is not None:
        return pairs.gather_scale_gradient(g_scaled, x, radial)
    g_radial = _summed_by_degree(g_scaled, x, radial.shape[1] - 1, mmax)
    g_x = torch.empty_like(x)
    g_x[:, g_scaled.shape[1] :] = 0
    _by_order(g_scaled, radial, g_x, mmax)
    return g_x, g_radial


def _rows(lmax: int, mmax: int) -> int:
    """Return the number of m-major rows with |m| ≤ mmax; they come first."""
    return sum(m_sizes(lmax)[: mmax + 1])


def _unpack(
    weights: tuple[Tensor, ...] | list[Tensor], mmax: int
) -> tuple[Tensor, Tensor, list[Pair], Tensor, Tensor, list[Pair]]:
    """Split the flat list of weights of both maps."""
    half = 2 + 2 * mmax
    parts = []
    for some in (weights[:half], weights[half:]):
        pairs = [(some[2 + 2 * k], some[3 + 2 * k]) for k in range(mmax)]
        parts += [some[0], some[1], pairs]
    return tuple(parts)  # type: ignore[return-value]
