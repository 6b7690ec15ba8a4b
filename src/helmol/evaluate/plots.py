"""Pictures of errors: parity, orbital levels, errors by shell pair, element and distance, SCF convergence.

Every function writes one PNG and returns its path. Matplotlib is imported here and drawn without a
display.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from helmol.arrays import Array
from helmol.basis import BasisSet
from helmol.elements import SYMBOLS, atomic_number
from helmol.errors import InputError
from helmol.evaluate.metrics import METRICS, Metric
from helmol.files import replacing
from helmol.properties import electronic_state
from helmol.system import Sample
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE, MICROHARTREE_PER_HARTREE

if TYPE_CHECKING:
    from helmol.evaluate.energies import EnergyLabel
    from helmol.model import PredictedEnergy


MODEL, TRUE, BASELINE = "#0b6fb8", "#222222", "#d9822b"
FLOOR_UEH = 1e-3
"""Smallest error drawn on a log axis, µEh; float64 noise of a Fock matrix is far below."""

SMALLEST_EH = 1e-12
"""Smallest energy difference and gradient drawn on a log axis, Eh: rounding of a total energy."""

LARGEST_SIDE = 15.0
"""Largest side of a map of shell pairs, inches."""

VALENCE_EV = 20.0
"""Levels deeper below the HOMO than this are not drawn, eV."""


def _save(figure: Figure, path: Path) -> Path:
    """Write a figure atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return path


def _colours(names: Iterable[str]) -> dict[str, Any]:
    """Return a colour for the model, and one for each of the others that are drawn beside it."""
    others = itertools.cycle([BASELINE, *(mpl.colormaps["tab10"](k) for k in (2, 4, 5, 7))])
    return {name: MODEL if name == "model" else next(others) for name in names}


def _tidy(axes: Axes) -> None:
    """Give axes helmol's look."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def parity(
    samples: Sequence[Sample],
    predicted: Sequence[Array],
    basis: BasisSet,
    path: Path,
    *,
    errors: Mapping[str, Any],
) -> Path:
    """Draw predicted against true Fock elements, and the size of the error against |F|.

    Left: blocks of an atom with itself; right: blocks of two atoms. Colour counts elements.

    Args:
        samples: labelled molecules.
        predicted: one Fock matrix each, house order, Eh.
        basis: shells of the elements.
        path: PNG to write.
        errors: the table beside which the picture stands, of these molecules or more.
    """
    parts: list[list[tuple[Array, Array]]] = [[], []]
    for sample, matrix in zip(samples, predicted, strict=True):
        offsets = basis.offsets(sample.molecule.numbers)
        atom = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        onsite = atom[:, None] == atom
        for part, mask in zip(parts, (onsite, ~onsite), strict=True):
            part.append((sample.matrices.fock[..., mask].ravel(), matrix[..., mask].ravel()))
    figure = Figure(figsize=(9, 7.2), layout="constrained")
    grid = figure.subplots(2, 2)
    for column, (part, key) in enumerate(
        zip(parts, ("h_mae_diagonal_uEh", "h_mae_offdiagonal_uEh"), strict=True)
    ):
        true = np.concatenate([t for t, _ in part])
        guess = np.concatenate([p for _, p in part])
        if not len(true):
            continue
        _parity_panel(grid[0, column], true, guess, METRICS[key], errors[key])
        counts = _error_panel(grid[1, column], true, guess, errors[key])
        figure.colorbar(counts, ax=grid[1, column], label="matrix elements")
    drawn, total = len(samples), errors["n_molecules"]
    figure.suptitle(
        f"{drawn} molecules" if drawn == total else f"points of {drawn}, means of {total} molecules"
    )
    return _save(figure, path)


def _parity_panel(axes: Axes, true: Array, guess: Array, metric: Metric, error: float) -> None:
    """Draw one parity plot with the mean error."""
    shown = np.random.default_rng(0).permutation(len(true))[:20000]
    axes.plot([true.min(), true.max()], [true.min(), true.max()], color=TRUE, linewidth=0.8)
    axes.plot(true[shown], guess[shown], ".", color=MODEL, markersize=3, alpha=0.4, rasterized=True)
    axes.set(title=metric.label, xlabel="F from DFT / Eh", ylabel="F predicted / Eh")
    axes.text(0.04, 0.94, f"mean error {error:.4g} {metric.unit}", transform=axes.transAxes, va="top")
    _tidy(axes)


def _error_panel(axes: Axes, true: Array, guess: Array, mean: float) -> Any:
    """Draw the density of |ΔF| over |F|, both logarithmic; return the mappable."""
    exact = np.abs(guess - true) * MICROHARTREE_PER_HARTREE
    error = np.maximum(exact, FLOOR_UEH)
    size = np.maximum(np.abs(true), 1e-8)
    counts = axes.hexbin(
        size, error, xscale="log", yscale="log", gridsize=60, norm=LogNorm(vmin=1), cmap="viridis", mincnt=1
    )
    axes.axhline(mean, color=BASELINE, linewidth=1, linestyle="--", label="mean")
    axes.set(xlabel="|F| from DFT / Eh", ylabel=f"|ΔF| / µEh{_cut(exact, FLOOR_UEH)}")
    axes.legend(frameon=False, loc="upper left")
    _tidy(axes)
    return counts


def _cut(values: Array, floor: float) -> str:
    """Return what an axis has to say where smaller values are drawn at its lower end."""
    return f" (at least {floor:g})" if (values < floor).any() else ""


def levels(
    sample: Sample,
    predicted: Array,
    path: Path,
    *,
    basis: BasisSet,
    overlap: Array,
    baseline: str | None = None,
) -> Path:
    """Draw the orbital energies of one molecule: a cheap guess, DFT, the model, and their errors.

    Args:
        sample: the molecule, with ``baseline`` among its references.
        predicted: Fock matrix, house order, Eh.
        path: PNG to write.
        basis: shells of its elements.
        overlap: house order.
        baseline: name of the cheap guess to draw beside, or ``None``.
    """
    matrices = {"DFT": sample.matrices.fock, "model": predicted}
    if baseline is not None:
        matrices = {baseline: sample.matrices.references[baseline], **matrices}
    states = {n: electronic_state(m, overlap, sample.molecule, basis) for n, m in matrices.items()}
    # Of an unrestricted molecule alpha orbitals are shown.
    energies = {name: np.atleast_2d(state.mo_energy)[0] for name, state in states.items()}
    n_occupied = states["DFT"].filled[0].shape[1]
    colours = {"DFT": TRUE, "model": MODEL}
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    shown = slice(max(0, n_occupied - 16), n_occupied + 6)
    for x, (name, values) in enumerate(energies.items()):
        for k, energy in enumerate(values[shown] * EV_PER_HARTREE):
            filled = shown.start + k < n_occupied
            style = "-" if filled else (0, (2, 1.2))
            left.plot([x - 0.36, x + 0.36], [energy] * 2, color=colours.get(name, BASELINE), linestyle=style)
    # Core levels lie hundreds of eV below and would squeeze the rest.
    frontier = (
        energies["DFT"][[max(n_occupied - 1, 0), min(n_occupied, len(energies["DFT"]) - 1)]] * EV_PER_HARTREE
    )
    left.set_ylim(frontier[0] - VALENCE_EV, frontier[1] + 0.4 * VALENCE_EV)
    left.set_xticks(range(len(energies)), list(energies))
    spin = ", alpha" if sample.matrices.n_spins == 2 else ""
    left.set(ylabel="orbital energy / eV", title=f"{sample.molecule.formula}: levels around the gap{spin}")
    left.plot([], [], color="#777777", label="occupied")
    left.plot([], [], color="#777777", linestyle=(0, (2, 1.2)), label="empty")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, fontsize=8, frameon=False)
    _tidy(left)
    _level_errors(right, energies, n_occupied, colours)
    return _save(figure, path)


def _level_errors(
    axes: Axes, energies: Mapping[str, Array], n_occupied: int, colours: Mapping[str, str]
) -> None:
    """Draw |Δε| of every orbital on a log axis."""
    orbital, cut = np.arange(1, len(energies["DFT"]) + 1), ""
    for name, values in energies.items():
        if name == "DFT":
            continue
        exact = np.abs(values - energies["DFT"]) * MICROHARTREE_PER_HARTREE
        error, cut = np.maximum(exact, FLOOR_UEH), cut or _cut(exact, FLOOR_UEH)
        axes.semilogy(
            orbital, error, "o-", markersize=3.5, linewidth=0.8, color=colours.get(name, BASELINE), label=name
        )
    axes.axvline(n_occupied + 0.5, color="#777777", linewidth=0.8, linestyle=":")
    above = axes.get_xaxis_transform()
    axes.text(n_occupied + 0.5, 1.01, "HOMO | LUMO", transform=above, ha="center", fontsize=8)
    axes.set(xlabel="orbital", ylabel=f"|Δε| against DFT / µEh{cut}", xlim=(0.5, len(orbital) + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="best")
    _tidy(axes)


def energies(
    labels: Sequence[EnergyLabel],
    predicted: Sequence[PredictedEnergy],
    alone: Sequence[float],
    path: Path,
    *,
    errors: Mapping[str, Any],
) -> Path:
    """Draw predicted against true energies and forces.

    Args:
        labels: what is true.
        predicted: one per label.
        alone: energy of the elements of each molecule, subtracted on both axes, Eh.
        path: PNG to write.
        errors: of these molecules, see :func:`helmol.evaluate.energies.energy_errors`.
    """
    true = EV_PER_HARTREE * np.array([x.energy - e for x, e in zip(labels, alone, strict=True)])
    guess = EV_PER_HARTREE * np.array([x.energy - e for x, e in zip(predicted, alone, strict=True)])
    pairs = [
        (x.forces, y.forces)
        for x, y in zip(labels, predicted, strict=True)
        if x.forces is not None and y.forces is not None
    ]
    figure = Figure(figsize=(9 if pairs else 4.7, 4.4), layout="constrained")
    panels = figure.subplots(1, 2 if pairs else 1, squeeze=False)[0]
    _scatter(panels[0], true, guess, "energy − energies of the elements / eV", "energy_mae_meV", errors)
    if pairs:
        f_true, f_guess = (
            EV_PER_ANGSTROM_PER_AU * np.concatenate([p[k].ravel() for p in pairs]) for k in (0, 1)
        )
        _scatter(panels[1], f_true, f_guess, "force components / eV/Å", "force_mae_meV_per_angstrom", errors)
    return _save(figure, path)


def _scatter(axes: Axes, true: Array, guess: Array, what: str, key: str, errors: Mapping[str, Any]) -> None:
    """Scatter predicted over true values with the diagonal; the title has the error of that key."""
    low, high = min(true.min(), guess.min()), max(true.max(), guess.max())
    margin = 0.05 * (high - low) or 1e-3
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color="#777777", linewidth=0.8)
    axes.plot(true, guess, "o", markersize=3, alpha=0.5, color=MODEL, markeredgewidth=0)
    title = f"{len(true)} points, mean error {errors[key]:.4g} {METRICS[key].unit}"
    axes.set(
        xlabel=f"DFT: {what}", ylabel=f"model: {what}", title=title, xlim=ends, ylim=ends, aspect="equal"
    )
    axes.title.set_fontsize(11)
    _tidy(axes)


def shell_pairs(by_shell_pair: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> Path:
    """Draw the mean error of every pair of shells as two maps, on-site and off-site.

    Args:
        by_shell_pair: as in the result of :func:`helmol.evaluate.errors`.
        path: PNG to write.

    Raises:
        InputError: the table is empty.
    """
    tables = {
        title: {tuple(key.split("-")): entry["h_mae_uEh"] for key, entry in table.items()}
        for title, table in by_shell_pair.items()
    }
    names = list(dict.fromkeys(name for table in tables.values() for pair in table for name in pair))
    values = [max(v, FLOOR_UEH) for table in tables.values() for v in table.values() if np.isfinite(v)]
    if not values:
        raise InputError("no errors by shell pair to draw")
    # More than five decades of colour tell nothing.
    norm = LogNorm(max(min(values), max(values) / 1e5), 1.01 * max(values), clip=True)
    # A basis of many elements has hundreds of kinds of shells: a picture of all of it would take gigabytes.
    side = min(1.6 + 0.46 * len(names), LARGEST_SIDE)
    letters = min(10.0, 72 * 0.6 * side / len(names))
    figure = Figure(figsize=(2 * side + 1.2, side + 0.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, (title, table) in zip(panels, tables.items(), strict=True):
        image = np.full((len(names), len(names)), np.nan)
        for (first, second), value in table.items():
            i, j = names.index(first), names.index(second)
            image[i, j] = image[j, i] = max(value, FLOOR_UEH)
        shown = axes.imshow(image, norm=norm, cmap="cividis")
        _write_cells(axes, image, norm)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=letters)
        axes.set_yticks(range(len(names)), names, fontsize=letters)
        axes.set_title("Same atom" if title == "onsite" else "Two atoms", fontsize=9 + side / 2)
    bar = figure.colorbar(shown, ax=panels, shrink=0.8)
    bar.set_label("mean |ΔF| / µEh", fontsize=9 + side / 2)
    return _save(figure, path)


def _write_cells(axes: Axes, image: Array, norm: LogNorm) -> None:
    """Write the numbers into a map that is small enough to read them."""
    if len(image) > 14:
        return
    for (i, j), value in np.ndenumerate(image):
        if np.isfinite(value):
            colour = "black" if norm(value) > 0.55 else "white"
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7, color=colour)


def elements(by_element: Mapping[str, Mapping[str, float]], path: Path) -> Path:
    """Draw the periodic table, coloured by the mean error of an element's on-site blocks.

    Args:
        by_element: as in the result of :func:`helmol.evaluate.errors`.
        path: PNG to write.

    Raises:
        InputError: the table is empty.
    """
    values = {atomic_number(symbol): entry["h_mae_uEh"] for symbol, entry in by_element.items()}
    shown = [max(value, FLOOR_UEH) for value in values.values() if np.isfinite(value)]
    if not shown:
        raise InputError("no errors by element to draw")
    norm, colours = LogNorm(min(shown), 1.01 * max(shown), clip=True), mpl.colormaps["cividis"]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots()
    for number in range(1, LAST_ELEMENT + 1):
        column, row = _place(number)
        value = values.get(number, np.nan)
        known = np.isfinite(value)
        strength = float(norm(max(value, FLOOR_UEH))) if known else 0.0
        face = colours(strength) if known else "#f4f4f4"
        ink = "#aaaaaa" if not known else "black" if strength > 0.55 else "white"
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
        axes.add_patch(Rectangle((column, row), 0.94, 0.94, facecolor=face, edgecolor="none"))
        axes.text(column + 0.47, row + 0.35, SYMBOLS[number], fontsize=11, **style)
        if known:
            axes.text(column + 0.47, row + 0.73, _short(value), fontsize=7, **style)
    axes.set(xlim=(0.9, 19.1), ylim=(8.4, 0.9), aspect="equal")
    axes.axis("off")
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colours), ax=axes, shrink=0.8)
    ticks = np.unique(np.geomspace(min(shown), max(shown), 5)).tolist()
    bar.set_ticks(ticks, labels=[_short(value) for value in ticks])
    bar.minorticks_off()
    bar.set_label("mean |ΔF|, same atom / µEh")
    return _save(figure, path)


def _short(value: float) -> str:
    """Return a number in three digits, or the whole of a larger one."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


LAST_ELEMENT = 86
"""The last element of the periodic table that is drawn, radon: basis sets seldom go further."""


def _place(number: int) -> tuple[int, float]:
    """Return column and row of an element in the table of eighteen columns, lanthanides apart below."""
    noble = [0, 2, 10, 18, 36, 54, 86]
    period = int(np.searchsorted(noble, number))
    k, length = number - noble[period - 1], noble[period] - noble[period - 1]
    if length == 32 and 2 < k <= 16:
        return k, 7.3
    return (k if k <= 2 and (period > 1 or k == 1) else k + 18 - length), float(period)


def distances(tables: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> Path:
    """Draw the mean error of the blocks of two atoms against their distance.

    Args:
        tables: ``by_distance`` of the result of :func:`helmol.evaluate.errors`, of the model and of cheap
            guesses by name.
        path: PNG to write.
    """
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    ranges = list(dict.fromkeys(name for table in tables.values() for name in table))
    ranges.sort(key=lambda name: float(name.lstrip(">").split("-")[0]) + name.startswith(">"))
    cut, colours = "", _colours(tables)
    for name, table in tables.items():
        at = [k for k, part in enumerate(ranges) if part in table]
        exact = np.array([table[ranges[k]]["h_mae_uEh"] for k in at])
        cut = cut or _cut(exact, FLOOR_UEH)
        style = {"marker": "o", "markersize": 4, "linewidth": 1.2, "color": colours[name], "label": name}
        axes.semilogy(at, np.maximum(exact, FLOOR_UEH), **style)
    axes.set_xticks(range(len(ranges)), ranges, rotation=45)
    axes.set(xlabel="distance of the two atoms / Å", ylabel=f"mean |ΔF| / µEh{cut}")
    axes.legend(frameon=False)
    _tidy(axes)
    return _save(figure, path)


def scf_convergence(runs: Mapping[str, Mapping[str, Any]], path: Path, *, title: str = "") -> Path:
    """Draw energy error and gradient norm per SCF cycle for every start.

    Args:
        runs: per start ``history`` (list of ``energy_Eh``, ``gradient``), ``energy_Eh``, ``converged``.
        path: PNG to write.
        title: over the figure.
    """
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    lowest = min(run["energy_Eh"] for run in runs.values())
    cut, colours = "", _colours(runs)
    for name, run in runs.items():
        number = np.arange(1, len(run["history"]) + 1)
        energy = np.array([step["energy_Eh"] for step in run["history"]]) - lowest
        gradient = np.array([step["gradient"] for step in run["history"]])
        label = name if run.get("converged", True) else f"{name} (not converged)"
        style = {"marker": "o", "markersize": 4, "linewidth": 1.2, "color": colours[name], "label": label}
        left.semilogy(number, np.maximum(np.abs(energy), SMALLEST_EH), **style)
        right.semilogy(number, np.maximum(gradient, SMALLEST_EH), **style)
        cut = cut or _cut(np.abs(energy), SMALLEST_EH)
    cheap = any(name.endswith("-cheap") for name in runs)
    steps = "SCF cycle" + (" (cheap: or evaluation on the full grid)" if cheap else "")
    left.set(xlabel=steps, ylabel=f"E − lowest energy / Eh{cut}")
    right.set(xlabel=steps, ylabel="norm of the orbital gradient / Eh")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(axes)
    right.legend(frameon=False, title="start")
    figure.suptitle(title)
    return _save(figure, path)
