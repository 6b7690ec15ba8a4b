"""Statistics of the samples of a store: Fock elements, gaps, energy outliers, equal geometries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from helmol.arrays import Array, IntArray
from helmol.basis import LETTERS, BasisSet
from helmol.elements import SYMBOLS
from helmol.properties import element_energies
from helmol.system import Molecule, Sample

OUTLIER_SIGMAS = 8.0
"""An energy is an outlier beyond this many robust standard deviations (1.4826 MAD) of the fit."""

DISTANCE_TOLERANCE_BOHR = 1e-3
"""Two geometries are equal if their interatomic distances differ by no more than this."""

N_DIRECTIONS = 6
"""Directions in the space of all distances in which molecules are compared first."""


def shell_names(shells: Sequence[int]) -> list[str]:
    """Return names such as ``1s 2s 3s 2p 3p 3d``; with a core potential, counted from its edge."""
    seen: Counter[int] = Counter()
    names = []
    for l in shells:
        seen[l] += 1
        names.append(f"{l + seen[l]}{LETTERS[l]}")
    return names


class FockStatistics:
    """Gather mean and spread of Fock elements by element and shell, sample after sample."""

    def __init__(self, basis: BasisSet) -> None:
        self._basis = basis
        self._sums: dict[str, dict[str, Array]] = {"diagonal": {}, "onsite": {}, "offsite": {}}

    def add(self, sample: Sample) -> None:
        """Take in one sample; both spins of an unrestricted one."""
        if not sample.matrices.fock.size:
            return
        atom, element, l, shell = _orbitals(self._basis, sample.molecule)
        same = atom[:, None] == atom
        groups, group = np.unique(element * len(LETTERS) + l, return_inverse=True)
        one_hot = (group[:, None] == np.arange(len(groups))).astype(np.float64)
        names = [(SYMBOLS[g // len(LETTERS)], LETTERS[g % len(LETTERS)]) for g in groups]
        for fock in sample.matrices.fock.reshape(-1, len(atom), len(atom)):
            for key in np.unique(shell):
                values = np.diagonal(fock)[shell == key]
                self._count("diagonal", str(key), values.size, values.sum(), (values**2).sum())
            # The diagonal has its own table; the rest of a block is counted once, i <= j.
            for kind, mask in (("onsite", same), ("offsite", ~same)):
                upper = np.triu(mask, 1).astype(np.float64)
                moments = [one_hot.T @ (upper * fock**power) @ one_hot for power in (0, 1, 2)]
                self._add_pairs(kind, names, [m + np.tril(m, -1).T for m in moments])

    def _add_pairs(self, kind: str, names: Sequence[tuple[str, str]], moments: Sequence[Array]) -> None:
        """Take in count, sum and sum of squares for each pair of groups."""
        for i, (first, l_first) in enumerate(names):
            for j, (second, l_second) in enumerate(names[i:], start=i):
                if moments[0][i, j]:
                    pair = first if kind == "onsite" else f"{first}-{second}"
                    self._count(kind, f"{pair} {l_first}-{l_second}", *(m[i, j] for m in moments))

    def _count(self, kind: str, key: str, *moments: float) -> None:
        self._sums[kind][key] = self._sums[kind].get(key, np.zeros(3)) + moments

    def result(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return ``{kind: {key: {n, mean_Eh, std_Eh, rms_Eh}}}``.

        Kinds: ``diagonal`` elements by shell (``"O 1s"``); the other elements of one atom's block
        (``onsite``, ``"O s-p"``) and of two atoms' (``offsite``, ``"H-O s-p"``) by pair of l.
        """
        return {
            kind: {
                key: {
                    "n": int(n),
                    "mean_Eh": total / n,
                    "std_Eh": float(np.sqrt(max(squares / n - (total / n) ** 2, 0.0))),
                    "rms_Eh": float(np.sqrt(squares / n)),
                }
                for key, (n, total, squares) in sorted(table.items())
            }
            for kind, table in self._sums.items()
        }


def _orbitals(basis: BasisSet, molecule: Molecule) -> tuple[npt.NDArray[Any], ...]:
    """Return atom, atomic number, l and shell name (``"O 1s"``) of every orbital."""
    rows = [
        (atom, int(number), l, f"{SYMBOLS[number]} {name}")
        for atom, number in enumerate(molecule.numbers)
        for l, name in zip(
            basis.signature(int(number)), shell_names(basis.signature(int(number))), strict=True
        )
        for _ in range(2 * l + 1)
    ]
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def energy_outliers(ids: Sequence[str], numbers: Sequence[IntArray], energies: Array) -> dict[str, Any]:
    """Compare total energies with a sum of one energy per element, found by least squares.

    Args:
        ids: of the samples.
        numbers: atomic numbers of each.
        energies: Eh, ``[n]``.

    Returns:
        ``n_fitted``, ``rank``, ``std_Eh`` of the ``residuals_Eh`` and ``outliers`` (``id``,
        ``residual_Eh``), or ``skipped`` with the reason.
    """
    if not len(ids):
        return {"skipped": "no energies"}
    fit = element_energies(numbers, energies)
    if len(ids) < fit.rank + 3:
        reason = f"{len(ids)} energies are too few for a fit of {fit.rank} independent compositions"
        return {"skipped": reason}
    residual = fit.rest
    centred = np.abs(residual - np.median(residual))
    # Rounding noise of a total energy must not look like an outlier among equal ones.
    spread = max(1.4826 * float(np.median(centred)), 1e-9 * float(np.abs(energies).max()))
    far = np.flatnonzero(centred > OUTLIER_SIGMAS * spread)
    return {
        "n_fitted": len(ids),
        "rank": fit.rank,
        "std_Eh": float(residual.std()),
        "residuals_Eh": residual.tolist(),
        "outliers": [{"id": ids[int(k)], "residual_Eh": float(residual[k])} for k in far],
    }


def equal_geometries(molecules: Iterable[tuple[str, Molecule]]) -> list[list[str]]:
    """Return groups of ids whose atoms, charge and spin agree, and whose distances do within a tolerance.

    Position, orientation and the order of atoms do not matter; mirror images agree, too. Distances are
    compared pair of elements by pair of elements, sorted. Few directions decide which molecules are
    compared in full: where those differ by more than √P times the tolerance, so do the P distances.
    """
    groups: dict[bytes, list[tuple[str, Molecule]]] = {}
    for id, molecule in molecules:
        key = np.array([molecule.charge, molecule.spin, *np.sort(molecule.numbers)], dtype=np.int64)
        groups.setdefault(key.tobytes(), []).append((id, molecule))
    return [ids for members in groups.values() if len(members) > 1 for ids in _equal_among(members)]


def _equal_among(members: Sequence[tuple[str, Molecule]]) -> list[list[str]]:
    """Return groups of equal geometries among molecules of the same atoms."""
    n = members[0][1].n_atoms
    n_pairs = n * (n - 1) // 2
    axes = np.eye(n_pairs)
    if n_pairs > N_DIRECTIONS:
        axes, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(n_pairs, N_DIRECTIONS)))
    seen: dict[bytes, int] = {}
    places: list[int] = []
    first: list[int] = []
    shadows: list[Array] = []
    for k, (_, molecule) in enumerate(members):
        distances = _distances(molecule)
        # Equal in every rounded distance: most copies, found without a search.
        place = seen.setdefault(np.rint(distances / DISTANCE_TOLERANCE_BOHR).tobytes(), len(first))
        if place == len(first):
            first.append(k)
            shadows.append(distances @ axes)
        places.append(place)
    if len(first) == 1:
        return [[id for id, _ in members]]
    near = cKDTree(np.array(shadows)).query_pairs(
        np.sqrt(n_pairs) * DISTANCE_TOLERANCE_BOHR, output_type="ndarray"
    )
    joined = [
        (a, b)
        for a, b in near.tolist()
        if np.abs(_distances(members[first[a]][1]) - _distances(members[first[b]][1])).max()
        <= DISTANCE_TOLERANCE_BOHR
    ]
    edges = np.array(joined, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(joined)), (edges[0], edges[1])), shape=(len(first), len(first)))
    labels = connected_components(graph, directed=False)[1]
    found: dict[int, list[str]] = {}
    for (id, _), place in zip(members, places, strict=True):
        found.setdefault(int(labels[place]), []).append(id)
    return [ids for ids in found.values() if len(ids) > 1]


def _distances(molecule: Molecule) -> Array:
    """Return all distances, bohr, sorted within each pair of elements; ``[n_pairs]``."""
    first, second = np.triu_indices(molecule.n_atoms, 1)
    distances = np.linalg.norm(molecule.positions[first] - molecule.positions[second], axis=1)
    low = np.minimum(molecule.numbers[first], molecule.numbers[second])
    high = np.maximum(molecule.numbers[first], molecule.numbers[second])
    return np.asarray(distances[np.lexsort((distances, high, low))])


def block_norms(sample: Sample, basis: BasisSet) -> dict[str, Array]:
    """Return distances of all atom pairs and the norms of their blocks.

    Returns:
        ``distance_bohr``, and per matrix (``fock``, ``fock-minus-NAME`` for each reference) the
        Frobenius norm in Eh, ``[n_pairs]`` each; the root mean square over two spins.
    """
    molecule, matrices = sample.molecule, sample.matrices
    first, second = np.triu_indices(molecule.n_atoms, 1)
    starts = basis.offsets(molecule.numbers)[:-1]
    found = {"distance_bohr": np.linalg.norm(molecule.positions[first] - molecule.positions[second], axis=1)}
    wanted: Mapping[str, Array] = {
        "fock": matrices.fock,
        **{f"fock-minus-{name}": matrices.fock - matrix for name, matrix in matrices.references.items()},
    }
    for name, matrix in wanted.items():
        squares = (matrix.reshape(-1, matrices.nao, matrices.nao) ** 2).mean(axis=0)
        sums = np.add.reduceat(np.add.reduceat(squares, starts, axis=0), starts, axis=1)
        found[name] = np.sqrt(sums[first, second])
    return found
