"""Where the error of a Fock matrix sits: by element, pair of elements, pair of shells, and distance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from helmol.arrays import Array, IntArray
from helmol.basis import LETTERS, BasisSet
from helmol.elements import SYMBOLS
from helmol.system import Molecule
from helmol.units import ANGSTROM_PER_BOHR, MICROHARTREE_PER_HARTREE

DISTANCES = np.arange(1.0, 15.5)
"""Upper ends of the ranges of distance between two atoms that are told apart, Å; what is farther is one."""


class BlockErrors:
    """Sum |ΔF| over molecules, resolved by (element, l) of both orbitals.

    On-site (an atom with itself) and off-site blocks are kept apart. The averages pool all matrix
    elements of a kind over all molecules.
    """

    def __init__(self, basis: BasisSet) -> None:
        self._basis = basis
        self._kinds = [
            (number, l) for number, element in basis.elements.items() for l in sorted(set(element.shells))
        ]
        size = (2, len(self._kinds), len(self._kinds))
        self._sum, self._count = np.zeros(size), np.zeros(size)
        self._far_sum, self._far_count = np.zeros(len(DISTANCES) + 1), np.zeros(len(DISTANCES) + 1)

    @classmethod
    def joined(cls, parts: Sequence[BlockErrors]) -> BlockErrors:
        """Return the sums over the molecules of several, in the same basis."""
        whole = cls(parts[0]._basis)
        for part in parts:
            whole._sum += part._sum
            whole._count += part._count
            whole._far_sum += part._far_sum
            whole._far_count += part._far_count
        return whole

    def add(self, difference: Array, molecule: Molecule) -> tuple[float, float | None]:
        """Add one molecule.

        Args:
            difference: |ΔF| in Eh, house order, ``[nao, nao]``.
            molecule: whose it is.

        Returns:
            Mean |ΔF| over the diagonal and over the off-diagonal atom blocks of this molecule, Eh;
            ``None`` for the latter if there is one atom.
        """
        shell_atom, shell_kind, sizes = self._shells(molecule.numbers)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        sums = np.add.reduceat(np.add.reduceat(difference, starts, axis=0), starts, axis=1)
        counts = np.outer(sizes, sizes).astype(np.float64)
        onsite = shell_atom[:, None] == shell_atom
        means: list[float | None] = []
        for part, mask in enumerate((onsite, ~onsite)):
            i, j = np.nonzero(mask)
            at = (shell_kind[i], shell_kind[j])
            np.add.at(self._sum[part], at, sums[mask])
            np.add.at(self._count[part], at, counts[mask])
            total = counts[mask].sum()
            means.append(float(sums[mask].sum() / total) if total else None)
        i, j = np.nonzero(~onsite)
        apart = np.linalg.norm(molecule.positions[shell_atom[i]] - molecule.positions[shell_atom[j]], axis=1)
        at = np.searchsorted(DISTANCES, apart * ANGSTROM_PER_BOHR)
        np.add.at(self._far_sum, at, sums[~onsite])
        np.add.at(self._far_count, at, counts[~onsite])
        return means[0] or 0.0, means[1]

    def _shells(self, numbers: IntArray) -> tuple[IntArray, IntArray, IntArray]:
        """Return atom, kind and number of functions of every shell of a molecule."""
        atoms, kinds, sizes = [], [], []
        for atom, number in enumerate(numbers):
            for l in self._basis.signature(int(number)):
                atoms.append(atom)
                kinds.append(self._kinds.index((int(number), l)))
                sizes.append(2 * l + 1)
        return np.array(atoms), np.array(kinds), np.array(sizes)

    def by_element(self) -> dict[str, dict[str, float]]:
        """Return per element ``h_mae_uEh`` of its on-site blocks and the number of matrix elements."""
        table = self._by_elements(0)
        return {first: value for (first, _), value in table.items()}

    def by_element_pair(self) -> dict[str, dict[str, float]]:
        """Return the same for the off-site blocks of each pair, alphabetical: ``"C-H"``, ``"H-O"``."""
        return {f"{first}-{second}": value for (first, second), value in self._by_elements(1).items()}

    def _by_elements(self, part: int) -> dict[tuple[str, str], dict[str, float]]:
        """Pool the kinds of each unordered pair of elements."""
        sums: dict[tuple[str, str], float] = {}
        counts: dict[tuple[str, str], float] = {}
        for a, (first, _) in enumerate(self._kinds):
            for b, (second, _) in enumerate(self._kinds):
                low, high = sorted((SYMBOLS[first], SYMBOLS[second]))
                key = (low, high)
                sums[key] = sums.get(key, 0.0) + float(self._sum[part, a, b])
                counts[key] = counts.get(key, 0.0) + float(self._count[part, a, b])
        return {key: _entry(sums[key], counts[key]) for key in sorted(sums) if counts[key]}

    def by_shell_pair(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return ``{"onsite": {"O s-O p": …}, "offsite": {…}}`` for unordered pairs of shells."""
        names = [f"{SYMBOLS[number]} {LETTERS[l]}" for number, l in self._kinds]
        result: dict[str, dict[str, dict[str, float]]] = {}
        for part, title in enumerate(("onsite", "offsite")):
            # Both triangles of an unordered pair; the diagonal must not count twice.
            halves = 1.0 - 0.5 * np.eye(len(names))
            sums = (self._sum[part] + self._sum[part].T) * halves
            counts = (self._count[part] + self._count[part].T) * halves
            result[title] = {
                f"{names[a]}-{names[b]}": _entry(sums[a, b], counts[a, b])
                for a in range(len(names))
                for b in range(a, len(names))
                if counts[a, b]
            }
        return result

    def by_distance(self) -> dict[str, dict[str, float]]:
        """Return ``h_mae_uEh`` of the blocks of two atoms by their distance in Å: ``"1-2"``, ``">15"``."""
        ends = DISTANCES.astype(int)
        names = [*(f"{end - 1}-{end}" for end in ends), f">{ends[-1]}"]
        rows = zip(names, self._far_sum, self._far_count, strict=True)
        return {name: _entry(total, count) for name, total, count in rows if count}


def _entry(total: float, count: float) -> dict[str, float]:
    """Return one row of a table: mean error in µEh and how many matrix elements it stands for."""
    return {"h_mae_uEh": float(total / count * MICROHARTREE_PER_HARTREE), "n_elements": int(count)}
