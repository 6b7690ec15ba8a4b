"""Between atoms and edges, with gradients: the memory-bound part of the network.

A few operations and their gradients, each in a form of torch operations and, on a CPU with a compiler,
as one pass of C over the pairs. Both forms agree to rounding. Geometry is a constant here; where
positions need gradients, :class:`helmol.graph.EdgeGeometry` has the plain form.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from helmol.arrays import Float, Int64
from helmol.graph.axis import Axis
from helmol.graph.frames import EdgeGeometry
from helmol.graph.layout import degree_of_m_major, m_sizes
from helmol.native import call


@dataclass(frozen=True)
class Pairs:
    """Hold the geometry of a batch in the form that the kernels read.

    Attributes:
        geometry: of the pairs.
        native: whether the C kernels are used.
        twice: whether what is computed will be differentiated twice, which torch operations alone can.
    """

    geometry: EdgeGeometry
    native: bool
    twice: bool = False

    @classmethod
    def of(cls, geometry: EdgeGeometry, *, twice: bool = False) -> Pairs:
        """Choose the kernels for a geometry; ``twice`` for second derivatives, which are slower."""
        return cls(geometry, call.usable(geometry.flip, lmax=geometry.lmax), twice)

    @cached_property
    def flip(self) -> Float[Tensor, " K"]:
        """Signs between the directions, m-major, ``[K]``."""
        return self.geometry.flip[self.geometry.to_m_major].contiguous()

    @cached_property
    def degree(self) -> Int64[Tensor, " K"]:
        """Degree of each m-major row, ``[K]``."""
        return degree_of_m_major(self.geometry.lmax).to(self.geometry.flip.device)

    @property
    def turn(self) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
        """Rows and signs of J, see :func:`helmol.graph.layout.quarter_turn`."""
        return self.geometry.turn

    @cached_property
    def _packed(self) -> Tensor:
        """All frames of a pair one after the other, ``[P, Σ(2l+1)²]``."""
        return torch.cat([frame.flatten(1) for frame in self.geometry.frames], dim=1).contiguous()

    @cached_property
    def _atoms(self) -> tuple[Tensor, Tensor]:
        i, j = self.geometry.pair_index
        return i.contiguous(), j.contiguous()

    def _geometry(self) -> list[Tensor]:
        """Return what all kernels begin their geometry with."""
        return [*self._atoms, self._packed]

    def _rows(self) -> list[Tensor]:
        return [self.flip, self.geometry.to_l_major, *self.turn]

    def _sizes(self, channels: int) -> tuple[int, int, int, int]:
        """Return the numbers of pairs, degrees, channels and natural channels."""
        geometry = self.geometry
        return geometry.n_pairs, geometry.lmax, channels, channels - geometry.unnatural

    def _run(
        self,
        name: str,
        inputs: Sequence[Tensor],
        sizes: Sequence[int],
        own: Sequence[Tensor],
        out: Sequence[Tensor],
    ) -> None:
        """Run a kernel over all pairs; arguments as in :func:`helmol.native.call.run`."""
        call.run(name, self.geometry.n_pairs, inputs, sizes, own, out)

    def _scratch(self, channels: int, n: int) -> Tensor:
        """Return room for one pair in its frame, ``n`` times per part."""
        k = (self.geometry.lmax + 1) ** 2
        return self.flip.new_empty(call.n_parts(self.geometry.n_pairs), n, k, 2 * channels)

    def _sums(self, like: Tensor) -> Tensor:
        """Return zeros of this shape for each part."""
        return like.new_zeros(call.n_parts(self.geometry.n_pairs), *like.shape)

    def ends_folded(
        self, ends: Float[Tensor, "P K C2"], radial: Float[Tensor, "2*P L C"], mmax: int
    ) -> Float[Tensor, "2*P rows C"]:
        """Return what :meth:`gather_fold` does from ends that are in the frames of the pairs already.

        Args:
            ends: ``[P, K, 2C]``, see :meth:`EdgeGeometry.to_pairs`.
            radial: ``[2P, L+1, C]``.
            mmax: components of higher order are left out.
        """
        rows = sum(m_sizes(self.geometry.lmax)[: mmax + 1])
        x, y = ends[:, :rows].chunk(2, dim=2)
        own, other = radial.index_select(1, self.degree[:rows]).tensor_split([len(ends)])
        both = torch.cat([own * x, other * y * self.geometry.flips(x.shape[2])[:rows]])
        return self.fold(self.axis(x.shape[2]).pack(both), plain=True)

    def ends_folded_gradient(
        self,
        gradient: Float[Tensor, "E rows C"],
        ends: Float[Tensor, "P K C2"],
        radial: Float[Tensor, "E L C"],
    ) -> tuple[Float[Tensor, "P K C2"], Float[Tensor, "E L C"]]:
        """Return the gradients of :meth:`ends_folded` with respect to ends and radial weights."""
        (_, rows, c), p = gradient.shape, len(ends)
        flip, degree = self.geometry.flips(c)[:rows], self.degree[:rows]
        u, v = self.axis(c).unpack(self.unfold(gradient)).tensor_split([p])
        v = v * flip
        x, y = ends[:, :rows].chunk(2, dim=2)
        g_radial = torch.zeros_like(radial).index_add(1, degree, torch.cat([u * x, v * y]))
        weight, other = radial.index_select(1, degree).tensor_split([p])
        g_ends = torch.zeros_like(ends)
        torch.cat([u * weight, v * other], dim=2, out=g_ends[:, :rows])
        return g_ends, g_radial

    def gather_fold(
        self, nodes: Float[Tensor, "N K C"], radial: Float[Tensor, "E L C"], mmax: int
    ) -> Float[Tensor, "E rows C"]:
        """Return sum and difference of the two ends of each pair in its frame, with their radial weights.

        With ``x = w_i x_i`` and ``y = flip w_j x_j`` (x_j as the edge j→i sees its source), rows of the pairs
        are ``(x + y)/√2`` first, then ``J (x − y)/√2``; see :class:`helmol.model.backbone.so2.SO2PairLinear`.

        Args:
            nodes: ``[N, K, C]`` l-major.
            radial: ``[2P, L+1, C]``, weights of i, then those of j.
            mmax: components of higher order are left out.

        Returns:
            ``[2P, K', C]``, the m-major rows with |m| ≤ mmax, packed (:class:`helmol.graph.axis.Axis`).
        """
        p, c = self.geometry.n_pairs, nodes.shape[2]
        rows = sum(m_sizes(self.geometry.lmax)[: mmax + 1])
        if not self.native:
            return self.ends_folded(self.geometry.to_pairs(nodes), radial, mmax)
        folded = nodes.new_empty(2 * p, rows, c)
        inputs = [nodes.contiguous(), *self._geometry(), radial.contiguous(), *self._fold_rows(c)]
        self._run("gather_fold", inputs, (*self._sizes(c), rows), [self._scratch(c, 1)], [folded])
        return folded

    def gather_fold_gradient(
        self,
        gradient: Float[Tensor, "E rows C"],
        nodes: Float[Tensor, "N K C"],
        radial: Float[Tensor, "E L C"],
    ) -> tuple[Float[Tensor, "N K C"], Float[Tensor, "E L C"]]:
        """Return the gradients of :meth:`gather_fold` with respect to nodes and radial weights."""
        rows, c = gradient.shape[1:]
        if not self.native:
            ends = self.geometry.to_pairs(nodes)
            g_ends, g_radial = self.ends_folded_gradient(gradient, ends, radial)
            own, other = g_ends.chunk(2, dim=2)
            turned = torch.cat([own, other * self.geometry.flips(c)])
            return self.geometry.to_nodes(turned, len(nodes)), g_radial
        g_nodes, g_radial = self._sums(nodes), radial.new_empty(radial.shape)
        inputs = [
            gradient.contiguous(), nodes.contiguous(), *self._geometry(), radial.contiguous(),
            *self._fold_rows(c),
        ]  # fmt: skip
        scratch = [self._scratch(c, 2), g_nodes]
        self._run("gather_fold_backward", inputs, (*self._sizes(c), rows), scratch, [g_radial])
        return _added(g_nodes), g_radial

    def fold(self, x: Float[Tensor, "E rows C"], *, plain: bool = False) -> Float[Tensor, "E rows C"]:
        """Return sums and differences of the directions, ``(x_ij + x_ji)/√2`` and ``J (x_ij − x_ji)/√2``.

        Args:
            x: ``[2P, K', C]`` m-major, whole orders; packed or not.
            plain: by torch operations, which autograd knows.
        """
        if self.native and not plain:
            return self._folded(x, 1)
        rows, signs = (part[: x.shape[1]] for part in self.turn)
        a, b = x.tensor_split([self.geometry.n_pairs])
        turned = (a - b).index_select(1, rows) * signs[:, None]
        return torch.cat([a + b, turned]) * 0.5**0.5

    def unfold(self, x: Float[Tensor, "E rows C"], *, plain: bool = False) -> Float[Tensor, "E rows C"]:
        """Return the directions of what :meth:`fold` made; its inverse and its transpose."""
        if self.native and not plain:
            return self._folded(x, 0)
        rows, signs = (part[: x.shape[1]] for part in self.turn)
        a, b = x.tensor_split([self.geometry.n_pairs])
        b = b.index_select(1, rows) * signs.index_select(0, rows)[:, None]
        return torch.cat([a + b, a - b]) * 0.5**0.5

    def _folded(self, x: Tensor, fold: int) -> Tensor:
        """Run the kernel of :meth:`fold` and :meth:`unfold`."""
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        sizes = (self.geometry.n_pairs, x.shape[1], x.shape[2], fold)
        self._run("fold", [x.contiguous(), *self.turn], sizes, [], [out])
        return out

    def _fold_rows(self, channels: int) -> list[Tensor]:
        return [*self._rows(), self.degree, self.axis(channels).starts]

    def axis(self, channels: int) -> Axis:
        """Return what m = 0 consists of."""
        return Axis(self.geometry.lmax, channels, self.geometry.unnatural)

    def weighted_sum(self, edges: Float[Tensor, "E K C"], n_nodes: int) -> Float[Tensor, "{n_nodes} K C"]:
        """Sum edges ``[2P, K, C]``, faded by the envelope, at their atoms, ``[N, K, C]``; for autograd."""
        envelope = self.geometry.envelope
        if self.geometry.moving or self.twice:
            return self.geometry.to_nodes(edges * torch.cat([envelope, envelope])[:, None, None], n_nodes)
        out: Tensor = Scatter.apply(edges, envelope, self, n_nodes)
        return out

    def scatter(
        self, edges: Float[Tensor, "E K C"], weight: Float[Tensor, " P"], n_nodes: int
    ) -> Float[Tensor, "{n_nodes} K C"]:
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
        c, nodes = edges.shape[2], self._sums(edges.new_empty(n_nodes, *edges.shape[1:]))
        inputs = [edges.contiguous(), weight.contiguous(), *self._geometry(), *self._rows()]
        self._run("scatter", inputs, self._sizes(c), [self._scratch(c, 1), nodes], [])
        return _added(nodes)

    def scatter_gradient(
        self, gradient: Float[Tensor, "N K C"], weight: Float[Tensor, " P"]
    ) -> Float[Tensor, "2*P K C"]:
        """Return the gradient of :meth:`scatter` with respect to the edges, ``[2P, K, C]``."""
        _, k, c = gradient.shape
        if not self.native:
            own = self.geometry.to_edges(gradient)[..., :c]
            return own * torch.cat([weight, weight])[:, None, None]
        edges = gradient.new_empty(2 * self.geometry.n_pairs, k, c)
        inputs = [gradient.contiguous(), weight.contiguous(), *self._geometry(), *self._rows()]
        self._run("scatter_backward", inputs, self._sizes(c), [self._scratch(c, 1)], [edges])
        return edges


def _added(parts: Tensor) -> Tensor:
    """Return the sum over the parts of the pairs."""
    return parts[0] if len(parts) == 1 else parts.sum(dim=0)


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
