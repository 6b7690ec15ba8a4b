"""Edge frames: for every pair the rotation that puts its axis on z, without one inverse cosine.

With r = |r| (sin β cos α, sin β sin α, cos β) the frame is ``W(r) = Z(α) Y(β)`` (γ = 0), acting on
real harmonics. cos and sin of multiples of α and β follow from Chebyshev recurrences, and
``Y(β)`` is a fixed linear map of ``cos kβ, sin kβ`` (its Fourier series has degree l). On the z axis
α is arbitrary and set to 0: any choice is a valid frame. Exact to rounding for every direction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from helmol.arrays import Float, Int64
from helmol.basis import wigner_d
from helmol.brief import brief
from helmol.graph.derivatives import turning_frames
from helmol.graph.layout import flip_signs, m_major, quarter_turn


@dataclass(frozen=True)
class EdgeGeometry:
    """Hold what the network needs of the geometry, computed once per batch.

    The last channels of every feature may be of unnatural parity (inversion multiplies degree l by
    ``−(−1)^l``, natural ones by ``(−1)^l``). A mirror through the edge keeps cos mφ of natural channels and
    sin mφ of unnatural ones, so edges hold ``(sin, −cos)`` of these in the places of ``(cos, sin)``, their
    ``J⁻¹`` (:func:`helmol.graph.layout.quarter_turn`): then it keeps rows of +m and turns those of −m round.

    Attributes:
        lmax: largest degree.
        pair_index: ``[2, P]`` atoms i, j of each pair.
        distance: ``[P]``, bohr.
        envelope: ``[P]``, 1 at contact, 0 with two zero derivatives at the cutoff.
        frames: ``W_l [P, 2l+1, 2l+1]`` for each l: from the edge frame of i→j to the laboratory.
        flip: ``[K]`` l-major signs between the frames of i→j and j→i.
        to_m_major, to_l_major: ``[K]`` gathers between the two orders.
        unnatural: number of channels of unnatural parity, the last ones.
    """

    lmax: int
    pair_index: Int64[Tensor, "2 P"]
    distance: Float[Tensor, " P"]
    envelope: Float[Tensor, " P"]
    frames: tuple[Float[Tensor, "P _ _"], ...]
    flip: Float[Tensor, " K"]
    to_m_major: Int64[Tensor, " K"]
    to_l_major: Int64[Tensor, " K"]
    unnatural: int = 0

    __repr__ = brief

    @property
    def n_pairs(self) -> int:
        """Number of pairs P; there are 2P directed edges."""
        return self.pair_index.shape[1]

    @property
    def source(self) -> Int64[Tensor, " E"]:
        """Atom i of each directed edge i→j, ``[2P]``; messages along the edge go to it."""
        return self.pair_index.reshape(-1)

    @property
    def target(self) -> Int64[Tensor, " E"]:
        """Atom j of each directed edge i→j, ``[2P]``."""
        return self.pair_index.flip(0).reshape(-1)

    @property
    def moving(self) -> bool:
        """Whether the frames have gradients, because the positions have."""
        return self.frames[0].requires_grad

    @cached_property
    def turn(self) -> tuple[Int64[Tensor, " K"], Float[Tensor, " K"]]:
        """Rows and signs of J, see :func:`helmol.graph.layout.quarter_turn`."""
        rows, signs = quarter_turn(self.lmax)
        return rows.to(self.flip.device), signs.to(self.flip)

    def held(self, x: Float[Tensor, "n rows C"]) -> Float[Tensor, "n rows C"]:
        """Return what edges hold of components in their frames; the order is m-major."""
        rows, signs = self.turn
        return self._turned(x, rows, signs.index_select(0, rows))

    def components(self, x: Float[Tensor, "n rows C"]) -> Float[Tensor, "n rows C"]:
        """Undo :meth:`held`."""
        return self._turned(x, *self.turn)

    def _turned(self, x: Tensor, rows: Tensor, signs: Tensor) -> Tensor:
        """Take other rows of the unnatural channels."""
        if not self.unnatural:
            return x
        natural, rest = x.tensor_split([x.shape[2] - self.unnatural], dim=2)
        k = x.shape[1]
        return torch.cat([natural, rest.index_select(1, rows[:k]) * signs[:k, None]], dim=2)

    def flips(self, channels: int) -> Float[Tensor, "K _"]:
        """Return the m-major signs between what the edges i→j and j→i hold, ``[K, C]``, or ``[K, 1]``."""
        flip = self.flip[self.to_m_major]
        if not self.unnatural:
            return flip[:, None]
        n = channels - self.unnatural
        turned = flip.index_select(0, self.turn[0])
        return torch.cat([flip[:, None].expand(-1, n), turned[:, None].expand(-1, self.unnatural)], dim=1)

    def select(self, pairs: Tensor | slice) -> EdgeGeometry:
        """Return the geometry of some of the pairs."""
        return replace(
            self,
            pair_index=self.pair_index[:, pairs],
            distance=self.distance[pairs],
            envelope=self.envelope[pairs],
            frames=tuple(frame[pairs] for frame in self.frames),
        )

    def to_edges(self, nodes: Float[Tensor, "N K C"]) -> Float[Tensor, "{2*self.n_pairs} K 2*C"]:
        """Gather both ends of each directed edge into its frame.

        Args:
            nodes: ``[N, K, C]`` l-major, laboratory frame.

        Returns:
            ``[2P, K, 2C]`` m-major, edge frame, channels ``[x_i ‖ x_j]``. Each pair is rotated once;
            its reverse edge is the same with signs and ends exchanged.
        """
        forward = self.to_pairs(nodes)
        first, second = forward.split(nodes.shape[-1], dim=-1)
        flips = self.flips(nodes.shape[-1])
        return torch.cat([forward, torch.cat([second * flips, first * flips], dim=-1)], dim=0)

    def to_pairs(self, nodes: Float[Tensor, "N K C"]) -> Float[Tensor, "{self.n_pairs} K 2*C"]:
        """Gather both ends of each pair into the frame of i→j, ``[P, K, 2C]``; see :meth:`to_edges`."""
        i, j = self.pair_index
        ends = torch.cat([nodes.index_select(0, i), nodes.index_select(0, j)], dim=-1)
        parts = ends.split([2 * l + 1 for l in range(self.lmax + 1)], dim=1)
        local = torch.cat([w.mT @ part for w, part in zip(self.frames, parts, strict=True)], dim=1)
        local = local.index_select(1, self.to_m_major)
        if not self.unnatural:
            return local
        return torch.cat([self.held(end) for end in local.chunk(2, dim=2)], dim=2)

    def to_nodes(
        self, edges: Float[Tensor, "{2*self.n_pairs} K C"], n_nodes: int
    ) -> Float[Tensor, "{n_nodes} K C"]:
        """Rotate directed edges to the laboratory and sum them at their source atoms.

        Args:
            edges: ``[2P, K, C]`` m-major, edge frame.
            n_nodes: number of atoms N.

        Returns:
            ``[N, K, C]`` l-major.
        """
        channels, edges = edges.shape[-1], self.components(edges)
        forward, backward = edges.split(self.n_pairs, dim=0) if self.n_pairs else (edges, edges)
        both = torch.cat([forward, backward * self.flip[self.to_m_major, None]], dim=-1)
        parts = both.index_select(1, self.to_l_major).split([2 * l + 1 for l in range(self.lmax + 1)], dim=1)
        lab = torch.cat([w @ part for w, part in zip(self.frames, parts, strict=True)], dim=1)
        messages = torch.cat(lab.split(channels, dim=-1), dim=0)
        nodes = edges.new_zeros(n_nodes, edges.shape[1], channels)
        return nodes.index_add(0, self.source, messages)

    def axis_to_nodes(
        self, radial: Float[Tensor, "{2*self.n_pairs} {self.lmax+1} C"], n_nodes: int
    ) -> Float[Tensor, "{n_nodes} K C"]:
        """Sum at the source atoms edge features that have only m = 0 components.

        Args:
            radial: ``[2P, L+1, C]``, the m = 0 coefficient of each l in the edge frame.
            n_nodes: number of atoms N.

        Returns:
            ``[N, K, C]`` l-major.
        """
        forward = torch.cat([w[:, :, l] for l, w in enumerate(self.frames)], dim=1)
        axes = torch.cat([forward, forward * self.parity], dim=0)
        messages = axes[:, :, None] * radial.index_select(1, self.degree)
        # index_add would keep the messages for its gradient.
        return radial.new_zeros(n_nodes, *messages.shape[1:]).scatter_add(
            0, self.source[:, None, None].expand_as(messages), messages
        )

    @property
    def degree(self) -> Int64[Tensor, " K"]:
        """Degree l of each l-major component, ``[K]``."""
        repeats = torch.tensor([2 * l + 1 for l in range(self.lmax + 1)])
        return torch.arange(self.lmax + 1).repeat_interleave(repeats).to(self.flip.device)

    @property
    def parity(self) -> Float[Tensor, " K"]:
        """``(−1)^l`` of each l-major component, ``[K]``: Y(−r) = (−1)^l Y(r)."""
        return (1.0 - 2.0 * (self.degree % 2)).to(self.flip.dtype)

    def rotate_irreps(
        self, l: int, values: Float[Tensor, "n {2*l+1} c"], edge: Int64[Tensor, " n"], *, to_edge: bool
    ) -> Float[Tensor, "n {2*l+1} c"]:
        """Rotate irreps of degree ``l`` on chosen directed edges between edge frame and laboratory.

        Args:
            l: degree.
            values: ``[n, 2l+1, c]``, m = −l … l.
            edge: directed edge of each row, ``[n]``.
            to_edge: from the laboratory to the edge frame, else back.
        """
        frame = self.frames[l][edge % max(self.n_pairs, 1)]
        flip = self.flip[l * l : (l + 1) ** 2]
        signs = torch.where((edge >= self.n_pairs)[:, None], flip, torch.ones_like(flip))[:, :, None]
        return (frame.mT @ values) * signs if to_edge else frame @ (values * signs)


def edge_geometry(
    positions: Float[Tensor, "N 3"],
    pair_index: Int64[Tensor, "2 P"],
    *,
    lmax: int,
    cutoff: float,
    dtype: torch.dtype,
    envelope: bool = True,
    unnatural: int = 0,
) -> EdgeGeometry:
    """Compute distances, envelope and frames of all pairs.

    Where the positions require a gradient, all of it can be differentiated, by the rule of
    :mod:`helmol.graph.derivatives`.

    Args:
        positions: ``[N, 3]`` bohr, float64 (differences are taken before the cast).
        pair_index: ``[2, P]``.
        lmax: largest degree.
        cutoff: where the envelope ends, bohr.
        dtype: precision of the result.
        envelope: ``False`` gives ones.
        unnatural: channels of unnatural parity.
    """
    i, j = pair_index
    vector = positions[j] - positions[i]
    distance = vector.norm(dim=1)
    unit = (vector / distance[:, None]).to(dtype)
    frames = frames_of_directions(unit.detach(), lmax)
    if unit.requires_grad:
        frames = turning_frames(unit, frames)
    return EdgeGeometry(
        lmax=lmax,
        pair_index=pair_index,
        distance=distance.to(dtype),
        envelope=(smooth_cutoff(distance / cutoff) if envelope else torch.ones_like(distance)).to(dtype),
        frames=frames,
        flip=flip_signs(lmax).to(unit),
        to_m_major=m_major(lmax).to(unit.device),
        to_l_major=torch.argsort(m_major(lmax)).to(unit.device),
        unnatural=unnatural,
    )


def smooth_cutoff(x: Float[Tensor, " P"], p: int = 6) -> Float[Tensor, " P"]:
    """Return ``1 − (p+1)(p+2)/2 xᵖ + p(p+2) xᵖ⁺¹ − p(p+1)/2 xᵖ⁺²`` for x < 1, else 0.

    Source: Gasteiger et al., arXiv 2003.03123, eq. 8.
    """
    value = 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)
    return torch.where(x < 1, value, torch.zeros_like(value))


def frames_of_directions(unit: Float[Tensor, "P 3"], lmax: int) -> tuple[Float[Tensor, "P _ _"], ...]:
    """Return ``W_l(r̂)`` for unit vectors ``[P, 3]``; column m=0 is Y_l(r̂)·√(4π/(2l+1))."""
    x, y, z = unit.unbind(1)
    rho = torch.hypot(x, y)
    on_axis = rho == 0
    safe = torch.where(on_axis, torch.ones_like(rho), rho)
    cos_alpha = torch.where(on_axis, torch.ones_like(x), x / safe)
    cos_a, sin_a = _multiples(cos_alpha, y / safe, lmax)
    cos_b, sin_b = _multiples(z, rho, lmax)
    turns = torch.cat([cos_b, sin_b[:, 1:]], dim=1) @ _tilt_series(lmax).to(unit)
    frames = []
    for l, part in enumerate(turns.split([(2 * l + 1) ** 2 for l in range(lmax + 1)], dim=1)):
        tilt = part.reshape(-1, 2 * l + 1, 2 * l + 1)
        order = list(range(l, 0, -1))
        cosine = torch.cat([cos_a[:, order], cos_a[:, : l + 1]], dim=1)[:, :, None]
        sine = torch.cat([sin_a[:, order], -sin_a[:, : l + 1]], dim=1)[:, :, None]
        frames.append(cosine * tilt + sine * tilt.flip(1))
    return tuple(frames)


def _multiples(
    cosine: Float[Tensor, " P"], sine: Float[Tensor, " P"], n: int
) -> tuple[Float[Tensor, "P {n+1}"], Float[Tensor, "P {n+1}"]]:
    """Return cos kx and sin kx for k = 0 … n, each ``[P, n+1]``, from cos x and sin x."""
    cosines, sines = [torch.ones_like(cosine)], [torch.zeros_like(sine)]
    for _ in range(n):
        c, s = cosines[-1], sines[-1]
        cosines.append(c * cosine - s * sine)
        sines.append(s * cosine + c * sine)
    return torch.stack(cosines, dim=1), torch.stack(sines, dim=1)


@cache
def _tilt_series(lmax: int) -> Tensor:
    """Return the Fourier coefficients of the turns about y, ``[2 lmax + 1, Σ (2l+1)²]``, float64.

    Rows: cos kβ for k = 0 … lmax, then sin kβ for k = 1 … lmax.
    """
    angles = 2 * np.pi * np.arange(2 * lmax + 1) / (2 * lmax + 1)
    k = np.arange(lmax + 1)
    waves = np.concatenate([np.cos(np.outer(angles, k)), np.sin(np.outer(angles, k[1:]))], axis=1)
    turns = []
    for angle in angles:
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        turns.append(np.concatenate([wigner_d(l, rotation).ravel() for l in range(lmax + 1)]))
    series = np.linalg.solve(waves, np.array(turns))
    series[np.abs(series) < 1e-13] = 0.0
    return torch.from_numpy(series)
