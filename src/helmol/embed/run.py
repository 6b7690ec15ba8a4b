"""Embed the molecules of a file with one network or several, and leave figure, coordinates and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from helmol.embed.embedding import Embedding, embed, plane, separation, umap_plane
from helmol.errors import ConfigError
from helmol.files import replacing, write_json
from helmol.inputs import Item, molecules_at
from helmol.places import PathLike, Places, as_list
from helmol.repeats import in_one_call
from helmol.skipped import FAULTS, Skips
from helmol.system import Molecule

if TYPE_CHECKING:
    from helmol.model import Model


@in_one_call()
def embed_runs(
    models: Mapping[str, Model],
    path: Places,
    *,
    method: str = "pca",
    split: str = "all",
    neighbours: int = 10,
    seed: int = 0,
    out: PathLike,
    strict: bool = False,
) -> dict[str, Any]:
    """Embed the molecules of stores or structure files.

    A molecule that cannot be read, or that one of the models has not learnt, is left out.

    Args:
        models: by name.
        path: store (``.h5``) or structure file, or several (folders and patterns too).
        method: ``pca`` or ``umap``, of the picture; scores are of the full features.
        split: split of a store, or ``all``.
        neighbours: k of the purity.
        seed: of UMAP, and of the choice of atoms to score.
        out: folder for ``embedding.png``, ``embedding.npz`` and ``embedding.json``.
        strict: whether the first molecule that cannot be embedded is an error.

    Returns:
        ``n_molecules``, ``n_atoms``, ``method``, ``figure``, ``coordinates``, per name under ``models``
        the keys of :func:`helmol.embed.embedding.separation` and ``variance`` (shares of a PCA's axes), and
        ``n_skipped`` and ``skipped`` (:class:`helmol.skipped.Skipped`).

    Raises:
        ConfigError: unknown method.
        InputError: no molecules, or umap-learn is missing.
        DomainError: no molecule that all models have learnt.
    """
    if method not in ("pca", "umap"):
        raise ConfigError(f"method {method!r}: expected pca or umap")
    out, skips = Path(out), Skips(strict=strict)
    with molecules_at(path, skips, split=split) as items:
        molecules = _learnt(models, items, skips)
    parts: dict[str, tuple[Embedding, Any, dict[str, Any]]] = {}
    for name, model in models.items():
        embedding = embed(model, molecules)
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
        "n_molecules": len(molecules), "n_atoms": len(first.elements), "method": method,
        "store": ", ".join(map(str, as_list(path))),
        "split": split, "figure": str(figure), "coordinates": str(coordinates),
        "models": {name: scores for name, (_, _, scores) in parts.items()}, **skips.json(),
    }  # fmt: skip
    write_json(out / "embedding.json", result)
    return result


def _learnt(models: Mapping[str, Model], items: Sequence[Item], skips: Skips) -> list[Molecule]:
    """Return the molecules that all models have learnt.

    Raises:
        DomainError: there is none.
    """
    kept = []
    for item in items:
        try:
            for model in models.values():
                model.domain.check(item.molecule)
            kept.append(item.molecule)
        except FAULTS as error:
            skips.add(error, item=item.id, file=item.file, row=item.row)
    skips.refuse_nothing_left(len(kept))
    return kept
