"""What a network's atoms look like: features per atom, and how well they separate chemical environments.

The features of an atom are the l = 0 channels of its node after the last layer, which do not change when
the molecule turns. An atom's environment is its element with the elements it is bonded to, ``C(CHHH)``.
Per element with at least two environments:

* ``purity``: share of an atom's k nearest atoms of its element that are in the same environment. Only
  atoms of molecules with another formula count as neighbours where there are any, so that conformers of one
  molecule do not vouch for each other. Features are divided by their standard deviations.
* ``chance``: the purity of neighbours drawn blindly.
* ``silhouette``: mean of ``(b − a) / max(a, b)`` with a the mean distance to the atom's own environment and b
  to the nearest other one; −1 to 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from helmol import structures
from helmol.arrays import Array, BoolArray, IntArray
from helmol.brief import brief
from helmol.errors import InputError
from helmol.system import Molecule

if TYPE_CHECKING:
    from helmol.model import Model

NEIGHBOURS = 10
MOST_ATOMS = 3000
"""Atoms per element above which a random part is scored: the distances take the square of their number."""

FEWEST_FOR_UMAP = 5
"""Atoms below which UMAP cannot start from its graph's eigenvectors."""


@dataclass(frozen=True)
class Embedding:
    """Hold the atoms of some molecules.

    Attributes:
        features: ``[n_atoms, C]``.
        elements: symbols.
        environments: as :func:`helmol.structures.environments` names them.
        formulas: of the molecule that an atom is in.
        molecules: number of that molecule.
    """

    features: Array
    elements: npt.NDArray[np.str_]
    environments: npt.NDArray[np.str_]
    formulas: npt.NDArray[np.str_]
    molecules: IntArray

    __repr__ = brief


def embed(model: Model, molecules: Sequence[Molecule], *, max_edges: int = 20_000) -> Embedding:
    """Return the scalar features of every atom.

    Raises:
        DomainError: a molecule that the model has not learnt.
        InputError: no molecules.
    """
    import torch

    from helmol.graph import collate
    from helmol.model import groups_of

    if not molecules:
        raise InputError("there are no molecules to embed")
    for molecule in molecules:
        model.domain.check(molecule)
    parts = []
    for group in groups_of([model.prepare(molecule) for molecule in molecules], max_edges):
        with torch.no_grad():
            nodes = model(collate(group).to(model.device), ()).nodes
        parts.append(nodes.final[:, 0].double().cpu().numpy())
    names = [structures.environments(molecule) for molecule in molecules]
    return Embedding(
        np.concatenate(parts),
        np.array([name.partition("(")[0] for some in names for name in some]),
        np.array([name for some in names for name in some]),
        np.repeat([molecule.formula for molecule in molecules], [m.n_atoms for m in molecules]),
        np.repeat(np.arange(len(molecules)), [m.n_atoms for m in molecules]),
    )


def separation(embedding: Embedding, *, neighbours: int = NEIGHBOURS, seed: int = 0) -> dict[str, Any]:
    """Return how well environments are separated, by element and in the mean.

    Args:
        embedding: the atoms.
        neighbours: k.
        seed: of the choice of atoms where there are too many.

    Returns:
        ``by_element``: per element with several environments ``n_atoms``, ``n_environments``, ``purity``,
        ``chance``, ``silhouette``; and the means over these atoms ``purity``, ``chance``, ``silhouette``
        (``None`` if there is no such element, or for ``purity`` and ``chance`` one molecule alone).
    """
    rng = np.random.default_rng(seed)
    by_element: dict[str, dict[str, Any]] = {}
    for element in dict.fromkeys(sorted(embedding.elements.tolist())):
        atoms = np.flatnonzero(embedding.elements == element)
        if len(atoms) > MOST_ATOMS:
            atoms = np.sort(rng.choice(atoms, MOST_ATOMS, replace=False))
        labels = embedding.environments[atoms]
        if len(set(labels.tolist())) < 2:
            continue
        distance = _distances(embedding.features[atoms])
        allowed = _allowed(embedding, atoms)
        by_element[element] = {
            "n_atoms": len(atoms),
            "n_environments": len(set(labels.tolist())),
            **_purity(distance, labels, allowed, neighbours),
            "silhouette": _silhouette(distance, labels),
        }
    result: dict[str, Any] = {"by_element": by_element, "neighbours": neighbours}
    for key in ("purity", "chance", "silhouette"):
        known = [(entry[key], entry["n_atoms"]) for entry in by_element.values() if entry[key] is not None]
        values, weights = zip(*known, strict=True) if known else ((), ())
        result[key] = float(np.average(values, weights=weights)) if known else None
    return result


def plane(features: Array) -> tuple[Array, Array]:
    """Return the two principal components ``[n, 2]`` of standardised features, their shares of variance."""
    scaled = _standardised(features)
    left, size, _ = np.linalg.svd(scaled, full_matrices=False)
    total = max(float(np.square(size).sum()), 1e-300)
    if len(size) < 2:
        left, size = np.pad(left, ((0, 0), (0, 1))), np.pad(size, (0, 1))
    return left[:, :2] * size[:2], np.square(size[:2]) / total


def umap_plane(features: Array, *, seed: int = 0) -> Array:
    """Return UMAP's two coordinates ``[n, 2]``.

    Raises:
        InputError: umap-learn is not installed, or there are too few atoms.
    """
    if len(features) < FEWEST_FOR_UMAP:
        raise InputError(
            f"UMAP needs at least {FEWEST_FOR_UMAP} atoms, the molecules have {len(features)}: use method pca"
        )
    try:
        from umap import UMAP
    except ImportError as error:
        raise InputError("UMAP needs the package umap-learn: pip install 'helmol[embed]'") from error
    # One job, because more make it irreproducible and UMAP warn.
    reducer = UMAP(n_neighbors=min(15, len(features) - 1), min_dist=0.1, random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(_standardised(features)), dtype=np.float64)


def _standardised(features: Array) -> Array:
    """Centre every channel and divide it by its standard deviation."""
    spread = features.std(axis=0)
    return np.asarray((features - features.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0))


def _distances(features: Array) -> Array:
    """Return all distances of standardised features."""
    scaled = _standardised(features)
    squares = np.square(scaled).sum(axis=1)
    return np.asarray(np.sqrt(np.maximum(squares[:, None] + squares[None] - 2 * scaled @ scaled.T, 0.0)))


def _allowed(embedding: Embedding, atoms: IntArray) -> BoolArray:
    """Return who may be whose neighbour: atoms of other formulas; of other samples if there is one."""
    groups: npt.NDArray[Any] = embedding.formulas[atoms]
    if len(set(groups.tolist())) < 2:
        groups = embedding.molecules[atoms]
    return np.asarray(groups[:, None] != groups[None])


def _purity(
    distance: Array, labels: npt.NDArray[np.str_], allowed: BoolArray, k: int
) -> dict[str, float | None]:
    """Return the share of like neighbours, and that of blind choice; ``None`` where nobody is a neighbour."""
    alike = labels[:, None] == labels[None]
    order = np.argsort(np.where(allowed, distance, np.inf), axis=1)[:, :k]
    known = np.take_along_axis(allowed, order, axis=1)
    hits = np.take_along_axis(alike, order, axis=1) & known
    counts = allowed.sum(axis=1)
    some = counts > 0
    if not some.any():
        return {"purity": None, "chance": None}
    purity = hits.sum(axis=1)[some] / known.sum(axis=1)[some]
    chance = (alike & allowed).sum(axis=1)[some] / counts[some]
    return {"purity": float(purity.mean()), "chance": float(chance.mean())}


def _silhouette(distance: Array, labels: npt.NDArray[np.str_]) -> float:
    """Return the mean silhouette; an environment of one atom counts as 0."""
    names, place = np.unique(labels, return_inverse=True)
    member = np.eye(len(names))[place]
    sums, sizes = distance @ member, member.sum(axis=0)
    own = sizes[place]
    inner = np.take_along_axis(sums, place[:, None], axis=1)[:, 0] / np.maximum(own - 1, 1)
    outer = sums / sizes
    np.put_along_axis(outer, place[:, None], np.inf, axis=1)
    nearest = outer.min(axis=1)
    score = (nearest - inner) / np.maximum(np.maximum(nearest, inner), 1e-300)
    return float(np.where(own > 1, score, 0.0).mean())


def common_environments(embedding: Embedding, most: int) -> list[str]:
    """Return the most frequent environments, most frequent first."""
    return [name for name, _ in Counter(embedding.environments.tolist()).most_common(most)]
