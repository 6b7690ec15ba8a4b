"""Both edges of a pair side by side, in the frame of one: what blocks are read from and written to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from helmol.graph import EdgeGeometry


class BothEdges(torch.autograd.Function):
    """Gather the edges i→j and j→i of pairs side by side, in the frame of i→j; once differentiable."""

    @staticmethod
    def forward(ctx: Any, edges: Tensor, geometry: EdgeGeometry, index: Tensor) -> Tensor:
        """Return the components of ``[e_ij ‖ S e_ji]``, ``[n, K, 2C]`` l-major.

        Args:
            ctx: autograd's.
            edges: ``[2P, K, C]`` m-major.
            geometry: of the pairs.
            index: the edges i→j, no pair twice, ``[n]``.
        """
        ctx.geometry, ctx.index = geometry, index
        return _gather(edges, geometry, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the edges."""
        return _scatter(gradient, ctx.geometry, ctx.index), None, None


class ToBothEdges(torch.autograd.Function):
    """Undo :class:`BothEdges`, which is its own adjoint; edges of pairs that are not named are zero."""

    @staticmethod
    def forward(ctx: Any, ends: Tensor, geometry: EdgeGeometry, index: Tensor) -> Tensor:
        """Return edges ``[2P, K, C]``; arguments as :class:`BothEdges` has and returns them."""
        ctx.geometry, ctx.index = geometry, index
        return _scatter(ends, geometry, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the ends."""
        return _gather(gradient, ctx.geometry, ctx.index), None, None


def _gather(edges: Tensor, geometry: EdgeGeometry, index: Tensor) -> Tensor:
    _, k, c = edges.shape
    natural, both = c - geometry.unnatural, _both(geometry, index)
    held = edges.reshape(-1, c)
    rows = (both[:, None] * k + geometry.to_l_major[:, None]).flatten()
    ends = held.index_select(0, rows).view(len(index), k, 2 * c)
    if geometry.unnatural:  # edges hold these turned, see EdgeGeometry
        places, signs = _turned(geometry, both)
        turned = held[:, natural:].index_select(0, places).view(len(index), k, 2, -1)
        ends.view(len(index), k, 2, c)[..., natural:] = turned * signs
    ends[..., c:] *= geometry.flip[:, None]
    return ends


def _scatter(ends: Tensor, geometry: EdgeGeometry, index: Tensor) -> Tensor:
    (_, k, width), both = ends.shape, _both(geometry, index)
    c = width // 2
    natural = c - geometry.unnatural
    ends = ends.clone(memory_format=torch.contiguous_format)
    ends[..., c:] *= geometry.flip[:, None]
    edges = ends.new_zeros(2 * geometry.n_pairs, k, c)
    held = edges.view(-1, c)
    held.index_copy_(0, (both[:, None] * k + geometry.to_l_major[:, None]).flatten(), ends.view(-1, c))
    if geometry.unnatural:
        places, signs = _turned(geometry, both)
        turned = ends.view(len(index), k, 2, c)[..., natural:] * signs
        held[:, natural:].index_copy_(0, places, turned.flatten(0, 2))
    return edges


def _both(geometry: EdgeGeometry, index: Tensor) -> Tensor:
    """Return edges and their opposites, ``[n, 2]``."""
    return torch.stack([index, (index + geometry.n_pairs) % (2 * geometry.n_pairs)], dim=1)


def _turned(geometry: EdgeGeometry, both: Tensor) -> tuple[Tensor, Tensor]:
    """Return where edges hold the l-major components of unnatural channels, and their signs."""
    places, signs = (part.index_select(0, geometry.to_l_major) for part in geometry.turn)
    return (both[:, None] * len(places) + places[:, None]).flatten(), signs[:, None, None]
