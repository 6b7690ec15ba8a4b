"""The target of Fock matrices, whole: what is subtracted from labels and added to predictions.

``H = H₀ + D (Σ parts + scale · network) D``: H₀ by name (:mod:`helmol.target.matrix`), parts that are fitted
before training (:data:`PARTS`), a scale for every irrep, and the damping D (:mod:`helmol.target.damping`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helmol.arrays import Array
from helmol.brief import brief
from helmol.graph import Batch, EdgeGeometry, Item, edge_geometry
from helmol.graph.blocks import assemble, rotate_pairs
from helmol.target.damping import damped
from helmol.target.domain import Domain
from helmol.target.linear import LinearPart
from helmol.target.matrix import reference_matrix
from helmol.target.means import Means
from helmol.target.parts import Known, Part, Sizes
from helmol.target.scale import Scale

PARTS: dict[str, type[Part]] = {"linear": LinearPart, "means": Means}
"""Parts by name, in the order in which they are fitted and subtracted."""


@dataclass(frozen=True)
class FockOutput:
    """Hold what a network says of the Fock matrices of a batch.

    Attributes:
        normalised: for each bucket of the batch ``[n, n_spins, dim]``, ``(H − H₀ − Σ parts) / scale``;
            off-diagonal blocks in their edge frames.
        scale: for each bucket the scale, Eh, float64, broadcastable to ``[n, n_spins, dim]``.
        unit: of the loss, Eh, float64.
        geometry: the frames.
    """

    normalised: list[Tensor]
    scale: list[Tensor]
    unit: Tensor
    geometry: EdgeGeometry

    __repr__ = brief


def leave(items: Sequence[Item], part: Part) -> Sequence[Item]:
    """Return prepared molecules without a part of their targets."""
    return [part.subtract(item) for item in items]


class FockTarget(Known):
    """Hold all that is known of a Fock matrix before the network.

    Args:
        domain: of the model.
        sizes: of the network.
        parts: descriptions of the parts by name, of a target whose numbers will be loaded.

    Attributes:
        parts: by name, see :data:`PARTS`.
        scale: of what the network learns.
        overlap_floor: s₀ of the damping; 0 switches it off.
    """

    overlap_floor: Tensor

    def __init__(
        self, domain: Domain, sizes: Sizes, parts: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__()
        self.domain, self.sizes, known = domain, sizes, parts or {}
        self.parts = nn.ModuleDict(
            {name: PARTS[name].blank(known[name], domain, sizes) for name in PARTS if name in known}
        )
        self.scale = Scale(domain.basis, domain.n_spins)
        self.register_buffer("overlap_floor", torch.zeros((), dtype=torch.float64))

    def description(self) -> dict[str, Any]:
        """Return what JSON can hold and a new target needs before it loads the numbers."""
        return {name: part.description() for name, part in self.each_part()}

    def each_part(self) -> list[tuple[str, Part]]:
        """Return names and parts, in the order in which they are subtracted."""
        return [(name, part) for name, part in self.parts.items() if isinstance(part, Part)]

    def fit(
        self,
        items: Sequence[Item],
        settings: Mapping[str, Any] | None = None,
        *,
        scaling: bool = True,
        without: Callable[[Sequence[Item], Part], Sequence[Item]] = leave,
    ) -> Sequence[Item]:
        """Fit every part to what the parts before it leave, then the scale to the rest.

        Args:
            items: prepared training molecules with targets ``H − H₀``, Eh.
            settings: choices for parts by name; the others take their default.
            scaling: whether every irrep has its own scale.
            without: takes a part away from the molecules, as :func:`leave` does.

        Returns:
            The molecules without what is known of their targets, as a loss wants them.

        Raises:
            InputError: a molecule has no target.
        """
        settings = settings or {}
        self.parts = nn.ModuleDict()
        for name, kind in PARTS.items():
            part = kind.fit(items, self.domain, self.sizes, settings.get(name, kind.setting))
            if part is not None:
                self.parts[name] = part
                items = without(items, part)
        self.scale.fit(items, self.domain.basis, each=scaling)
        return items

    def subtract(self, item: Item) -> Item:
        """Return a prepared molecule without what is known of its target."""
        for _, part in self.each_part():
            item = part.subtract(item)
        return item

    def output(self, normalised: list[Tensor], geometry: EdgeGeometry, batch: Batch) -> FockOutput:
        """Return a network's output with what a loss or a prediction needs to read it."""
        scale = [self.scale(bucket, batch.numbers) for bucket in batch.buckets]
        return FockOutput(normalised, scale, self.scale.unit, geometry)

    def irreps(self, output: FockOutput, batch: Batch) -> list[Tensor]:
        """Return ``Σ parts + scale · network`` for every bucket: laboratory frame, Eh, float64."""
        geometry = edge_geometry(
            batch.positions, batch.pair_index, lmax=self.sizes.lmax, cutoff=self.sizes.cutoff,
            dtype=torch.float64,
        )  # fmt: skip
        total = []
        for bucket, normalised, scale in zip(batch.buckets, output.normalised, output.scale, strict=True):
            values = scale * normalised.to(torch.float64)
            if len(bucket.key) == 2:
                values = rotate_pairs(values, bucket.key, bucket.index, geometry, to_edge=False)
            total.append(values)
        for _, part in reversed(self.each_part()):
            total = [
                values if known is None else values + known
                for values, known in zip(total, part(batch), strict=True)
            ]
        return total

    def dense(self, output: FockOutput, batch: Batch) -> list[Tensor]:
        """Return ``Σ parts + scale · network``: ``[n_spins, nao, nao]``, house order, Eh, float64."""
        return assemble(self.irreps(output, batch), batch, self.domain.basis, n_spins=self.domain.n_spins)

    def add(self, output: FockOutput, batch: Batch, known: Sequence[Mapping[str, Array]]) -> list[Array]:
        """Return the Fock matrices, house order, Eh, float64, symmetric to the last bit.

        Args:
            output: of the network for the batch.
            batch: molecules; blocks of pairs beyond the cutoff are those of H₀.
            known: for each molecule its reference matrices by name, and under ``overlap`` its overlap, by
                which what is added to H₀ is damped; without it there is no damping.

        Raises:
            InputError: the reference matrix of the target is missing.
        """
        n_spins, floor = self.domain.n_spins, float(self.overlap_floor)
        matrices = []
        for matrix, mine in zip(self.dense(output, batch), known, strict=True):
            delta: Array = matrix.detach().cpu().numpy()
            delta = delta if n_spins == 2 else delta[0]
            if floor and "overlap" in mine:
                delta = damped(delta, mine["overlap"], floor)
            matrices.append(np.asarray(delta + reference_matrix(mine, self.domain.target)))
        return matrices
