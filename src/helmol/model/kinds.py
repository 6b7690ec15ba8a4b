"""Linear maps between features and the irreps of matrix blocks, for every degree and kind of block."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from helmol.basis import BasisSet
from helmol.graph.batch import Key
from helmol.graph.blocks import keys_of, table_of, transposition
from helmol.target.parts import Slots


class IrrepMaps(nn.Module):
    """Hold a matrix between channels and irreps for every degree and kind of block.

    The matrices of all kinds for one degree are one tensor: rows are the irreps, kind after kind
    (:attr:`slots`). With unnatural channels they are two: irreps with l₁ + l₂ + l even go with the natural
    channels (:attr:`weights`), the others with the unnatural ones (:attr:`unnatural`, from l = 1 on).

    The kind (b, a) of two different signatures has the matrices of the edge from b to a, for the irreps of
    the block (a, b): its rows are those of (a, b), and so are their parities.

    Attributes:
        slots: rows of each kind, for each degree.
        exchange: for kinds of two equal signatures and each degree what
            :func:`helmol.graph.blocks.transposition` returns.
    """

    slots: list[Slots[Key]]
    exchange: dict[Key, list[tuple[Tensor, Tensor]]]

    def draw(
        self, basis: BasisSet, n_matrices: int, channels: int, unnatural: int, *, to_irreps: bool
    ) -> None:
        """Make the maps with random weights, of variance 1 / fan-in.

        Args:
            basis: shells of the elements.
            n_matrices: matrices per molecule.
            channels: C.
            unnatural: channels of unnatural parity, the last ones.
            to_irreps: maps go from channels to irreps, else back; the fan-in follows.
        """
        kinds: list[Key] = []
        for key in keys_of(basis):
            kinds += [key, key[::-1]] if key[0] != key[-1] else [key]
        degrees = range(2 * basis.lmax + 1)
        odd = {key: [_odd(key, l, n_matrices, told=unnatural > 0) for l in degrees] for key in kinds}
        self.slots = [Slots({key: len(odd[key][l]) for key in kinds}) for l in degrees]
        self.exchange = {}
        drawn = [torch.empty(slots.total, channels) for slots in self.slots]
        for key in kinds:
            table = table_of(key)
            if len(key) == 2 and key[0] == key[1]:
                self.exchange[key] = [transposition(table, l, n_matrices) for l in range(len(table.counts))]
            for l, whole in enumerate(drawn):
                rows, n = self.slots[l][key], len(odd[key][l])
                values = torch.randn(channels, n).T if to_irreps else torch.randn(n, channels)
                n_odd = int(odd[key][l].sum())
                if to_irreps:
                    fan_in = channels - (unnatural if l else 0), unnatural
                else:
                    fan_in = max(n - n_odd, n_matrices), n_odd
                scale = torch.where(odd[key][l], max(fan_in[1], 1) ** -0.5, fan_in[0] ** -0.5)
                whole[rows] = values * scale[:, None]
        self.weights, self.unnatural, self._order = nn.ParameterList(), nn.ParameterList(), list[Tensor]()
        for l, whole in enumerate(drawn):
            turned = torch.cat([odd[key][l] for key in kinds])
            n = channels - (unnatural if l else 0)
            self.weights.append(nn.Parameter(whole[~turned, :n]))
            if unnatural and l:
                self.unnatural.append(nn.Parameter(whole[turned, n:]))
            self._order.append(torch.argsort(torch.argsort(turned, stable=True)))

    def cut(self, keys: Iterable[Key]) -> Cut:
        """Return the maps of some kinds of blocks and of their transposes, cut once for all of them."""
        wanted = {kind for key in keys for kind in (key, key[::-1])}
        weights = [slots.cut(self.whole(l), wanted) for l, slots in enumerate(self.slots)]
        return Cut(weights, self.exchange)

    def whole(self, degree: int) -> Tensor:
        """Return the matrices of one degree, zero between irreps and channels of different parity."""
        weight = self.weights[degree]
        if not degree or not self.unnatural:
            return weight
        other = self.unnatural[degree - 1]
        n, u = weight.shape[1], other.shape[1]
        rows = torch.cat([functional.pad(weight, (0, u)), functional.pad(other, (n, 0))])
        return rows.index_select(0, self._order[degree].to(rows.device))


@dataclass(frozen=True)
class Cut:
    """Hold the maps by degree and kind, ``[n_matrices · n_l, C]``."""

    weights: list[dict[Key, Tensor]]
    exchange: dict[Key, list[tuple[Tensor, Tensor]]]

    def of(self, degree: int, key: Key) -> Tensor:
        """Return the map of one kind of block and the irreps of one degree."""
        return self.weights[degree][key]

    def transposed(self, degree: int, key: Key) -> Tensor:
        """Return the map of the transposed blocks, for irreps in the order of ``key``."""
        if key not in self.exchange:
            return self.weights[degree][key[::-1]]
        order, sign = self.exchange[key][degree]
        weight = self.weights[degree][key]
        return weight.index_select(0, order.to(weight.device)) * sign.to(weight)[:, None]


def _odd(key: Key, degree: int, n_matrices: int, *, told: bool) -> Tensor:
    """Return which irreps of a degree are of unnatural parity, ``[n_matrices · n_l]``; none if not told."""
    table = table_of(tuple(sorted(key)))
    if degree >= len(table.counts):
        return torch.zeros(0, dtype=torch.bool)
    return torch.from_numpy(table.parities[degree] == 1).repeat(n_matrices) & told
