"""The picture of ``helmol embed``: atoms in a plane, coloured by element and by environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helmol.arrays import Array
from helmol.embed.embedding import Embedding, common_environments
from helmol.files import replacing

ENVIRONMENTS_SHOWN = 12
REST = "#d5d5d5"
BY_ELEMENT = {"H": "#9aa0a6", "C": "#222222", "N": "#0b6fb8", "O": "#d62728", "F": "#2ca02c", "S": "#d9a400"}


def embedding_plot(
    parts: Mapping[str, tuple[Embedding, Array, Mapping[str, Any]]], path: Path, *, axis_name: str
) -> Path:
    """Draw one row per model: left by element, right by environment.

    Args:
        parts: by the model's name the atoms, their places ``[n_atoms, 2]``, and their separation scores.
        path: PNG to write.
        axis_name: what the axes are, ``PCA`` say.
    """
    figure = Figure(figsize=(9.6, 4.1 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), 2, squeeze=False)
    first = next(iter(parts.values()))[0]
    elements = {name: _element_colour(name, k) for k, name in enumerate(sorted(set(first.elements.tolist())))}
    shown = common_environments(first, ENVIRONMENTS_SHOWN)
    # Full colours before their pale partners, which look like the rest.
    palette = [mpl.colormaps["tab20"](k) for k in (*range(0, 14, 2), *range(16, 20, 2), *range(1, 20, 2))]
    environments = {name: palette[k % len(palette)] for k, name in enumerate(shown)}
    for row, (name, (embedding, places, scores)) in zip(panels, parts.items(), strict=True):
        _scatter(row[0], places, embedding.elements, elements)
        _scatter(row[1], places, embedding.environments, environments)
        row[0].set_title(f"{name}: elements", fontsize=10)
        score = "one of each element: no score" if not scores["by_element"] else "no score"
        if scores["purity"] is not None:
            score = f"k-NN purity {scores['purity']:.2f} (chance {scores['chance']:.2f})"
        row[1].set_title(f"environments, {score}", fontsize=10)
        shares = [f" ({share:.0%} of the variance)" for share in scores.get("variance", ())] or ["", ""]
        for axes in row:
            axes.set(xlabel=f"{axis_name} 1{shares[0]}", ylabel=f"{axis_name} 2{shares[1]}")
    if set(first.environments.tolist()) - set(environments):
        environments["others"] = REST
    for axes, colours in zip(panels[0], (elements, environments), strict=True):
        for label, colour in colours.items():
            axes.plot([], [], "o", color=colour, markersize=4, label=label)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7, frameon=False, handletextpad=0.1)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=200, format="png")
    return path


def _element_colour(name: str, k: int) -> Any:
    """Return the usual colour of an element."""
    return BY_ELEMENT.get(name, mpl.colormaps["tab20b"](k % 20))


def _scatter(axes: Axes, places: Array, labels: npt.NDArray[np.str_], colours: Mapping[str, Any]) -> None:
    """Draw points, those without a colour of their own first and pale."""
    rest = ~np.isin(labels, list(colours))
    axes.plot(*places[rest].T, "o", markersize=2, color=REST, markeredgewidth=0)
    for name, colour in colours.items():
        mine = places[labels == name]
        axes.plot(*mine.T, "o", markersize=2.4, color=colour, alpha=0.7, markeredgewidth=0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
