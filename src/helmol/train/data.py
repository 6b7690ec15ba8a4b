"""The split, the order of the molecules, and batches filled by edges.

The order is one endless stream: epoch e is a permutation drawn from (seed, e). A batch takes from the
stream until the budget of edges is full, so every batch is full, also across the end of an epoch. Where
the stream stands is one number, and the batch of a step depends on nothing else: not on how many processes
share it either.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from helmol.arrays import IntArray
from helmol.basis import BasisSet
from helmol.elements import SYMBOLS
from helmol.errors import ConfigError, HelmolError, InputError
from helmol.evaluate.energies import EnergyLabel, read_label
from helmol.graph import Batch, Item, collate
from helmol.progress import Progress
from helmol.store import Store
from helmol.store.columns import REFERENCE
from helmol.store.split import random_split
from helmol.system import Molecule, outdated_references
from helmol.target import Domain, Part, element_pairs, needed_references, reference_name, stored_items
from helmol.target.matrix import DEFAULT_TARGET, needs_overlap
from helmol.train.config import DataConfig
from helmol.train.plan import Plan
from helmol.train.ranks import ALONE, Ranks, collected, spread

log = logging.getLogger("helmol.train")


@dataclass(frozen=True)
class Split:
    """Hold the ids of the training and validation molecules, in the store's order."""

    train: list[str]
    val: list[str]


def choose_split(store: Store, config: DataConfig) -> Split:
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
                    f"data.{role}: the store {config.store} has no split {wanted!r} ({have}); give a name, "
                    f"or a number of molecules to draw, e.g. data.{role}: {max(1, len(store) // 5)}"
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


N_LOOKED_AT = 200
"""Batches that are looked at to say how evenly they are shared."""


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

    def _permutation(self, epoch: int) -> IntArray:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._costs))
        return self._order


@dataclass(frozen=True)
class Share:
    """Hold what one process has of a batch.

    Attributes:
        batch: its molecules.
        places: which training molecules these are.
        n_molecules: of the whole batch.
        idle: whether there are fewer molecules than processes, and this one goes through the cheapest of
            another, which does not count, to take part in what all do.
    """

    batch: Batch
    places: list[int]
    n_molecules: int
    idle: bool = False


class ShareStream(MoleculeStream):
    """Say which molecules of the next batch are this process's; shares are alike in edges.

    Args:
        costs: directed edges of each molecule.
        budget: edges per batch, of all processes together.
        seed: seed of the order.
        ranks: the processes.
    """

    def __init__(self, costs: Sequence[int], *, budget: int, seed: int, ranks: Ranks = ALONE) -> None:
        super().__init__(costs, budget=budget, seed=seed)
        self._ranks = ranks

    def share(self, drawn: int, items: ItemCache) -> Share:
        """Return this process's share of the batch that follows after ``drawn`` molecules."""
        whole = self.take(drawn)
        own = [whole[k] for k in self._divided(whole)[self._ranks.rank]]
        places = own or [min(whole, key=self._costs.__getitem__)]
        return Share(collate(items.many(places)), places, len(whole), idle=not own)

    def imbalance(self, n_batches: int = N_LOOKED_AT) -> float:
        """Return by how much the edges of the fullest share exceed the mean, in units of it.

        Args:
            n_batches: the mean is over so many at the start.
        """
        drawn, excess = 0, []
        for _ in range(n_batches):
            whole = self.take(drawn)
            drawn += len(whole)
            loads = [sum(self._costs[whole[k]] for k in some) for some in self._divided(whole)]
            excess.append(max(loads) / (sum(loads) / len(loads)) - 1)
        return float(np.mean(excess))

    def _divided(self, whole: list[int]) -> list[list[int]]:
        return self._ranks.shares([self._costs[k] for k in whole])


class ItemCache(Sequence[Item]):
    """Keep prepared molecules in memory up to a limit, and prepare the others when they are asked for.

    Args:
        load: prepares molecules together, which is faster than one by one.
        portions: all molecules, divided into those that are prepared together when all are gone through.
        megabytes: the limit, 10⁶ bytes.
    """

    def __init__(
        self, load: Callable[[Sequence[int]], list[Item]], portions: Sequence[range], *, megabytes: float
    ) -> None:
        self._load, self._portions, self._room = load, portions, megabytes * 1e6
        self._items: dict[int, Item] = {}

    def __len__(self) -> int:
        return self._portions[-1].stop if self._portions else 0

    def __getitem__(self, k: int) -> Item:  # type: ignore[override]
        if not 0 <= k < len(self):
            raise IndexError(k)
        return self.many([k])[0]

    def __iter__(self) -> Iterator[Item]:
        for portion in self._portions:
            yield from self.many(portion)

    def change(self, function: Callable[[Item], Item]) -> None:
        """Put every molecule through a function, now and when it is prepared again."""
        before = self._load
        self._load = lambda ks: [function(item) for item in before(ks)]
        self._items = {k: function(item) for k, item in self._items.items()}

    def without(self, part: Part) -> ItemCache:
        """Take a part of the targets away, in place."""
        self.change(part.subtract)
        return self

    def many(self, ks: Sequence[int]) -> list[Item]:
        """Return several molecules."""
        missing = [k for k in dict.fromkeys(ks) if k not in self._items]
        new = dict(zip(missing, self._load(missing), strict=True)) if missing else {}
        found = [self._items[k] if k in self._items else new[k] for k in ks]
        for k, item in new.items():
            size = _bytes(item)
            if size <= self._room:
                self._room -= size
                self._items[k] = item
        return found


VALUES_PER_PORTION = 1 << 22
"""Elements of target matrices that are prepared together, 34 MB of them."""


def _portions(store: Store, rows: Sequence[int]) -> list[range]:
    """Divide molecules, in their order, into portions of about equally many matrix elements."""
    portions, start, values = [], 0, 0
    for k, row in enumerate(rows):
        values += int(store.basis.offsets(store.numbers(row))[-1]) ** 2
        if values >= VALUES_PER_PORTION:
            portions.append(range(start, k + 1))
            start, values = k + 1, 0
    return [*portions, range(start, len(rows))] if start < len(rows) else portions


def _bytes(item: Item) -> int:
    """Return the memory that a prepared molecule's arrays take."""
    size = item.pair_index.nbytes + item.molecule.positions.nbytes + item.molecule.numbers.nbytes
    for bucket in item.buckets.values():
        size += bucket.index.nbytes + bucket.reverse.nbytes
        size += sum(values.nbytes for values in (bucket.target, bucket.inputs) if values is not None)
    return size


@dataclass(frozen=True)
class TrainingData:
    """Hold what the loop needs of the data.

    Attributes:
        split: ids.
        items: prepared training molecules, in the order of ``split.train``; their targets are ``H − H₀``
            until what else is known of them is taken away.
        domain: level, basis of the training elements, target, charges and spins of the training set.
        n_edges: directed edges of each training molecule inside the cutoff.
        energies: energies and forces of the training molecules; empty if the task needs none.
    """

    split: Split
    items: ItemCache
    domain: Domain
    n_edges: list[int]
    energies: list[EnergyLabel]


def prepare_data(store: Store, plan: Plan, split: Split, ranks: Ranks = ALONE) -> TrainingData:
    """Read and prepare every training molecule once, and check the validation molecules.

    Of several processes each prepares a share, and all know the molecules of all.

    Raises:
        InputError: a missing reference matrix, energy or forces, or a validation molecule with an element,
            charge or spin that no training molecule has.
        ConfigError: data that the model in ``init`` cannot go on with.
    """
    config, cutoff, inputs = plan.config, plan.network.cutoff, plan.network.inputs
    rows = [store.row(identity) for identity in split.train]
    held_out = [store.row(identity) for identity in split.val]
    learnt = choose_target(store, plan, [*rows, *held_out])
    target = None if config.task == "energy" else learnt
    _check_labels(store, plan, [*rows, *held_out], target)
    energies = [] if config.task == "hamiltonian" else [read_label(store, row) for row in rows]

    def load(ks: Sequence[int]) -> list[Item]:
        items = stored_items(store, [rows[k] for k in ks], cutoff=cutoff, target=target, inputs=inputs)
        if not energies:
            return items
        labels = [energies[k] for k in ks]
        return [
            replace(item, energy=label.energy, forces=label.forces if config.loss.force_weight else None)
            for item, label in zip(items, labels, strict=True)
        ]

    portions = _portions(store, rows)
    items = ItemCache(load, portions, megabytes=config.data.cache_mb)
    own = spread(portions, ranks)
    found: list[list[tuple[Molecule, int]]] = []
    with Progress("Prepare", total=sum(map(len, own)), unit="molecules") as bar:
        for portion in own:
            found.append([(item.molecule, item.n_edges) for item in items.many(portion)])
            bar.advance(len(portion))
    pairs = [pair for some in collected(ranks.gather(found)) for pair in some]
    molecules, n_edges = [molecule for molecule, _ in pairs], [n for _, n in pairs]
    domain = training_domain(store, plan, molecules, learnt)
    for identity, row in zip(split.val, held_out, strict=True):
        try:
            domain.check(store.molecule(row))
        except HelmolError as error:
            raise InputError(f"validation molecule {identity!r} cannot be predicted: {error}") from error
    return TrainingData(split, items, domain, n_edges, energies)


def _check_labels(store: Store, plan: Plan, rows: Sequence[int], target: str | None) -> None:
    """Raise InputError if a molecule lacks a label that the task needs."""
    wanted = {} if target is None else {"fock": "Fock matrix: it is of use for task energy alone"}
    config, inputs = plan.config, plan.network.inputs
    if target is not None:
        for reference in needed_references(target, inputs):
            who = f"target {target!r}" if reference == reference_name(target) else "input 'change'"
            wanted[f"{REFERENCE}{reference}"] = f"reference matrix {reference!r}, which {who} needs"
    if needs_overlap(inputs):
        wanted["overlap"] = "overlap matrix, which the model reads"
    if config.task != "hamiltonian":
        wanted["energy"] = "energy"
        if config.loss.force_weight:
            wanted["forces"] = f"forces, which loss.force_weight {config.loss.force_weight} needs"
    for column, what in wanted.items():
        there = store.has(column)
        if without := [row for row in rows if not there[row]]:
            have = ", ".join(store.references) or "none"
            hint = (
                f"; references in the store: {have}; 'helmol references {config.data.store} --add "
                f"{column.removeprefix(REFERENCE)} --out NEW' adds it"
                if column.startswith(REFERENCE)
                else ""
            )
            names = f"{store.ids[without[0]]!r} of {config.data.store} has no {what}"
            count = f" ({len(without)} of {len(rows)} molecules lack it)" if len(without) > 1 else ""
            raise InputError(f"{names}{hint}{count}")
    if target is not None:
        _refuse_outdated(store, rows, needed_references(target, inputs))


def _refuse_outdated(store: Store, rows: Sequence[int], names: Sequence[str]) -> None:
    """Raise InputError if a reference that is needed was made of a density that lacks electrons."""
    if not any(element.core_electrons for element in store.basis.elements.values()):
        return
    for row in rows:
        if old := outdated_references(names, store.numbers(row), store.basis, store.provenance(row)):
            raise InputError(
                f"the reference {old[0]!r} of {store.ids[row]!r} in {store.path} is of an older helmol and "
                "lacks electrons of atoms with effective core potentials: 'helmol references' with "
                f"'--add {old[0]}' makes it anew"
            )


def choose_target(store: Store, plan: Plan, rows: Sequence[int]) -> str:
    """Return the target that was asked for, with ``auto`` that of ``init`` or the first that the data have.

    Those that cost more come first: nobody has them who did not pay for them, and errors are half as large.
    """
    if plan.config.target.matrix != "auto":
        return plan.config.target.matrix
    if plan.source is not None and "fock" in plan.source.network.heads:
        return plan.source.domain.target
    for name in ("minao-hartree", "minao-step", "minao-lite", "minao"):
        there = store.has(f"{REFERENCE}{name}")
        if all(there[row] for row in rows):
            return f"fock-minus-{name}"
    return DEFAULT_TARGET


def training_domain(store: Store, plan: Plan, molecules: Sequence[Molecule], target: str) -> Domain:
    """Return what a model trained on these molecules may be asked.

    A model that goes on with the Hamiltonian head of ``init`` keeps that model's basis.

    Raises:
        ConfigError: the data are of another functional, basis, target or other elements than ``init``.
    """
    elements = sorted({int(z) for molecule in molecules for z in molecule.numbers})
    states = {(molecule.charge, molecule.spin) for molecule in molecules}
    pairs = set().union(*(element_pairs(molecule) for molecule in molecules))
    basis = BasisSet(store.basis.name, {z: store.basis.elements[z] for z in elements})
    if plan.source is not None:
        who, learnt, heads = plan.source.path, plan.source.domain, plan.source.network.heads
        if unknown := [SYMBOLS[z] for z in elements if z not in learnt.basis.elements]:
            raise ConfigError(
                f"init: {who} has not learnt {', '.join(unknown)}, which {plan.config.data.store} has"
            )
        if plan.config.task != "energy" and "fock" in heads:
            try:
                learnt.check_data(store.level, basis)
            except HelmolError as error:
                raise ConfigError(f"init: {error}") from error
            if learnt.target != target:
                raise ConfigError(
                    f"init: {who} learnt the target {learnt.target!r}, the run wants {target!r}"
                )
            basis = learnt.basis
            states |= {*(learnt.states or itertools.product(learnt.charges, learnt.spins))}
            pairs = {*learnt.pairs} | pairs if learnt.pairs else set()
        mine, theirs = ((level.xc_resolved, level.dispersion) for level in (store.level, learnt.level))
        if mine != theirs:
            log.warning("init learnt at %s, the data are %s", learnt.level.label, store.level.label)
    charges, spins = (tuple(sorted(set(values))) for values in zip(*states, strict=True))
    return Domain(store.level, basis, target, charges, spins, tuple(sorted(states)), tuple(sorted(pairs)))
