"""What the linear maps read: the density of atoms around each atom, and its products with a neighbour.

With the density of atoms around atom i, in radial functions f_n and elements z,
``A_i[z, n, l, m] = Σ_{j of z} f_n(r_ij) Y_lm(r̂_ij)``. See :mod:`helmol.target.linear`.
Source of the density: Drautz, Phys. Rev. B 99, 014104 (2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helmol.basis import IrrepTable
from helmol.errors import InputError
from helmol.graph import Batch, Bucket, edge_geometry
from helmol.graph.batch import Key
from helmol.graph.blocks import join_degrees, rotate_pairs, split_degrees, table_of
from helmol.graph.frames import smooth_cutoff

Label = tuple[int, ...]
"""(a, l, p) of a map of diagonal blocks, (a_i, a_j, m, p) of one of pair blocks; p = (l₁ + l₂ + l) mod 2, and
a = Z + 1000 k, with k the place of the molecule's charge and spin among those trained on."""

STATE = 1000
"""Step between the labels of one element in molecules of different charge or spin."""

REACH = 12.0
"""Distance in bohr at which an atom has no effect on its neighbour's blocks."""
SECOND_ELEMENTS = 3
"""With more elements than this quadratic features do not tell the elements of the surroundings apart."""


EDGES_AT_A_TIME = 2000
"""Directed edges whose features are in memory together."""


@dataclass(frozen=True)
class Functions:
    """Say how many functions the features are made of.

    Attributes:
        surroundings: radial functions of the surroundings.
        second, second_lmax: radial functions and largest degree of the surroundings in quadratic features.
        neighbour: radial functions of the neighbour they are multiplied with.
        product: functions of a pair's distance that its surroundings are multiplied with, besides 1.
        distance: radial functions of a pair's distance alone.
    """

    surroundings: int = 8
    second: int = 4
    second_lmax: int = 3
    neighbour: int = 3
    product: int = 2
    distance: int = 16


class Surroundings:
    """Compute what the linear maps read, for one batch.

    Args:
        batch: molecules.
        elements: atomic numbers that count.
        functions: what the features are made of.
        lmax: largest degree.
        cutoff: of the pairs, bohr.
        states: (charge, spin) of the molecules trained on if they differ, else nothing.
    """

    def __init__(
        self,
        batch: Batch,
        elements: Sequence[int],
        functions: Functions,
        *,
        lmax: int,
        cutoff: float,
        states: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.numbers, self.lmax = batch.numbers.cpu(), lmax
        self.kinds = self.numbers + STATE * _places(batch, states)[batch.molecule.cpu()]
        self.geometry = edge_geometry(
            batch.positions.detach().cpu(), batch.pair_index.cpu(), lmax=lmax, cutoff=cutoff,
            dtype=torch.float64,
        )  # fmt: skip
        distance = self.geometry.distance
        reach = min(REACH, cutoff)
        radial = _waves(distance, functions.surroundings, reach) * smooth_cutoff(distance / reach)[:, None]
        place = torch.zeros(int(max([0, *self.numbers.tolist(), *elements])) + 1, dtype=torch.long)
        for k, z in enumerate(elements):
            place[z] = k + 1
        kind = torch.nn.functional.one_hot(place[self.numbers], len(elements) + 1)[:, 1:].double()
        neighbour = kind[self.geometry.target]
        self.density = self._sum(radial, neighbour)
        told_apart = neighbour if len(elements) <= SECOND_ELEMENTS else neighbour.sum(dim=1, keepdim=True)
        second = radial[:, : functions.second]
        near = torch.cat([radial[:, : functions.neighbour]] * 2)
        self._second = self._quadratic(
            self._sum(second, told_apart),
            (neighbour[:, :, None] * near[:, None]).flatten(1),
            top=min(lmax, functions.second_lmax),
        )
        own = torch.cat(
            [torch.ones_like(distance)[:, None], _waves(distance, functions.distance, cutoff), radial], dim=1
        )
        self.own = torch.cat([own, own])
        self.factors = torch.cat([own[:, : functions.product + 1]] * 2)

    def _sum(self, radial: Tensor, neighbour: Tensor) -> Tensor:
        """Return ``A [N, K, elements · radial functions]`` l-major, laboratory frame."""
        channels = (torch.cat([radial, radial])[:, None] * neighbour[:, :, None]).flatten(1)
        spread = channels[:, None].expand(-1, self.lmax + 1, -1)
        return self.geometry.axis_to_nodes(spread, len(self.numbers))

    def _quadratic(self, density: Tensor, near: Tensor, *, top: int) -> list[Tensor]:
        """Return for each degree ``[N, 2l+1, features, 2]``: what keeps the sign of m, what exchanges it."""
        g = self.geometry
        result: list[Tensor] = []
        for edges in torch.arange(2 * g.n_pairs).split(EDGES_AT_A_TIME):
            turned = self._turned(density[g.source[edges]], edges, top)
            orders = []
            for m in range(top + 1):
                some = [_signs(turned[l], l, m) for l in range(m, top + 1)]
                joined = torch.cat(some, dim=2)
                orders.append((near[edges][:, None, :, None] * joined[:, :, None]).flatten(2))
            for l in range(self.lmax + 1):
                lab = self._to_laboratory(l, orders[: l + 1], edges)
                if len(result) == l:
                    result.append(lab.new_zeros(len(self.numbers), *lab.shape[1:]))
                result[l].index_add_(0, g.source[edges], lab)
        return result

    def _to_laboratory(self, l: int, orders: list[Tensor], edges: Tensor) -> Tensor:
        """Return ``[n, 2l+1, features, 2]`` of degree l, made of ``[n, 2, features]`` of each order."""
        columns = []
        for m, values in enumerate(orders):
            plus, minus = values.unbind(1)
            local = plus.new_zeros(len(edges), 2 * l + 1, plus.shape[1], 2)
            local[:, l + m, :, 0] = plus
            if m:
                local[:, l - m, :, 0] = minus
                local[:, l + m, :, 1], local[:, l - m, :, 1] = -minus, plus
            columns.append(local)
        joined = torch.cat(columns, dim=2)
        return self.geometry.rotate_irreps(l, joined.flatten(2), edges, to_edge=False).view_as(joined)

    def _turned(self, values: Tensor, edges: Tensor, top: int) -> list[Tensor]:
        """Return each degree of ``[n, K, c]`` in the frames of edges."""
        return [
            self.geometry.rotate_irreps(l, values[:, l * l : (l + 1) ** 2], edges, to_edge=True)
            for l in range(top + 1)
        ]

    def of_atoms(self, atoms: Tensor, degree: int, odd: int) -> Tensor:
        """Return ``[n, 2l+1, features]``; for l = 0 with a constant."""
        second = self._second[degree][atoms, ..., odd]
        if odd:
            return second
        values = torch.cat([self.density[atoms, degree**2 : (degree + 1) ** 2], second], dim=2)
        return torch.cat([values, torch.ones_like(values[..., :1])], dim=2) if degree == 0 else values

    def of_edges(self, edges: Tensor) -> list[Tensor]:
        """Return for each order m ``[n, 2, features]`` (+m, then −m; −0 is zero), faded at the cutoff."""
        g = self.geometry
        ends = torch.cat([self.density[g.source[edges]], self.density[g.target[edges]]], dim=2)
        turned = self._turned(ends, edges, self.lmax)
        envelope = g.envelope[edges % max(g.n_pairs, 1)][:, None, None]
        factors, result = self.factors[edges][:, None, None, :], []
        for m in range(self.lmax + 1):
            features = torch.cat([_signs(turned[l], l, m) for l in range(m, self.lmax + 1)], dim=2)
            features = (features[..., None] * factors).flatten(2)
            if m == 0:
                own = self.own[edges]
                features = torch.cat([features, torch.stack([own, torch.zeros_like(own)], dim=1)], dim=2)
            result.append(features * envelope)
        return result

    def apply(self, bucket: Bucket, maps: Mapping[Label, Tensor], *, n_spins: int) -> Tensor:
        """Return the irreps of one bucket, laboratory frame; zero where there is no map."""
        table, index = table_of(bucket.key), bucket.index.cpu()
        odd = _parities(table, n_spins)
        parts = [
            torch.zeros(len(index), 2 * l + 1, n_spins * n, dtype=torch.float64)
            for l, n in enumerate(table.counts)
        ]
        for label, rows, features in self._features(bucket.key, index, maps):
            *_, order, parity = label
            values = features @ maps[label]
            if len(bucket.key) == 1:
                chosen = odd[order] == parity
                parts[order][rows[:, None], :, chosen.nonzero()[:, 0]] = values.transpose(1, 2)
                continue
            start = 0
            for l in range(order, len(parts)):
                chosen = (odd[l] == parity).nonzero()[:, 0]
                part = values[:, :, start : start + len(chosen)]
                start += len(chosen)
                parts[l][rows[:, None], l + order, chosen] = part[:, 0]
                if order:
                    parts[l][rows[:, None], l - order, chosen] = part[:, 1]
        joined = join_degrees(parts, table, n_spins)
        if len(bucket.key) == 1:
            return joined
        return rotate_pairs(joined, bucket.key, index, self.geometry, to_edge=False)

    def samples(self, bucket: Bucket) -> Iterator[tuple[Label, Tensor, Tensor]]:
        """Yield label, features ``[rows, f]`` and targets ``[rows, t]`` of a bucket.

        Pairs of equal signature are seen from both ends, so that the maps do not depend on which is first.
        """
        if bucket.target is None:
            raise InputError("a linear part is fitted to molecules with target matrices")
        table, index, target = table_of(bucket.key), bucket.index.cpu(), bucket.target.cpu()
        odd = _parities(table, target.shape[1])
        if len(bucket.key) == 2 and bucket.key[0] == bucket.key[1]:
            exchanged, sign = (torch.from_numpy(values) for values in table.exchange)
            target = torch.cat([target, target[..., exchanged] * sign])
            index = torch.cat([index, (index + self.geometry.n_pairs) % (2 * self.geometry.n_pairs)])
        if len(bucket.key) == 2:
            target = rotate_pairs(target, bucket.key, index, self.geometry, to_edge=True)
        parts = split_degrees(target, table)
        for label, rows, features in self._features(bucket.key, index, None):
            *_, order, parity = label
            if len(bucket.key) == 1:
                wanted = parts[order][rows][:, :, odd[order] == parity]
            else:
                degrees = range(order, len(parts))
                wanted = torch.cat(
                    [_signs(parts[l][rows], l, order)[:, :, odd[l] == parity] for l in degrees], dim=2
                )
            if wanted.shape[2]:
                yield label, features.flatten(0, 1), wanted.flatten(0, 1)

    def _features(
        self, key: Key, index: Tensor, known: Mapping[Label, Tensor] | None
    ) -> Iterator[tuple[Label, Tensor, Tensor]]:
        """Yield label, rows of ``index`` and features ``[rows, ·, f]`` of every map (of those known)."""
        top = len(table_of(key).counts)
        if len(key) == 1:
            for (z,), rows in _groups(self.kinds[index][:, None]):
                for l in range(top):
                    for parity in (0, 1):
                        if known is None or (z, l, parity) in known:
                            yield (z, l, parity), rows, self.of_atoms(index[rows], l, parity)
            return
        g = self.geometry
        ends = torch.stack([self.kinds[g.source], self.kinds[g.target]], dim=1)
        for (zi, zj), rows in _groups(ends[index]):
            for some in rows.split(EDGES_AT_A_TIME):
                for m, features in enumerate(self.of_edges(index[some])[:top]):
                    exchanged = torch.stack([-features[:, 1], features[:, 0]], dim=1)
                    for parity, values in enumerate((features, exchanged)):
                        # At m = 0 nothing can be exchanged: such irreps vanish there by symmetry.
                        if (known is None or (zi, zj, m, parity) in known) and not (m == 0 and parity):
                            yield (zi, zj, m, parity), some, values


def _places(batch: Batch, states: Sequence[tuple[int, int]]) -> Tensor:
    """Return for each molecule where its charge and spin stand in ``states``; past the end if nowhere."""
    if not states:
        return torch.zeros(len(batch.molecules), dtype=torch.long)
    place = {state: k for k, state in enumerate(states)}
    return torch.tensor([place.get((m.charge, m.spin), len(states)) for m in batch.molecules])


def _waves(distance: Tensor, n: int, reach: float) -> Tensor:
    """Return ``sin(nπ r / reach) / r`` for n = 1 … n, ``[P, n]``; complete on [0, reach]."""
    k = torch.arange(1, n + 1, dtype=distance.dtype)
    return torch.sin(torch.pi * k * distance[:, None] / reach) / distance[:, None]


def _signs(values: Tensor, l: int, m: int) -> Tensor:
    """Return components +m and −m of ``[n, 2l+1, c]`` as ``[n, 2, c]``; zero for −0."""
    plus = values[:, l + m]
    return torch.stack([plus, values[:, l - m] if m else torch.zeros_like(plus)], dim=1)


def _parities(table: IrrepTable, n_spins: int) -> list[Tensor]:
    """Return for each degree the parities of its irreps, ``[n_spins · n_l]``."""
    return [torch.from_numpy(parity).repeat(n_spins) for parity in table.parities]


def _groups(keys: Tensor) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield every different row of ``keys [n, k]`` and where it stands."""
    if len(keys):
        different, inverse = torch.unique(keys, dim=0, return_inverse=True)
        for k, key in enumerate(different.tolist()):
            yield tuple(key), (inverse == k).nonzero()[:, 0]
