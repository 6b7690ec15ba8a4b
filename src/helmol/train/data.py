"""The split, the order of the molecules, and batches filled by edges.

The order is one endless stream: epoch e is a permutation drawn from (seed, e). A batch takes from the
stream until the budget of edges is full, so every batch is full, also across the end of an epoch. Where
the stream stands is one number, and the batch of a step depends on nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from helmol.basis import BasisSet
from helmol.errors import ConfigError, HelmolError, InputError
from helmol.graph import Item, prepare
from helmol.model import Domain, target_matrix
from helmol.model.linear import LinearPart, fit_linear
from helmol.progress import Progress
from helmol.store import Store
from helmol.store.split import random_split
from helmol.train.config import TrainConfig


@dataclass(frozen=True)
class Split:
    """Hold the ids of the training and validation molecules, in the store's order."""

    train: list[str]
    val: list[str]


def choose_split(store: Store, config: TrainConfig) -> Split:
    """Return the molecules that a configuration asks for.

    Raises:
        ConfigError: a split of that name is not in the store, or there are too few molecules to draw.
        InputError: a molecule stands in both splits.
    """
    named = {name: list(ids) for name, ids in store.splits.items()}
    chosen: dict[str, list[str]] = {}
    for role, wanted in (("train", config.train), ("val", config.val)):
        if isinstance(wanted, str):
            if wanted not in named:
                have = f"it has {', '.join(named)}" if named else "it has none"
                raise ConfigError(
                    f"{role}: the store {config.data} has no split {wanted!r} ({have}); give a name, "
                    f"or a number of molecules to draw, e.g. {role}: {max(1, len(store) // 5)}"
                )
            chosen[role] = named[wanted]
    sizes = {role: n for role, n in (("train", config.train), ("val", config.val)) if isinstance(n, int)}
    if sizes:
        taken = {i for ids in chosen.values() for i in ids}
        elsewhere = {i for ids in named.values() for i in ids}
        pool = [i for i in named.get("train", [i for i in store.ids if i not in elsewhere]) if i not in taken]
        if sum(sizes.values()) > len(pool):
            asked = " + ".join(f"{n} ({role})" for role, n in sizes.items())
            raise ConfigError(
                f"{asked} molecules wanted, {len(pool)} of the store's {len(store)} can be drawn: "
                "ask for fewer, or make more with 'helmol generate'"
            )
        chosen |= random_split(pool, sizes=sizes, seed=config.split_seed)
    train, val = chosen["train"], chosen["val"]
    if not train or not val:
        raise InputError(
            f"the split has {len(train)} training and {len(val)} validation molecules: both need one"
        )
    if both := set(train) & set(val):
        raise InputError(
            f"{len(both)} molecules are in both splits, e.g. {min(both)!r}: validation would mean nothing"
        )
    order = {identity: k for k, identity in enumerate(store.ids)}
    return Split(sorted(train, key=order.__getitem__), sorted(val, key=order.__getitem__))


class MoleculeStream:
    """Say which molecules the next batch holds.

    Args:
        costs: directed edges of each molecule.
        budget: edges per batch; a molecule that is larger makes a batch of its own.
        seed: seed of the order.
    """

    def __init__(self, costs: Sequence[int], *, budget: int, seed: int) -> None:
        self._costs, self._budget, self._seed = [max(1, cost) for cost in costs], budget, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def take(self, drawn: int) -> list[int]:
        """Return the molecules of the batch that follows after ``drawn`` molecules of the stream.

        A batch holds at most one epoch's number of molecules.
        """
        n = len(self._costs)
        batch: list[int] = []
        room = self._budget
        while len(batch) < n:
            epoch, position = divmod(drawn + len(batch), n)
            molecule = int(self._permutation(epoch)[position])
            room -= self._costs[molecule]
            if batch and room < 0:
                break
            batch.append(molecule)
        return batch

    def epoch(self, drawn: int) -> float:
        """Return how often the data have been seen after ``drawn`` molecules."""
        return drawn / len(self._costs)

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._costs))
        return self._order


class ItemCache(Sequence[Item]):
    """Keep prepared molecules in memory up to a limit, and prepare the others when they are asked for.

    Args:
        load: prepares molecule k.
        length: number of molecules.
        megabytes: the limit, 10⁶ bytes.
    """

    def __init__(self, load: Callable[[int], Item], length: int, *, megabytes: float) -> None:
        self._load, self._length, self._room = load, length, megabytes * 1e6
        self._items: dict[int, Item] = {}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, k: int) -> Item:  # type: ignore[override]
        if not 0 <= k < self._length:
            raise IndexError(k)
        item = self._items.get(k)
        if item is None:
            item = self._load(k)
            size = _bytes(item)
            if size <= self._room:
                self._room -= size
                self._items[k] = item
        return item


def _bytes(item: Item) -> int:
    """Return the memory that a prepared molecule's arrays take."""
    size = item.pair_index.nbytes + item.molecule.positions.nbytes + item.molecule.numbers.nbytes
    for bucket in item.buckets.values():
        size += bucket.index.nbytes + bucket.reverse.nbytes
        size += bucket.target.nbytes if bucket.target is not None else 0
    return size


@dataclass(frozen=True)
class TrainingData:
    """Hold what the loop needs of the data.

    Attributes:
        split: ids.
        items: prepared training molecules, in the order of ``split.train``.
        domain: level, basis of the training elements, target, charges and spins of the training set.
        n_edges: directed edges of each training molecule inside the cutoff.
        linear: the part of the targets that was fitted and taken from the items.
        fit_cpu_seconds: CPU time of that fit.
    """

    split: Split
    items: ItemCache
    domain: Domain
    n_edges: list[int]
    linear: LinearPart | None = None
    fit_cpu_seconds: float = 0.0


def prepare_data(store: Store, config: TrainConfig, split: Split) -> TrainingData:
    """Read and prepare every training molecule once, and check the validation molecules.

    Raises:
        InputError: unrestricted labels, a missing reference matrix, or a validation molecule with an
            element, charge or spin that no training molecule has.
    """
    if store.level.method == "uks":
        raise InputError(
            f"{config.data} holds unrestricted (UKS) labels: training on open-shell Fock matrices is not "
            "there yet; use a store of closed-shell molecules"
        )
    place = {identity: k for k, identity in enumerate(store.ids)}
    cutoff = config.network().cutoff

    def load(k: int) -> Item:
        sample = store[place[split.train[k]]]
        matrix = target_matrix(sample, config.target)
        return prepare(sample.molecule, store.basis, cutoff=cutoff, matrix=matrix)

    items = ItemCache(load, len(split.train), megabytes=config.cache_mb)
    elements: set[int] = set()
    charges: set[int] = set()
    spins: set[int] = set()
    n_edges = []
    with Progress("Prepare", total=len(items), unit="molecules") as bar:
        for item in items:
            elements.update(item.molecule.numbers.tolist())
            charges.add(item.molecule.charge)
            spins.add(item.molecule.spin)
            n_edges.append(item.n_edges)
            bar.advance()
    basis = BasisSet(store.basis.name, {z: store.basis.elements[z] for z in sorted(elements)})
    domain = Domain(store.level, basis, config.target, tuple(sorted(charges)), tuple(sorted(spins)))
    for identity in split.val:
        sample = store[place[identity]]
        try:
            domain.check(sample.molecule)
            target_matrix(sample, config.target)
        except HelmolError as error:
            raise InputError(f"validation molecule {identity!r} cannot be predicted: {error}") from error
    if config.linear == "none":
        return TrainingData(split, items, domain, n_edges)
    lmax = config.network().lmax or 2 * basis.lmax
    start = time.process_time()
    linear = fit_linear(items, lmax=lmax, cutoff=cutoff, size=config.linear)
    rest = ItemCache(lambda k: linear.without(load(k)), len(items), megabytes=config.cache_mb)
    return TrainingData(split, rest, domain, n_edges, linear, time.process_time() - start)
