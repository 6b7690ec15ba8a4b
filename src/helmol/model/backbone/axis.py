"""The components m = 0 of edge features: a mirror through the edge keeps the even ones and turns the odd ones.

Even are l = 0 and the natural channels of the other degrees, odd the unnatural ones. Maps between features
of edges do not mix them. Without unnatural channels parity is not told apart and all count as even.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Axis:
    """Split rows ``[n, L+1, C]`` of m = 0 into even ``[n, C + L·C_n]`` and odd ``[n, L·C_u]`` and back.

    Args:
        lmax: largest degree L.
        channels: C.
        unnatural: the last C_u channels; C_n are the others.
    """

    def __init__(self, lmax: int, channels: int, unnatural: int) -> None:
        self.lmax, self.channels, self.unnatural = lmax, channels, unnatural
        self.natural = channels - unnatural
        self.n_even, self.n_odd = channels + lmax * self.natural, lmax * unnatural

    def even(self, x: Tensor) -> Tensor:
        """Return the even components of ``[n, ≥ L+1, C]``; a view if all are and the rows are dense."""
        rows = x[:, : self.lmax + 1]
        if not self.unnatural:
            return rows.flatten(1)
        even = x.new_empty(len(x), self.n_even)
        even[:, : self.channels] = rows[:, 0]
        even[:, self.channels :].unflatten(1, (self.lmax, -1)).copy_(rows[:, 1:, : self.natural])
        return even

    def odd(self, x: Tensor) -> Tensor:
        """Return the odd components of ``[n, ≥ L+1, C]``."""
        return x[:, 1 : self.lmax + 1, self.natural :].flatten(1)

    def room(self, out: Tensor) -> Tensor:
        """Return where even components are to be written before :meth:`put`; in ``out`` itself if all are."""
        return out.new_empty(len(out), self.n_even) if self.unnatural else self.even(out)

    def put(self, out: Tensor, even: Tensor, odd: Tensor | None) -> None:
        """Write even components, which stand in :meth:`room`, and odd ones to ``[n, ≥ L+1, C]``."""
        if odd is None:
            return
        out[:, 0] = even[:, : self.channels]
        rows = out[:, 1 : self.lmax + 1]
        rows[..., : self.natural] = even[:, self.channels :].unflatten(1, (self.lmax, -1))
        rows[..., self.natural :] = odd.unflatten(1, (self.lmax, -1))

    def joined(self, even: Tensor, odd: Tensor | None = None) -> Tensor:
        """Return ``[n, L+1, C]`` of even and odd components, these zero by default; for autograd."""
        if not self.unnatural:
            return even.unflatten(1, (self.lmax + 1, -1))
        first, rest = even.split([self.channels, self.n_even - self.channels], dim=1)
        rest = rest.unflatten(1, (self.lmax, -1))
        if odd is None:
            other = rest.new_zeros(len(rest), self.lmax, self.unnatural)
        else:
            other = odd.unflatten(1, (self.lmax, -1))
        return torch.cat([first[:, None], torch.cat([rest, other], dim=2)], dim=1)
