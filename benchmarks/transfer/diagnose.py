"""What stands between pre-trained features and the energy: other closed-form heads on the same features.

    python benchmarks/transfer/diagnose.py runs/transfer --out runs/diagnosis

``runs/transfer`` is the folder of a finished ``study.py``. Every head is fitted as the read-out ``elements``
is, ``E = Σ_i E_ref(Z_i) + f_{Z_i}(x_i)`` with the ridge, and the width of a kernel, chosen on formulas left
out, to random parts of the training conformers, and tested on the study's two test sets. Writes
``diagnosis.json`` and ``diagnosis.md``.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from helmol.arrays import Array, IntArray
from helmol.evaluate.energies import read_label
from helmol.files import write_json, write_text
from helmol.graph import collate
from helmol.model import Model, find_model, load_model
from helmol.model.heads.energy import invariants
from helmol.model.readout import SMALLEST_STD, left_out
from helmol.store import Store
from helmol.units import EV_PER_HARTREE

BUDGETS = (64, 160, 0)
"""Energy labels; 0 is all."""
DRAWS = 4
RIDGES = 10.0 ** np.arange(-8, 3)
WIDTHS = (0.5, 1.0, 2.0, 4.0)
"""Of the Gaussian kernel, in units of the root-mean-square distance of a feature vector from its mean."""


def products(nodes: Tensor) -> Tensor:
    """Return scalars and, for every l > 0, the products ``Σ_m z_lmc z_lmd`` of all pairs of channels."""
    c, parts, first = nodes.shape[2], [nodes[:, 0]], 1
    upper = torch.triu_indices(c, c)
    while first < nodes.shape[1]:
        size = 2 * len(parts) + 1
        x = nodes[:, first : first + size]
        parts.append(torch.einsum("nmc,nmd->ncd", x, x)[:, upper[0], upper[1]])
        first += size
    return torch.cat(parts, dim=1)


def scalars(nodes: Tensor) -> Tensor:
    """Return the features of degree 0."""
    return nodes[:, 0]


@dataclass(frozen=True)
class Head:
    """Name a head: what it reads of the nodes, whether of the last layer only, and whether it is a kernel."""

    reads: Callable[[Tensor], Tensor]
    last: bool = False
    gaussian: bool = False


HEADS = {
    "linear in scalars and lengths (`elements`)": Head(invariants),
    "the same, last layer": Head(invariants, last=True),
    "linear in scalars": Head(scalars),
    "linear in products of channels": Head(products),
    "Gaussian kernel of scalars and lengths": Head(invariants, gaussian=True),
}


@dataclass(frozen=True)
class Conformers:
    """Hold conformers: features and elements of all atoms, their conformers, counts of elements, energies."""

    x: Array
    z: IntArray
    owner: IntArray
    counts: Array
    energies: Array
    formulas: tuple[str, ...]

    def some(self, rows: Sequence[int]) -> Conformers:
        """Return a part."""
        new = np.full(len(self.energies), -1)
        new[list(rows)] = np.arange(len(rows))
        mine = new[self.owner] >= 0
        return Conformers(
            self.x[mine], self.z[mine], new[self.owner[mine]], self.counts[list(rows)],
            self.energies[list(rows)], tuple(self.formulas[k] for k in rows),
        )  # fmt: skip


def main() -> None:
    """Fit, test, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, int, str], list[float]] = {}
    runs = sorted(arguments.study.glob("pretrain-delta-[0-9]"))
    for run, (name, head) in itertools.product(runs, HEADS.items()):
        network = load_model(find_model(run))
        with Store.open(arguments.study / "data.h5") as store:
            train, *tests = (
                read(network, store, split, head) for split in ("train", "test_conformers", "test_molecules")
            )
        n = len(train.energies)
        for budget, draw in itertools.product(BUDGETS, range(DRAWS)):
            if not budget and draw:
                continue
            rows = np.random.default_rng(draw).permutation(n)[: budget or n]
            errors = fit_and_test(train.some(rows.tolist()), tests, head)
            for test, error in zip(("conformers", "molecules"), errors, strict=True):
                found.setdefault((name, budget or n, test), []).append(error)
    rows = [
        {"head": h, "labels": b, "test": t, "energy_mae_meV": float(np.mean(e)), "n_fits": len(e)}
        for (h, b, t), e in found.items()
    ]
    write_json(arguments.out / "diagnosis.json", {"backbones": len(runs), "draws": DRAWS, "rows": rows})
    write_text(arguments.out / "diagnosis.md", as_text(found))


def read(network: Model, store: Store, split: str, head: Head) -> Conformers:
    """Return the conformers of a split with the features that a head reads."""
    labels = [read_label(store, store.row(identity)) for identity in store.splits[split]]
    elements = network.domain.basis.elements
    x, z, owner = [], [], []
    for k, label in enumerate(labels):
        batch = collate([network.prepare(label.molecule)])
        with torch.no_grad():
            states = network(batch, ()).nodes
        layers = [states.final] if head.last else [*states.layers, states.final]
        x.append(torch.cat([head.reads(nodes) for nodes in layers], dim=1).double().numpy())
        z.append(label.molecule.numbers)
        owner.append(np.full(label.molecule.n_atoms, k))
    counts = [[(label.molecule.numbers == e).sum() for e in elements] for label in labels]
    return Conformers(
        np.concatenate(x), np.concatenate(z), np.concatenate(owner), np.array(counts, dtype=float),
        np.array([label.energy for label in labels]), tuple(label.molecule.formula for label in labels),
    )  # fmt: skip


def fit_and_test(train: Conformers, tests: Sequence[Conformers], head: Head) -> list[float]:
    """Return the mean absolute errors on the test sets, meV."""
    floor = SMALLEST_STD * np.sqrt(np.square(train.x).mean(axis=0)) + 1e-12
    scale = {
        z: (train.x[train.z == z].mean(axis=0), np.maximum(train.x[train.z == z].std(axis=0), floor))
        for z in np.unique(train.z).tolist()
    }
    reference = np.linalg.lstsq(train.counts, train.energies, rcond=None)[0]
    rest = train.energies - train.counts @ reference
    groups = by_formula(train.formulas)
    best: tuple[float, float | None, float] | None = None
    for width in WIDTHS if head.gaussian else (None,):
        k = kernel(train, train, scale, width)
        k = k / np.trace(k) + train.counts @ train.counts.T / np.square(train.counts).sum()
        for ridge in RIDGES / len(k):
            error = left_out(k, rest, groups, ridge)
            if best is None or error < best[0]:
                best = error, width, ridge
    assert best is not None
    _, width, ridge = best
    k = kernel(train, train, scale, width)
    unit, counts_unit = np.trace(k), np.square(train.counts).sum()
    k = k / unit + train.counts @ train.counts.T / counts_unit
    dual = np.linalg.solve(k + ridge * np.eye(len(k)), rest)
    errors = []
    for test in tests:
        cross = kernel(test, train, scale, width) / unit + test.counts @ train.counts.T / counts_unit
        predicted = cross @ dual + test.counts @ reference
        errors.append(float(1000 * EV_PER_HARTREE * np.abs(predicted - test.energies).mean()))
    return errors


def kernel(a: Conformers, b: Conformers, scale: dict[int, tuple[Array, Array]], width: float | None) -> Array:
    """Return ``K_AB = Σ_{i in A, j in B, Z_i = Z_j} k(x_i, x_j)``, linear without a width."""
    result = np.zeros((len(a.energies), len(b.energies)))
    for z, (mean, std) in scale.items():
        mine, theirs = a.z == z, b.z == z
        u, v = ((c.x[c.z == z] - mean) / std / len(mean) ** 0.5 for c in (a, b))
        k = u @ v.T
        if width is not None:
            distance = np.square(u).sum(axis=1)[:, None] + np.square(v).sum(axis=1) - 2 * k
            k = np.exp(-np.maximum(distance, 0) / (2 * width**2))
        sums = np.zeros((len(a.energies), k.shape[1]))
        np.add.at(sums, a.owner[mine], k)
        np.add.at(result.T, b.owner[theirs], sums.T)
    return result


def by_formula(formulas: Sequence[str]) -> list[list[int]]:
    """Return the places of each formula."""
    places: dict[str, list[int]] = {}
    for row, formula in enumerate(formulas):
        places.setdefault(formula, []).append(row)
    return list(places.values())


def as_text(found: dict[tuple[str, int, str], list[float]]) -> str:
    """Return the table in Markdown."""
    budgets = sorted({budget for _, budget, _ in found})
    lines = [
        "Mean absolute error in meV per molecule, new conformers / new molecules; mean over backbones and "
        "draws of the labels.",
        "",
        f"| head | {' | '.join(f'{b} energies' for b in budgets)} |",
        "|---|" + "---|" * len(budgets),
    ]
    for head in dict.fromkeys(name for name, _, _ in found):
        cells = [
            " / ".join(f"{np.mean(found[head, b, test]):.0f}" for test in ("conformers", "molecules"))
            for b in budgets
        ]
        lines.append(f"| {head} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
