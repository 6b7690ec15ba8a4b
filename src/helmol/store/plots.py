"""Figures of a data card; the only module of the store that imports matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from helmol.arrays import Array
from helmol.basis import LETTERS
from helmol.elements import atomic_number
from helmol.errors import StoreError
from helmol.files import replacing
from helmol.store.card import drawn_rows
from helmol.store.packed import Store
from helmol.store.statistics import block_norms
from helmol.units import ANGSTROM_PER_BOHR, EV_PER_HARTREE

MOST_SAMPLES = 200
MOST_POINTS = 20000
COLOURS = ("#222222", "#d9822b", "#2a9d5c", "#0b6fb8", "#8e5aa8", "#c23b4b", "#7a6a4f")
FIGURES = ("sizes.png", "block_norms.png", "shell_pairs.png", "gaps_and_energies.png")
"""What a card may have; all of them are made anew together."""


def draw(store: Store, folder: Path, card: Mapping[str, Any]) -> list[Path]:
    """Write all figures that a store and its card have data for; return their paths."""
    for name in FIGURES:
        (folder / name).unlink(missing_ok=True)  # of another store, or of this one before
    drawn = (
        _sizes(store, folder),
        _distances(store, folder),
        _shell_pairs(card["fock"], folder),
        _spreads(card, folder),
    )
    return [path for path in drawn if path is not None]


def _sizes(store: Store, folder: Path) -> Path | None:
    """Draw how many atoms and orbitals the molecules have."""
    sizes = []
    for row in range(len(store)):
        try:
            molecule = store.molecule(row)
        except StoreError:
            continue
        sizes.append((molecule.n_atoms, int(store.basis.offsets(molecule.numbers)[-1])))
    if not sizes:
        return None
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axis, values, label in zip(
        figure.subplots(1, 2), np.array(sizes).T, ("atoms", "orbitals"), strict=True
    ):
        low, high = int(values.min()), int(values.max())
        width = max(1, (high - low + 1) // 40)
        axis.hist(values, bins=np.arange(low - 0.5, high + width + 0.5, width), color="#0b6fb8")
        axis.set(xlabel=f"{label} per molecule", ylabel="molecules")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.set_title(f"{len(values)} molecules", fontsize=10)
    return _save(figure, folder / "sizes.png")


def _distances(store: Store, folder: Path) -> Path | None:
    """Draw the norm of every block over the distance of its atoms, for F and for F minus references."""
    collected: dict[str, list[tuple[Array, Array]]] = {}
    for row in drawn_rows(range(len(store)), MOST_SAMPLES):
        try:
            norms = block_norms(store[row], store.basis)
        except StoreError:
            continue
        distance = norms.pop("distance_bohr") * ANGSTROM_PER_BOHR
        for name, values in norms.items():
            collected.setdefault(name, []).append((distance, values))
    pairs = {
        name: (np.concatenate([d for d, _ in parts]), np.concatenate([v for _, v in parts]))
        for name, parts in collected.items()
    }
    pairs = {name: pair for name, pair in pairs.items() if len(pair[0])}
    if not pairs:
        return None
    figure = Figure(figsize=(7.6, 4), layout="constrained")
    axes = figure.subplots()
    for k, (name, (distance, norm)) in enumerate(pairs.items()):
        color = COLOURS[k % len(COLOURS)]
        chosen = np.random.default_rng(0).permutation(len(norm))[:MOST_POINTS]
        chosen = chosen[norm[chosen] > 0]
        size = 5.0 if len(chosen) < 2000 else 2.0
        axes.semilogy(
            distance[chosen],
            norm[chosen],
            ".",
            markersize=size,
            alpha=0.5,
            color=color,
            label=name,
            rasterized=True,
        )
    axes.set(xlabel="distance of two atoms / Å", ylabel="norm of their block / Eh")
    axes.legend(frameon=False, markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    return _save(figure, folder / "block_norms.png")


def _shell_pairs(fock: Mapping[str, Mapping[str, Any]], folder: Path) -> Path | None:
    """Draw the root mean square of F by element and shell, on one atom and between two."""
    kinds = [kind for kind in ("onsite", "offsite") if fock[kind]]
    if not kinds:
        return None
    figure = Figure(figsize=(5.2 * len(kinds), 4.4), layout="constrained")
    for axis, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        # "H-O s-p" between two atoms, "O s-p" on one.
        ends: dict[tuple[str, str], float] = {}
        for key, row in fock[kind].items():
            elements, shells = key.split()
            pair = (elements.split("-") * 2)[:2]
            first, second = (f"{e} {l}" for e, l in zip(pair, shells.split("-"), strict=True))
            ends[first, second] = ends[second, first] = row["rms_Eh"]
        names = sorted({name for pair in ends for name in pair}, key=_place)
        values = np.full((len(names), len(names)), np.nan)
        for (first, second), value in ends.items():
            values[names.index(first), names.index(second)] = value or np.nan
        image = axis.imshow(np.log10(values), cmap="viridis")
        letters = min(10.0, 190 / len(names))
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=letters)
        axis.set_yticks(range(len(names)), names, fontsize=letters)
        axis.set_title("two orbitals of one atom" if kind == "onsite" else "two atoms", fontsize=10)
        figure.colorbar(image, ax=axis, label="log₁₀ (root mean square of F / Eh)", shrink=0.8)
    return _save(figure, folder / "shell_pairs.png")


def _place(name: str) -> tuple[int, int]:
    """Return by what shells of elements (``"O p"``) are sorted: atomic number, angular momentum."""
    element, letter = name.split()
    return atomic_number(element), LETTERS.index(letter)


def _spreads(card: Mapping[str, Any], folder: Path) -> Path | None:
    """Draw how gaps, and energies around a sum over atoms, are spread."""
    residuals = card["energy_fit"].get("residuals_Eh", [])
    panels = [
        ("gap / eV", np.asarray(card["gaps_Eh"]) * EV_PER_HARTREE),
        ("energy − sum over atoms / eV", np.asarray(residuals) * EV_PER_HARTREE),
    ]
    panels = [(label, values) for label, values in panels if len(values) > 1]
    if not panels:
        return None
    figure = Figure(figsize=(4 * len(panels), 3.2), layout="constrained")
    for axis, (label, values) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axis.hist(values, bins=min(40, max(5, len(values) // 10)), color="#0b6fb8")
        axis.set(xlabel=label, ylabel="molecules")
        axis.set_title(f"{len(values)} molecules", fontsize=10)
    return _save(figure, folder / "gaps_and_energies.png")


def _save(figure: Figure, path: Path) -> Path:
    """Write a figure atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return path
