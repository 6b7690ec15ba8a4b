"""What a part of the target is, and how its numbers are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from helmol.basis import BasisSet, diagonal_table
from helmol.graph import Batch, Bucket, Item, collate
from helmol.graph.batch import Key
from helmol.graph.blocks import table_of
from helmol.target.domain import Domain

K = TypeVar("K", bound=Hashable)
M = TypeVar("M", bound="Known")


class Slots(Generic[K]):
    """Say where the values of each kind stand when all stand side by side.

    Args:
        sizes: values of each kind, in order.
    """

    def __init__(self, sizes: Mapping[K, int]) -> None:
        self.keys = tuple(sizes)
        self.sizes = tuple(sizes.values())
        self.slices: dict[K, slice] = {}
        self.total = 0
        for key, size in sizes.items():
            self.slices[key] = slice(self.total, self.total + size)
            self.total += size

    def __getitem__(self, key: K) -> slice:
        return self.slices[key]

    def cut(self, values: Tensor, wanted: Collection[K]) -> dict[K, Tensor]:
        """Return the rows of the kinds that are wanted; what is between them is cut off in one piece.

        The gradient joins the pieces once, whatever their number.
        """
        there = [key for key in self.keys if key in wanted]
        kept = [key for key in there if self[key].start < self[key].stop]
        edges = sorted({0, self.total, *(e for key in kept for e in (self[key].start, self[key].stop))})
        pieces = values.split([stop - start for start, stop in pairwise(edges)])
        place = {start: piece for start, piece in zip(edges, pieces, strict=False)}
        nothing = values.new_empty(0, *values.shape[1:])
        return dict.fromkeys(there, nothing) | {key: place[self[key].start] for key in kept}

    def __contains__(self, key: object) -> bool:
        return key in self.slices


class Known(nn.Module):
    """A module whose buffers stay in float64, whatever precision the model around it is cast to.

    Labels are float64, and what is subtracted from them must be as exact.
    """

    def _apply(self: M, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> M:
        """Move the buffers with the model, without its precision."""
        exact = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, value in exact.items():
            moved = self._buffers[name]
            if value is not None and moved is not None and moved.dtype != value.dtype:
                self._buffers[name] = value.to(moved.device)
        return self


class OfElements(Known):
    """Keep for every element one value per component of the block of an atom with itself.

    The values of all elements stand side by side, those of equal shells next to each other.

    Args:
        basis: shells of the elements.
        n_rows: matrices.
        fill: value of a component that nothing was said of.
    """

    values: Tensor
    rank: Tensor

    def __init__(self, basis: BasisSet, n_rows: int, fill: float) -> None:
        super().__init__()
        numbers = sorted(basis.elements, key=lambda z: (basis.elements[z].shells, z))
        self.dim = {z: diagonal_table(basis.signature(z)).dim for z in numbers}
        self.slots: Slots[int] = Slots(self.dim)
        self.groups: dict[Key, slice] = {}
        rank = torch.zeros(max(numbers, default=0) + 1, dtype=torch.long)
        for z in numbers:
            key, own = (basis.signature(z),), self.slots[z]
            group = self.groups.get(key, own)
            rank[z] = (own.start - group.start) // self.dim[z]
            self.groups[key] = slice(group.start, own.stop)
        shape = n_rows, self.slots.total
        self.register_buffer("values", torch.full(shape, fill, dtype=torch.float64))
        self.register_buffer("rank", rank, persistent=False)

    def of(self, number: int) -> Tensor:
        """Return a view of the values of one element, ``[n_rows, dim]``."""
        return self.values[:, self.slots[number]]

    def alone(self, key: Key) -> Tensor | None:
        """Return the values of the only element of a kind, ``[n_rows, dim]``, or ``None``."""
        group = self.groups[key]
        return self.values[:, group] if group.stop - group.start == table_of(key).dim else None

    def forward(self, bucket: Bucket, numbers: Tensor) -> Tensor:
        """Return the values of the atoms of a bucket, ``[n, n_rows, dim]``.

        Args:
            bucket: blocks of atoms with themselves.
            numbers: atomic numbers of the whole batch, ``[N]``.
        """
        group = self.values[:, self.groups[bucket.key]].unflatten(1, (-1, table_of(bucket.key).dim))
        return group.index_select(1, self.rank[numbers[bucket.index]]).transpose(0, 1)


@dataclass(frozen=True)
class Sizes:
    """Hold what a part has to know of the network: its largest degree and the cutoff of its pairs (bohr)."""

    lmax: int
    cutoff: float


class Part(Known):
    """A term of the target that is known before the network: ``H − H₀ = Σ parts + scale · network``.

    A part is fitted to what the parts before it leave, subtracted from labels and added to predictions by
    :class:`helmol.target.FockTarget`, and saved with the model's state. A new one is a subclass in a file of
    its own and a line in :data:`helmol.target.fock.PARTS`.
    """

    setting: ClassVar[Any] = True
    """What a run that says nothing of the part passes to :meth:`fit`."""

    @classmethod
    def fit(cls, items: Sequence[Item], domain: Domain, sizes: Sizes, setting: Any) -> Part | None:
        """Return the part fitted to prepared training molecules; ``None`` if there is to be none.

        Args:
            items: molecules with targets, Eh.
            domain: of the model.
            sizes: of the network.
            setting: the run's choice for this part.
        """
        raise NotImplementedError

    @classmethod
    def blank(cls, description: Mapping[str, Any], domain: Domain, sizes: Sizes) -> Part:
        """Return a part of the shape that :meth:`description` tells, its numbers to be loaded."""
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        """Return what JSON can hold and :meth:`blank` needs: all but the numbers."""
        raise NotImplementedError

    def subtract(self, item: Item) -> Item:
        """Return a prepared molecule without this part of its targets."""
        batch, buckets = collate([item]), dict(item.buckets)
        for bucket, known in zip(batch.buckets, self(batch), strict=True):
            mine = item.buckets[bucket.key]
            if known is not None and mine.target is not None:
                buckets[bucket.key] = replace(mine, target=mine.target - known.cpu().numpy())
        return replace(item, buckets=buckets)

    def forward(self, batch: Batch) -> list[Tensor | None]:
        """Return for each bucket the irreps ``[n, n_spins, dim]``, Eh, laboratory frame, float64.

        ``None`` stands for zero.
        """
        raise NotImplementedError
