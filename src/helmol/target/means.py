"""The mean of every element's on-site scalars over the training set.

Core levels differ by orders of magnitude between elements; the l = 0 irreps of diagonal blocks are centred,
all others have no mean that a rotation would leave alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helmol.basis import BasisSet, diagonal_table
from helmol.graph import Batch, Item
from helmol.target.domain import Domain
from helmol.target.parts import OfElements, Part, Sizes


class Means(Part):
    """Hold by element the mean of the l = 0 irreps of diagonal blocks, Eh; zero for l > 0.

    Args:
        basis: shells of the elements.
        n_spins: matrices per molecule.
    """

    def __init__(self, basis: BasisSet, n_spins: int) -> None:
        super().__init__()
        self.elements = OfElements(basis, n_spins, 0.0)

    @classmethod
    def fit(cls, items: Sequence[Item], domain: Domain, sizes: Sizes, setting: bool) -> Means | None:
        """Take the means; see :meth:`Part.fit`. ``setting``: whether to centre at all."""
        return cls.of_targets(items, domain.basis, domain.n_spins) if setting else None

    @classmethod
    def of_targets(cls, items: Iterable[Item], basis: BasisSet, n_spins: int) -> Means:
        """Return the means of the targets of prepared molecules."""
        part = cls(basis, n_spins)
        rows: dict[int, list[np.ndarray]] = {}
        for item in items:
            for key, bucket in item.buckets.items():
                if len(key) == 1 and bucket.target is not None:
                    for row, atom in zip(bucket.target, bucket.index, strict=True):
                        rows.setdefault(int(item.molecule.numbers[atom]), []).append(row)
        for number, found in rows.items():
            n_scalars = diagonal_table(basis.signature(number)).counts[0]
            mean = np.stack(found)[..., :n_scalars].mean(axis=0)
            part.elements.of(number)[:, :n_scalars] = torch.from_numpy(mean)
        return part

    @classmethod
    def blank(cls, description: Mapping[str, Any], domain: Domain, sizes: Sizes) -> Means:
        """Return means of zero; see :meth:`Part.blank`."""
        return cls(domain.basis, domain.n_spins)

    def description(self) -> dict[str, Any]:
        """Return nothing: the domain says it all."""
        return {}

    def forward(self, batch: Batch) -> list[Tensor | None]:
        """Return the means of the atoms; see :meth:`Part.forward`."""
        return [self.elements(b, batch.numbers) if len(b.key) == 1 else None for b in batch.buckets]
