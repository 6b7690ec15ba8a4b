"""The part of a matrix that a linear map of its surroundings explains, fitted in closed form before training.

With the density of atoms A_i around atom i of :mod:`helmol.target.surroundings`:

* order m of a pair block, in the frame of its edge i→j, is a linear map of ``A_i[·, ·, l', m]`` and
  ``A_j[·, ·, l', m]``, l' ≥ m, and for m = 0 of functions of the distance;
* degree l of a diagonal block is a linear map of ``A_i[·, ·, l]``, and of the same with a second neighbour:
  ``Σ_j f_n(r_ij) R_ij A_i[·, ·, l', m]`` with A_i in the frame of i→j, which is quadratic in the density.

The fields of the two spins of unrestricted matrices, and the molecules of each charge and spin among those
trained on, have maps of their own.

Irreps that a mirror leaves alone (l₁ + l₂ + l even) keep the sign of m, the others exchange ±m. These are
maps that every turn and mirror allows, so the part is equivariant; ridge regression finds them in seconds.
What is left is several to hundreds of times smaller, and it is what the network learns: centring and
scaling carried two orders further.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from helmol.errors import ConfigError
from helmol.graph import Batch, Item, collate
from helmol.progress import Progress
from helmol.target.domain import Domain
from helmol.target.parts import Part, Sizes, Slots
from helmol.target.surroundings import SECOND_ELEMENTS, Functions, Label, Surroundings

log = logging.getLogger("helmol.target")

SIZES = {"small": Functions(), "large": Functions(second=6, second_lmax=4, neighbour=4, product=3)}
"""Named choices of :class:`Functions`."""
PENALTIES = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Ridge penalties to choose from, in units of the mean square of each feature."""
HELD_OUT = 5
"""Every so many training molecules one is held out to choose the penalty."""
EDGES_TRIED = 4000
"""Directed edges of the molecules that the part is tried on; about 20 CPU-seconds."""
FEWEST_TRIED = 20
"""Molecules below which the trial says nothing."""
WORTH_IT = 0.01
"""Share (root mean square) of a target below which the part must bring it to be taken."""


class LinearPart(Part):
    """Hold the maps; float64.

    Args:
        elements: atomic numbers that count as surroundings, sorted.
        lmax: largest degree.
        cutoff: where pair blocks have faded to zero, bohr.
        functions: what the features are made of.
        shapes: by :data:`Label`, ``(features, n_spins · irreps)`` of each map: degree by degree the spins in
            turn.
        n_spins: Fock matrices per molecule.
        states: (charge, spin) of the molecules trained on if they differ, else nothing.
    """

    setting: ClassVar[str] = "auto"
    maps: Tensor

    def __init__(
        self,
        elements: Sequence[int],
        lmax: int,
        cutoff: float,
        functions: Functions,
        shapes: Mapping[Label, tuple[int, int]],
        n_spins: int = 1,
        states: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.elements, self.lmax, self.cutoff, self.functions = tuple(elements), lmax, cutoff, functions
        self.n_spins, self.states = n_spins, tuple(states)
        # One order, whatever order a file had: the numbers of one part may be loaded into another.
        self.shapes = {label: shapes[label] for label in sorted(shapes, key=_place)}
        self.slots: Slots[Label] = Slots(
            {label: rows * columns for label, (rows, columns) in self.shapes.items()}
        )
        self.register_buffer("maps", torch.zeros(self.slots.total, dtype=torch.float64))

    @classmethod
    def of_maps(
        cls,
        elements: Sequence[int],
        lmax: int,
        cutoff: float,
        functions: Functions,
        maps: Mapping[Label, Tensor],
        n_spins: int = 1,
        states: Sequence[tuple[int, int]] = (),
    ) -> LinearPart:
        """Return the part with these maps, ``[features, n_spins · irreps]`` each."""
        shapes = {label: (value.shape[0], value.shape[1]) for label, value in maps.items()}
        part = cls(elements, lmax, cutoff, functions, shapes, n_spins, states)
        for label, value in maps.items():
            part.map_of(label).copy_(value)
        return part

    @classmethod
    def fit(cls, items: Sequence[Item], domain: Domain, sizes: Sizes, setting: str) -> LinearPart | None:
        """Fit the part; see :meth:`Part.fit`.

        ``setting``: ``none``, ``small``, ``large``, or ``auto``: ``large`` if ``small``, tried on a sample,
        leaves less than 1 % of molecules that it was not fitted to; never with more than three elements.

        Raises:
            ConfigError: another setting.
        """
        if setting not in ("auto", "none", *SIZES):
            raise ConfigError(f"linear is {setting!r}: expected auto, none, {' or '.join(SIZES)}")
        if setting == "none":
            return None
        if setting == "auto":
            if len(domain.basis.elements) > SECOND_ELEMENTS:
                return None
            some = _trial(items)
            if len(some) < FEWEST_TRIED:
                return None
            left = fit_linear(some, lmax=sizes.lmax, cutoff=sizes.cutoff)[1]
            if left > WORTH_IT:
                share = 100 * left
                log.info(
                    "no closed-form part: fitted to %d molecules it leaves %.2g %% of others",
                    len(some),
                    share,
                )
                return None
            setting = "large"
        return fit_linear(items, lmax=sizes.lmax, cutoff=sizes.cutoff, size=setting)[0]

    @classmethod
    def blank(cls, description: Mapping[str, Any], domain: Domain, sizes: Sizes) -> LinearPart:
        """Return a part with maps of zero; see :meth:`Part.blank`."""
        shapes = {
            tuple(int(number) for number in label.split(",")): (int(rows), int(columns))
            for label, (rows, columns) in description["maps"].items()
        }
        states = tuple((int(charge), int(spin)) for charge, spin in description["states"])
        return cls(
            tuple(description["elements"]), description["lmax"], description["cutoff"],
            Functions(**description["functions"]), shapes, description["n_spins"], states,
        )  # fmt: skip

    def description(self) -> dict[str, Any]:
        """Return all but the numbers of the maps."""
        return {
            "elements": list(self.elements),
            "lmax": self.lmax,
            "cutoff": self.cutoff,
            "functions": asdict(self.functions),
            "n_spins": self.n_spins,
            "states": [list(state) for state in self.states],
            "maps": {",".join(map(str, label)): list(shape) for label, shape in self.shapes.items()},
        }

    def map_of(self, label: Label) -> Tensor:
        """Return a view of one map, ``[features, n_spins · irreps]``."""
        return self.maps[self.slots[label]].view(self.shapes[label])

    def forward(self, batch: Batch) -> list[Tensor | None]:
        """Return the irreps for every bucket; see :meth:`Part.forward`."""
        surroundings = Surroundings(
            batch, self.elements, self.functions, lmax=self.lmax, cutoff=self.cutoff, states=self.states
        )
        flat = self.maps.cpu()
        maps = {label: flat[self.slots[label]].view(shape) for label, shape in self.shapes.items()}
        parts = (surroundings.apply(bucket, maps, n_spins=self.n_spins) for bucket in batch.buckets)
        return [part.to(batch.numbers.device) for part in parts]


def _place(label: Label) -> tuple[int, Label]:
    """Return by what labels are sorted: those of atoms first, then those of pairs."""
    return len(label), label


def _trial(items: Sequence[Item]) -> list[Item]:
    """Return as many molecules, spread over all, as a trial may see."""
    chosen: list[Item] = []
    room = EDGES_TRIED
    for k in np.random.default_rng(0).permutation(len(items)):
        item = items[int(k)]
        room -= item.n_edges
        if room < 0:
            break
        chosen.append(item)
    return chosen


class _Squares:
    """Collect sums of squares of features and targets; enough to fit and to judge a linear map."""

    def __init__(self) -> None:
        self.features, self.mixed, self.targets = torch.zeros(()), torch.zeros(()), 0.0

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Add rows."""
        self.features = self.features + features.mT @ features
        self.mixed = self.mixed + features.mT @ targets
        self.targets += float(targets.square().sum())

    def solve(self, penalty: float) -> Tensor:
        """Return the ridge solution, ``[f, t]``."""
        size = torch.diagonal(self.features)
        size = torch.where(size > 1e-12 * size.max(), size, torch.inf).rsqrt()
        scaled = size[:, None] * self.features * size
        scaled = scaled + penalty * torch.eye(len(size), dtype=scaled.dtype)
        return size[:, None] * torch.linalg.solve(scaled, size[:, None] * self.mixed)

    def error(self, weights: Tensor) -> float:
        """Return the sum of squares that a map leaves."""
        explained = 2 * (weights * self.mixed).sum()
        return self.targets - float(explained - (weights * (self.features @ weights)).sum())


def fit_linear(
    items: Sequence[Item], *, lmax: int, cutoff: float, size: str = "small"
) -> tuple[LinearPart, float]:
    """Fit the linear part to prepared training molecules, and say what it leaves of others.

    The penalty of each map is the one that leaves least on every fifth molecule; the map is then fitted
    to all.

    Args:
        items: prepared molecules with targets.
        lmax: largest degree.
        cutoff: of the pairs, bohr.
        size: a key of :data:`SIZES`.

    Returns:
        The part, and the root mean square of what is left of every fifth molecule when the others are fitted,
        in units of that of its targets.

    Raises:
        InputError: a molecule has no target.
    """
    functions = SIZES[size]
    elements = tuple(sorted({int(z) for item in items for z in item.molecule.numbers}))
    found = sorted({(item.molecule.charge, item.molecule.spin) for item in items})
    states, n_spins = (tuple(found) if len(found) > 1 else ()), 1
    kept: dict[Label, _Squares] = {}
    held: dict[Label, _Squares] = {}
    with Progress("Fit", total=len(items), unit="molecules") as bar:
        for k, item in enumerate(items):
            batch = collate([item])
            surroundings = Surroundings(batch, elements, functions, lmax=lmax, cutoff=cutoff, states=states)
            into = held if k % HELD_OUT == HELD_OUT - 1 else kept
            for bucket in batch.buckets:
                n_spins = 1 if bucket.target is None else bucket.target.shape[1]
                for label, features, targets in surroundings.samples(bucket):
                    into.setdefault(label, _Squares()).add(features, targets)
            bar.advance()
    maps, left, squares = {}, 0.0, 0.0
    for label in sorted({*kept, *held}, key=_place):
        some, rest = kept.get(label), held.get(label)
        if some is None or rest is None:
            continue  # Too rare to tell whether a map would hold elsewhere.
        errors = {penalty: rest.error(some.solve(penalty)) for penalty in PENALTIES}
        penalty = min(errors, key=errors.__getitem__)
        squares += rest.targets
        left += min(errors[penalty], rest.targets)
        if errors[penalty] > rest.targets:
            continue
        whole = _Squares()
        whole.features = some.features + rest.features
        whole.mixed = some.mixed + rest.mixed
        maps[label] = whole.solve(penalty).contiguous()
    share = math.sqrt(max(left, 0.0) / squares) if squares else 1.0
    return LinearPart.of_maps(elements, lmax, cutoff, functions, maps, n_spins, states), share
