"""Between atoms and edges, with gradients: the memory-bound part of the network.

A few operations and their gradients, each in a form of torch operations and, on a CPU with a compiler,
as one pass of C over the pairs. Both forms agree to rounding. Geometry is a constant here; where
positions need gradients, :class:`helmol.graph.EdgeGeometry` has the plain form.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from helmol.graph import native
from helmol.graph.frames import EdgeGeometry
from helmol.graph.layout import degree_of_m_major, m_sizes, quarter_turn


@dataclass(frozen=True)
class Pairs:
    """Hold the geometry of a batch in the form that the kernels read.

    Attributes:
        geometry: of the pairs.
        native: whether the C kernels are used.
    """

    geometry: EdgeGeometry
    native: bool

    @classmethod
    def of(cls, geometry: EdgeGeometry) -> Pairs:
        """Choose the kernels for a geometry."""
        return cls(geometry, native.usable(geometry.flip, geometry.lmax))

    @cached_property
    def flip(self) -> Tensor:
        """Signs between the directions, m-major, ``[K]``."""
        return self.geometry.flip[self.geometry.to_m_major].contiguous()

    @cached_property
    def degree(self) -> Tensor:
        """Degree of each m-major row, ``[K]``."""
        return degree_of_m_major(self.geometry.lmax).to(self.geometry.flip.device)

    @cached_property
    def turn(self) -> tuple[Tensor, Tensor]:
        """Rows and signs of J, see :func:`helmol.graph.layout.quarter_turn`."""
        rows, signs = quarter_turn(self.geometry.lmax)
        return rows.to(self.flip.device), signs.to(self.flip)

    @cached_property
    def _packed(self) -> Tensor:
        """All frames of a pair one after the other, ``[P, Σ(2l+1)²]``."""
        return torch.cat([frame.flatten(1) for frame in self.geometry.frames], dim=1).contiguous()

    @cached_property
    def _atoms(self) -> tuple[Tensor, Tensor]:
        i, j = self.geometry.pair_index
        return i.contiguous(), j.contiguous()

    def _arguments(self) -> list[ctypes.c_void_p]:
        """Return the addresses that all kernels begin their geometry with."""
        return [native.pointer(t) for t in (*self._atoms, self._packed)]

    def _rows(self) -> list[ctypes.c_void_p]:
        return [native.pointer(self.flip), native.pointer(self.geometry.to_l_major)]

    def _scratch(self, channels: int, n: int) -> Tensor:
        """Return room for one pair in its frame, ``n`` times per part."""
        k = (self.geometry.lmax + 1) ** 2
        return self.flip.new_empty(native.n_parts(self.geometry.n_pairs), n, k, 2 * channels)

    def gather_scale(self, nodes: Tensor, radial: Tensor, mmax: int) -> Tensor:
        """Return both ends of each directed edge in its frame, times its radial weights.

        Args:
            nodes: ``[N, K, C]`` l-major.
            radial: ``[2P, L+1, 2C]``, one weight per degree and channel.
            mmax: components of higher order are left out.

        Returns:
            ``[2P, K', 2C]``, the m-major rows with |m| ≤ mmax, channels ``[x_i ‖ x_j]``.
        """
        p, lmax, c = self.geometry.n_pairs, self.geometry.lmax, nodes.shape[2]
        rows = sum(m_sizes(lmax)[: mmax + 1])
        if not self.native:
            weights = radial.index_select(1, self.degree[:rows])
            return self.geometry.to_edges(nodes)[:, :rows] * weights
        scaled, scratch = nodes.new_empty(2 * p, rows, 2 * c), self._scratch(c, 1)
        nodes, radial = nodes.contiguous(), radial.contiguous()
        kernel = native.function("gather_scale", nodes.dtype)
        fixed = [native.pointer(nodes), *self._arguments(), native.pointer(radial), *self._rows()]
        sizes = [ctypes.c_long(n) for n in (p, lmax, c, rows)]

        def work(begin: int, end: int, part: int) -> None:
            kernel(
                *fixed, native.pointer(self.degree), *sizes, ctypes.c_long(begin), ctypes.c_long(end),
                native.pointer(scratch[part]), native.pointer(scaled),
            )  # fmt: skip

        native.over_pairs(p, work)
        return scaled

    def gather_scale_gradient(self, gradient: Tensor, nodes: Tensor, radial: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of :meth:`gather_scale` with respect to nodes and radial weights."""
        p, lmax, c = self.geometry.n_pairs, self.geometry.lmax, nodes.shape[2]
        rows = gradient.shape[1]
        if not self.native:
            return self._plain_gradient(gradient, nodes, radial)
        parts = native.n_parts(p)
        g_nodes = nodes.new_zeros(parts, *nodes.shape)
        g_radial, scratch = torch.empty_like(radial), self._scratch(c, 2)
        gradient, nodes, radial = gradient.contiguous(), nodes.contiguous(), radial.contiguous()
        kernel = native.function("gather_scale_backward", nodes.dtype)
        fixed = [
            native.pointer(gradient), native.pointer(nodes), *self._arguments(), native.pointer(radial),
            *self._rows(), native.pointer(self.degree),
        ]  # fmt: skip
        sizes = [ctypes.c_long(n) for n in (p, lmax, c, rows)]

        def work(begin: int, end: int, part: int) -> None:
            kernel(
                *fixed, *sizes, ctypes.c_long(begin), ctypes.c_long(end), native.pointer(scratch[part]),
                native.pointer(g_nodes[part]), native.pointer(g_radial),
            )  # fmt: skip

        native.over_pairs(p, work)
        return (g_nodes[0] if parts == 1 else g_nodes.sum(dim=0)), g_radial

    def _plain_gradient(self, gradient: Tensor, nodes: Tensor, radial: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients by torch operations."""
        rows, (n, k, c) = gradient.shape[1], nodes.shape
        local = self.geometry.to_edges(nodes)[:, :rows]
        g_radial = torch.zeros_like(radial).index_add(1, self.degree[:rows], gradient * local)
        g_local = gradient * radial.index_select(1, self.degree[:rows])
        g_local = torch.cat([g_local, g_local.new_zeros(len(g_local), k - rows, 2 * c)], dim=1)
        # What belongs to j on the edge i→j goes to the source of the edge j→i, seen from its frame.
        own, other = g_local.split(c, dim=2)
        forward, backward = other.split(len(other) // 2) if len(other) else (other, other)
        turned = torch.cat([backward, forward]) * self.flip[:, None]
        return self.geometry.to_nodes(own + turned, n), g_radial

    def ends_folded(self, ends: Tensor, radial: Tensor, mmax: int) -> Tensor:
        """Return what :meth:`gather_fold` does from ends that are in the frames of the pairs already.

        Args:
            ends: ``[P, K, 2C]``, see :meth:`EdgeGeometry.to_pairs`.
            radial: ``[2P, L+1, C]``.
            mmax: components of higher order are left out.
        """
        rows = sum(m_sizes(self.geometry.lmax)[: mmax + 1])
        x, y = ends[:, :rows].chunk(2, dim=2)
        own, other = radial.index_select(1, self.degree[:rows]).tensor_split([len(ends)])
        return self.fold(torch.cat([own * x, other * y * self.flip[:rows, None]]), plain=True)

    def ends_folded_gradient(self, gradient: Tensor, ends: Tensor, radial: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of :meth:`ends_folded` with respect to ends and radial weights."""
        rows, p = gradient.shape[1], len(ends)
        flip, degree = self.flip[:rows, None], self.degree[:rows]
        u, v = self.unfold(gradient).tensor_split([p])
        v = v * flip
        x, y = ends[:, :rows].chunk(2, dim=2)
        g_radial = torch.zeros_like(radial).index_add(1, degree, torch.cat([u * x, v * y]))
        weight, other = radial.index_select(1, degree).tensor_split([p])
        g_ends = torch.zeros_like(ends)
        torch.cat([u * weight, v * other], dim=2, out=g_ends[:, :rows])
        return g_ends, g_radial

    def gather_fold(self, nodes: Tensor, radial: Tensor, mmax: int) -> Tensor:
        """Return sum and difference of the two ends of each pair in its frame, with their radial weights.

        With ``x = w_i x_i`` and ``y = flip w_j x_j`` (x_j as the edge j→i sees its source), rows of the pairs
        are ``(x + y)/√2`` first, then ``J (x − y)/√2``; see :class:`helmol.model.backbone.so2.SO2PairLinear`.

        Args:
            nodes: ``[N, K, C]`` l-major.
            radial: ``[2P, L+1, C]``, weights of i, then those of j.
            mmax: components of higher order are left out.

        Returns:
            ``[2P, K', C]``, the m-major rows with |m| ≤ mmax.
        """
        p, lmax, c = self.geometry.n_pairs, self.geometry.lmax, nodes.shape[2]
        rows = sum(m_sizes(lmax)[: mmax + 1])
        if not self.native:
            return self.ends_folded(self.geometry.to_pairs(nodes), radial, mmax)
        folded, scratch = nodes.new_empty(2 * p, rows, c), self._scratch(c, 1)
        nodes, radial = nodes.contiguous(), radial.contiguous()
        kernel = native.function("gather_fold", nodes.dtype)
        fixed = [native.pointer(nodes), *self._arguments(), native.pointer(radial), *self._fold_rows()]
        sizes = [ctypes.c_long(n) for n in (p, lmax, c, rows)]

        def work(begin: int, end: int, part: int) -> None:
            kernel(
                *fixed, *sizes, ctypes.c_long(begin), ctypes.c_long(end), native.pointer(scratch[part]),
                native.pointer(folded),
            )  # fmt: skip

        native.over_pairs(p, work)
        return folded

    def gather_fold_gradient(self, gradient: Tensor, nodes: Tensor, radial: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of :meth:`gather_fold` with respect to nodes and radial weights."""
        p, lmax, c = self.geometry.n_pairs, self.geometry.lmax, nodes.shape[2]
        rows = gradient.shape[1]
        if not self.native:
            ends = self.geometry.to_pairs(nodes)
            g_ends, g_radial = self.ends_folded_gradient(gradient, ends, radial)
            own, other = g_ends.chunk(2, dim=2)
            turned = torch.cat([own, other * self.flip[:, None]])
            return self.geometry.to_nodes(turned, len(nodes)), g_radial
        parts = native.n_parts(p)
        g_nodes = nodes.new_zeros(parts, *nodes.shape)
        g_radial, scratch = radial.new_empty(radial.shape), self._scratch(c, 2)
        gradient, nodes, radial = gradient.contiguous(), nodes.contiguous(), radial.contiguous()
        kernel = native.function("gather_fold_backward", nodes.dtype)
        fixed = [
            native.pointer(gradient), native.pointer(nodes), *self._arguments(), native.pointer(radial),
            *self._fold_rows(),
        ]  # fmt: skip
        sizes = [ctypes.c_long(n) for n in (p, lmax, c, rows)]

        def work(begin: int, end: int, part: int) -> None:
            kernel(
                *fixed, *sizes, ctypes.c_long(begin), ctypes.c_long(end), native.pointer(scratch[part]),
                native.pointer(g_nodes[part]), native.pointer(g_radial),
            )  # fmt: skip

        native.over_pairs(p, work)
        return (g_nodes[0] if parts == 1 else g_nodes.sum(dim=0)), g_radial

    def fold(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Return sums and differences of the directions, ``(x_ij + x_ji)/√2`` and ``J (x_ij − x_ji)/√2``.

        Args:
            x: ``[2P, K', C]`` m-major, whole orders.
            plain: by torch operations, which autograd knows.
        """
        if self.native and not plain:
            return self._folded(x, 1)
        rows, signs = (part[: x.shape[1]] for part in self.turn)
        a, b = x.tensor_split([self.geometry.n_pairs])
        turned = (a - b).index_select(1, rows) * signs[:, None]
        return torch.cat([a + b, turned]) * 0.5**0.5

    def unfold(self, x: Tensor, *, plain: bool = False) -> Tensor:
        """Return the directions of what :meth:`fold` made; its inverse and its transpose."""
        if self.native and not plain:
            return self._folded(x, 0)
        rows, signs = (part[: x.shape[1]] for part in self.turn)
        a, b = x.tensor_split([self.geometry.n_pairs])
        b = b.index_select(1, rows) * signs.index_select(0, rows)[:, None]
        return torch.cat([a + b, a - b]) * 0.5**0.5

    def _folded(self, x: Tensor, fold: int) -> Tensor:
        """Run the kernel of :meth:`fold` and :meth:`unfold`."""
        x, out = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        kernel = native.function("fold", x.dtype)
        fixed = [native.pointer(t) for t in (x, *self.turn)]
        p = self.geometry.n_pairs
        sizes = [ctypes.c_long(n) for n in (p, x.shape[1], x.shape[2], fold)]

        def work(begin: int, end: int, _: int) -> None:
            kernel(*fixed, *sizes, ctypes.c_long(begin), ctypes.c_long(end), native.pointer(out))

        native.over_pairs(p, work)
        return out

    def _fold_rows(self) -> list[ctypes.c_void_p]:
        return [*self._rows(), *[native.pointer(t) for t in (self.degree, *self.turn)]]

    def weighted_sum(self, edges: Tensor, n_nodes: int) -> Tensor:
        """Sum edges ``[2P, K, C]``, faded by the envelope, at their atoms, ``[N, K, C]``; for autograd."""
        envelope = self.geometry.envelope
        if self.geometry.moving or self.geometry.twice:
            return self.geometry.to_nodes(edges * torch.cat([envelope, envelope])[:, None, None], n_nodes)
        out: Tensor = Scatter.apply(edges, envelope, self, n_nodes)
        return out

    def scatter(self, edges: Tensor, weight: Tensor, n_nodes: int) -> Tensor:
        """Rotate weighted edge features to the laboratory and sum them at their source atoms.

        Args:
            edges: ``[2P, K, C]`` m-major, edge frames.
            weight: of each pair, ``[P]``.
            n_nodes: number of atoms N.

        Returns:
            ``[N, K, C]`` l-major.
        """
        if not self.native:
            return self.geometry.to_nodes(edges * torch.cat([weight, weight])[:, None, None], n_nodes)
        p, lmax, c = self.geometry.n_pairs, self.geometry.lmax, edges.shape[2]
        parts, scratch = native.n_parts(p), self._scratch(c, 1)
        nodes = edges.new_zeros(parts, n_nodes, edges.shape[1], c)
        edges, weight = edges.contiguous(), weight.contiguous()
        kernel = native.function("scatter", edges.dtype)
        fixed = [native.pointer(edges), native.pointer(weight), *self._arguments(), *self._rows()]
        sizes = [ctypes.c_long(n) for n in (p, lmax, c)]

        def work(begin: int, end: int, part: int) -> None:
            kernel(
                *fixed, *sizes, ctypes.c_long(begin), ctypes.c_long(end), native.pointer(scratch[part]),
                native.pointer(nodes[part]),
            )  # fmt: skip

        native.over_pairs(p, work)
        return nodes[0] if parts == 1 else nodes.sum(dim=0)

    def scatter_gradient(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of :meth:`scatter` with respect to the edges, ``[2P, K, C]``."""
        p, lmax, (_, k, c) = self.geometry.n_pairs, self.geometry.lmax, gradient.shape
        if not self.native:
            own = self.geometry.to_edges(gradient)[..., :c]
            return own * torch.cat([weight, weight])[:, None, None]
        edges, scratch = gradient.new_empty(2 * p, k, c), self._scratch(c, 1)
        gradient, weight = gradient.contiguous(), weight.contiguous()
        kernel = native.function("scatter_backward", gradient.dtype)
        fixed = [native.pointer(gradient), native.pointer(weight), *self._arguments(), *self._rows()]
        sizes = [ctypes.c_long(n) for n in (p, lmax, c)]

        def work(begin: int, end: int, part: int) -> None:
            kernel(
                *fixed, *sizes, ctypes.c_long(begin), ctypes.c_long(end), native.pointer(scratch[part]),
                native.pointer(edges),
            )  # fmt: skip

        native.over_pairs(p, work)
        return edges


class Scatter(torch.autograd.Function):
    """:meth:`Pairs.scatter` for autograd; once differentiable."""

    @staticmethod
    def forward(ctx, edges: Tensor, weight: Tensor, pairs: Pairs, n_nodes: int) -> Tensor:  # type: ignore[no-untyped-def]
        """Return ``[N, K, C]``."""
        ctx.pairs = pairs
        ctx.save_for_backward(weight)
        return pairs.scatter(edges, weight, n_nodes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        """Return the gradient of the edges; the weights are part of the constant geometry."""
        (weight,) = ctx.saved_tensors
        return ctx.pairs.scatter_gradient(gradient, weight), None, None, None
