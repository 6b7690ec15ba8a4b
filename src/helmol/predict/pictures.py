"""Pictures of one prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helmol.arrays import Array, BoolArray
from helmol.files import replacing
from helmol.places import PathLike
from helmol.predict.prediction import Prediction
from helmol.properties import density_of_states
from helmol.units import EV_PER_HARTREE

WIDTH_EV = 0.25
"""Standard deviation of the Gaussians, eV."""
BELOW_EV, ABOVE_EV = 25.0, 10.0
"""What is drawn below the HOMO and above the LUMO, eV."""
POINTS = 2000
LONGEST_NAME = 50
"""Letters of a molecule's name that fit into a title; of a longer one its formula stands there."""

OCCUPIED, EMPTY = "#0b6fb8", "#d9822b"


def plot_states(prediction: Prediction, path: PathLike, *, width_ev: float = WIDTH_EV) -> None:
    """Draw the density of states (:func:`helmol.properties.density_of_states`) as a PNG, levels below it.

    Beta points downwards where there are two spins.

    Args:
        prediction: restricted or unrestricted.
        path: file to write.
        width_ev: standard deviation of the Gaussians, eV.
    """
    homo, lumo = EV_PER_HARTREE * prediction.homo, EV_PER_HARTREE * prediction.lumo
    known = [value for value in (homo, lumo) if np.isfinite(value)]
    energies = np.linspace(min(known) - BELOW_EV, max(known) + ABOVE_EV, POINTS)
    found = density_of_states(
        prediction.mo_energy, energies / EV_PER_HARTREE, width=width_ev / EV_PER_HARTREE
    )
    spins = np.atleast_2d(found / EV_PER_HARTREE)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    levels = zip(np.atleast_2d(prediction.mo_energy), np.atleast_2d(prediction.mo_occ), strict=True)
    top = float(spins.max())
    for sign, states, (mo_energy, mo_occ) in zip((1, -1), spins, levels, strict=False):
        tick = 0.05 * top * (sign if len(spins) == 2 else -1)
        _draw(
            axes, energies, sign * states, EV_PER_HARTREE * mo_energy, mo_occ > 0, tick=tick, named=sign > 0
        )
    axes.axhline(0, color="#888888", linewidth=0.6)
    name = prediction.id if 0 < len(prediction.id) <= LONGEST_NAME else prediction.molecule.formula
    title = f"{name}: HOMO {homo:.2f} eV, LUMO {lumo:.2f} eV"
    axes.set(xlabel="energy / eV", ylabel="states per eV", xlim=(energies[0], energies[-1]))
    axes.set_title(title, loc="left", fontsize="medium")
    axes.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    if len(spins) == 2:
        for place, name in ((0.95, "alpha"), (0.05, "beta")):
            axes.text(0.01, place, name, transform=axes.transAxes, va="center")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", frameon=False, ncols=2)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _draw(
    axes: Axes, energies: Array, states: Array, levels: Array, filled: BoolArray, *, tick: float, named: bool
) -> None:
    """Draw the states of one spin: occupied and empty part, every level as a tick."""
    axes.plot(energies, states, color="#222222", linewidth=0.9)
    border = levels[filled].max() if filled.any() else -np.inf
    empty = levels[~filled].min() if not filled.all() else np.inf
    middle = border if np.isinf(empty) else empty if np.isinf(border) else (border + empty) / 2
    labels = dict(zip((OCCUPIED, EMPTY), ("occupied", "empty"), strict=True)) if named else {}
    for colour, part, some in (
        (OCCUPIED, energies <= middle, levels[filled]),
        (EMPTY, energies >= middle, levels[~filled]),
    ):
        axes.fill_between(
            energies[part], states[part], color=colour, alpha=0.35, linewidth=0, label=labels.get(colour)
        )
        inside = some[(some > energies[0]) & (some < energies[-1])]
        axes.vlines(inside, 0, tick, color=colour, linewidth=0.8)
