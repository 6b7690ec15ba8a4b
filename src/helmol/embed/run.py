"""Embed the molecules of a file with one network or several, and leave figure, coordinates and scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helmol.embed.embedding import Embedding, embed, plane, separation, umap_plane
from helmol.errors import ConfigError
from helmol.files import replacing, write_json
from helmol.inputs import read_molecules

if TYPE_CHECKING:
    from helmol.model import Model


def embed_runs(
    networks: Mapping[str, Model],
    path: Path,
    *,
    method: str = "pca",
    split: str = "all",
    neighbours: int = 10,
    seed: int = 0,
    out: Path,
) -> dict[str, Any]:
    """Embed the molecules of a store or structure file.

    Args:
        networks: by name.
        path: store (``.h5``) or structure file.
        method: ``pca`` or ``umap``, of the picture; scores are of the full features.
        split: split of a store, or ``all``.
        neighbours: k of the purity.
        seed: of UMAP, and of the choice of atoms to score.
        out: folder for ``embedding.png``, ``embedding.npz`` and ``embedding.json``.

    Returns:
        ``n_molecules``, ``n_atoms``, ``method``, ``figure``, ``coordinates``, and per name under ``models``
        the keys of :func:`helmol.embed.embedding.separation` and ``variance`` (shares of a PCA's axes).

    Raises:
        ConfigError: unknown method.
        InputError: no molecules, or umap-learn is missing.
        DomainError: a molecule that a network has not learnt.
    """
    if method not in ("pca", "umap"):
        raise ConfigError(f"method {method!r}: expected pca or umap")
    molecules = [molecule for _, molecule in read_molecules(path, split=split)]
    parts: dict[str, tuple[Embedding, Any, dict[str, Any]]] = {}
    for name, network in networks.items():
        embedding = embed(network, molecules)
        scores = separation(embedding, neighbours=neighbours, seed=seed)
        places, share = plane(embedding.features)
        if method == "umap":
            places = umap_plane(embedding.features, seed=seed)
        else:
            scores["variance"] = [float(value) for value in share]
        parts[name] = (embedding, places, scores)
    for name in ("embedding.json", "embedding.npz", "embedding.png"):
        (out / name).unlink(missing_ok=True)  # never one of now beside one of before
    # Only here, because drawing is slow to import.
    from helmol.embed.plot import embedding_plot

    figure = embedding_plot(parts, out / "embedding.png", axis_name=method.upper())
    first = next(iter(parts.values()))[0]
    coordinates = out / "embedding.npz"
    with replacing(coordinates) as temporary, temporary.open("wb") as file:
        arrays = {f"places_{k}": places for k, (_, places, _) in enumerate(parts.values())}
        arrays |= {f"features_{k}": part.features for k, (part, _, _) in enumerate(parts.values())}
        np.savez_compressed(
            file, allow_pickle=False, models=np.array(list(parts)), elements=first.elements,
            environments=first.environments, molecule=first.molecules, **arrays,
        )  # fmt: skip
    result = {
        "n_molecules": len(molecules), "n_atoms": len(first.elements), "method": method, "store": str(path),
        "split": split, "figure": str(figure), "coordinates": str(coordinates),
        "models": {name: scores for name, (_, _, scores) in parts.items()},
    }  # fmt: skip
    write_json(out / "embedding.json", result)
    return result
