"""Gate and norm of edge features with their gradients, in C where it is there, else in torch.

``x`` has shape ``[E, K, C]``, not necessarily dense over the first two dimensions. Nothing here is known
to autograd; :mod:`helmol.model.backbone.fused` and :mod:`helmol.model.backbone.fused_layers` use it.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from helmol.graph.axis import Axis
from helmol.native import call


def gate(x: Tensor, gates: Tensor, degree: Tensor, axis: Axis | None = None) -> Tensor:
    """Return ``x_l · gates_l`` and SiLU of l = 0.

    Args:
        x: ``[E, K, C]``, the first row l = 0.
        gates: ``[E, L, C]`` after squashing, for l = 1 … L.
        degree: of each row, ``[≥ K]``.
        axis: ``x`` is packed in this way, and so is what is returned; dense then.
    """
    n, k, c = x.shape
    out = torch.empty_like(x)
    if call.usable(x, gates) and gates.is_contiguous():
        places, sizes = _places(x, axis)
        numbers = (*sizes, gates.shape[1], c, axis.natural if axis else c)
        call.run("gate", n, [x, gates, degree, places], numbers, [], [out], strided=True)
    elif axis is not None and axis.unnatural:
        factors = gates.flatten(1).index_select(1, _gate_of(axis, degree, k))
        torch.mul(x.flatten(1)[:, c:], factors, out=out.view(n, k * c)[:, c:])
    else:
        torch.mul(x[:, 1:], gates.index_select(1, degree[1:k] - 1), out=out[:, 1:])
    out[:, 0] = torch.nn.functional.silu(x[:, 0])
    return out


def gate_gradient(
    g: Tensor, x: Tensor, gates: Tensor, degree: Tensor, axis: Axis | None = None, *, tanh: bool
) -> tuple[Tensor, Tensor]:
    """Return the gradients of :func:`gate` with respect to ``x`` and to the gates before squashing.

    Args:
        g: gradient of the result, strides as those of ``x``.
        x: as in :func:`gate`.
        gates: as in :func:`gate`.
        degree: as in :func:`gate`.
        axis: as in :func:`gate`.
        tanh: gates were squashed by tanh, else by the logistic function.
    """
    n, k, c = x.shape
    g_x = torch.empty_like(x)
    if call.usable(x, g, gates) and g.stride() == x.stride() and gates.is_contiguous():
        g_gates = torch.empty_like(gates)
        places, sizes = _places(x, axis)
        numbers = (*sizes, gates.shape[1], c, axis.natural if axis else c, int(tanh))
        inputs = [g, x, gates, degree, places]
        call.run("gate_backward", n, inputs, numbers, [], [g_x, g_gates], strided=True)
    else:
        if axis is not None and axis.unnatural:
            index, flat = _gate_of(axis, degree, k), gates.flatten(1)
            h, rest = g.flatten(1)[:, c:], x.flatten(1)[:, c:]
            torch.mul(h, flat.index_select(1, index), out=g_x.view(n, k * c)[:, c:])
            g_gates = torch.zeros_like(flat).index_add(1, index, h * rest).view(gates.shape)
        else:
            index = degree[1:k] - 1
            torch.mul(g[:, 1:], gates.index_select(1, index), out=g_x[:, 1:])
            g_gates = torch.zeros_like(gates).index_add(1, index, g[:, 1:] * x[:, 1:])
        g_gates *= (1 - gates.square()) if tanh else gates * (1 - gates)
    scalar, s = x[:, 0], torch.sigmoid(x[:, 0])
    g_x[:, 0] = g[:, 0] * s * (1 + scalar * (1 - s))
    return g_x, g_gates


def _places(x: Tensor, axis: Axis | None) -> tuple[Tensor, tuple[int, ...]]:
    """Return where the kernels find rows of ``x``; distance of items, unit of places, number of rows."""
    k = x.shape[1]
    if axis is not None and axis.unnatural:
        return axis.starts, (x.stride(0), 1, k)
    return _rows(k), (*x.stride()[:2], k)


@cache
def _rows(k: int) -> Tensor:
    """Return the numbers of the rows, for both kinds of channels."""
    return torch.arange(k)[:, None].expand(-1, 2).contiguous()


def _gate_of(axis: Axis, degree: Tensor, k: int) -> Tensor:
    """Return which gate every number after l = 0 of packed features has, ``[(k − 1)·C]``."""
    channel = torch.arange(axis.channels, device=degree.device)
    places = axis.starts[:k].to(degree.device)[:, (channel >= axis.natural).long()] + channel
    gates = (degree[:k, None] - 1) * axis.channels + channel
    return torch.empty_like(gates).flatten().index_copy(0, places.flatten(), gates.flatten())[axis.channels :]


def norm(x: Tensor, weight: Tensor, balance: Tensor, degree: Tensor, eps: float, out: Tensor) -> Tensor:
    """Write the equivariant norm of ``x`` to ``out`` and return the scale of each row, ``[E]``.

    Args:
        x: ``[E, K, C]``, dense.
        weight: ``[L+1, C]``.
        balance: weight of each component in the power, ``[K, 1]``.
        degree: of each component, ``[K]``.
        eps: added to the power.
        out: ``[E, K, C]``.
    """
    n, k, c = x.shape
    if call.usable(x, out) and x.is_contiguous():
        scale = x.new_empty(n)
        numbers = (float(eps), k, c, *out.stride()[:2])
        call.run("norm", n, [x, weight, balance, degree], numbers, [], [scale, out], strided=True)
        return scale
    centred = _centred(x)
    scale = torch.rsqrt((centred.square() * balance).sum(dim=(1, 2)) + eps)
    torch.mul(centred * scale[:, None, None], weight.index_select(0, degree), out=out)
    return scale


def norm_gradient(
    g: Tensor, x: Tensor, scale: Tensor, weight: Tensor, balance: Tensor, degree: Tensor, g_x: Tensor
) -> Tensor:
    """Add the gradient of :func:`norm` to ``g_x`` and return that of the weight, ``[L+1, C]``.

    Args:
        g: gradient of the result, ``[E, K, C]``.
        x: as in :func:`norm`.
        scale: what :func:`norm` returned.
        weight: as in :func:`norm`.
        balance: as in :func:`norm`.
        degree: as in :func:`norm`.
        g_x: ``[E, K, C]``, dense.
    """
    n, k, c = x.shape
    if call.usable(x, g, g_x) and x.is_contiguous() and g_x.is_contiguous():
        parts = weight.new_zeros(call.n_parts(n), *weight.shape)
        inputs, numbers = [g, x, scale, weight, balance, degree], (k, c, *g.stride()[:2])
        call.run("norm_backward", n, inputs, numbers, [parts], [g_x], strided=True)
        return parts.sum(dim=0)
    centred = _centred(x)
    pulled = g * weight.index_select(0, degree)
    g_weight = torch.zeros_like(weight).index_add(0, degree, (g * centred * scale[:, None, None]).sum(dim=0))
    dot = (pulled * centred).sum(dim=(1, 2))
    g_s = pulled * scale[:, None, None] - (scale**3 * dot)[:, None, None] * balance * centred
    g_x += _centred(g_s)
    return g_weight


def _centred(x: Tensor) -> Tensor:
    """Return ``x`` with the mean over channels taken from its first row."""
    return torch.cat([x[:, :1] - x[:, :1].mean(dim=2, keepdim=True), x[:, 1:]], dim=1)
