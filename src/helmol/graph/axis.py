"""The components m = 0 of edge features: a mirror through the edge keeps even ones and turns odd ones round.

Even are l = 0 and the natural channels of the other degrees, odd the unnatural ones. Maps between features
of edges do not mix them, so inside a convolution they stand apart: features are **packed**, ``[n, K', C]``
whose first ``(L+1)·C`` numbers are all even components, then all odd ones, degree by degree, before the rows
of the other orders. Without unnatural channels parity is not told apart: all are even, packing does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from helmol.arrays import Float, Int64


@dataclass(frozen=True)
class Axis:
    """Say what m = 0 consists of.

    Attributes:
        lmax: largest degree L.
        channels: C.
        unnatural: how many of them are of unnatural parity, the last ones.
    """

    lmax: int
    channels: int
    unnatural: int = 0

    @property
    def natural(self) -> int:
        """Channels of natural parity."""
        return self.channels - self.unnatural

    @property
    def n_even(self) -> int:
        """Number of even components."""
        return self.channels + self.lmax * self.natural

    @property
    def n_odd(self) -> int:
        """Number of odd components."""
        return self.lmax * self.unnatural

    def even(self, packed: Float[Tensor, "n rows C"]) -> Float[Tensor, "n _"]:
        """View the even components of dense packed features."""
        return packed.flatten(1)[:, : self.n_even]

    def odd(self, packed: Float[Tensor, "n rows C"]) -> Float[Tensor, "n _"]:
        """View the odd components of dense packed features."""
        return packed.flatten(1)[:, self.n_even : self.n_even + self.n_odd]

    def pack(self, x: Float[Tensor, "n rows C"]) -> Float[Tensor, "n rows C"]:
        """Return packed features of m-major rows, m = 0 among them."""
        if not self.unnatural:
            return x
        first, rest = x.tensor_split([self.lmax + 1], dim=1)
        even, odd = first[:, 1:].tensor_split([self.natural], dim=2)
        flat = torch.cat([first[:, 0], even.flatten(1), odd.flatten(1), rest.flatten(1)], dim=1)
        return flat.view(x.shape)

    def unpack(self, packed: Float[Tensor, "n rows C"]) -> Float[Tensor, "n rows C"]:
        """Undo :meth:`pack`."""
        if not self.unnatural:
            return packed
        zero, rest = packed.tensor_split([self.lmax + 1], dim=1)
        scalars, even = self.even(zero).tensor_split([self.channels], dim=1)
        parts = even.unflatten(1, (self.lmax, -1)), self.odd(zero).unflatten(1, (self.lmax, -1))
        return torch.cat([scalars[:, None], torch.cat(parts, dim=2), rest], dim=1)

    def with_even(self, even: Float[Tensor, "n _"]) -> Float[Tensor, "n _ _"]:
        """Return rows of m = 0, ``[n, L+1, C]``, of even components; the odd ones are zero."""
        if self.unnatural:
            even = torch.cat([even, even.new_zeros(len(even), self.n_odd)], dim=1)
        return self.unpack(even.unflatten(1, (self.lmax + 1, -1)))

    @property
    def starts(self) -> Int64[Tensor, "K 2"]:
        """Where rows stand in packed features, ``[K, 2]``: channel c of row k at ``starts[k, kind] + c``.

        The kind is 0 for natural channels, 1 for unnatural ones.
        """
        return _starts(self)


@cache
def _starts(axis: Axis) -> Tensor:
    """Return :attr:`Axis.starts`."""
    rows = torch.arange((axis.lmax + 1) ** 2) * axis.channels
    starts = torch.stack([rows, rows], dim=1)
    if axis.unnatural:
        l = torch.arange(axis.lmax)
        starts[1 : axis.lmax + 1, 0] = axis.channels + l * axis.natural
        starts[1 : axis.lmax + 1, 1] = axis.n_even + l * axis.unnatural - axis.natural
    return starts
