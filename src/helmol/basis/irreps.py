"""Tables between a matrix block of two atoms and its irreducible components.

A block of shells a (l₁) and b (l₂) is a sum of irreps l = |l₁−l₂| … l₁+l₂. A table lists the
irreps of a whole block (all shell pairs) sorted by l, so that a per-l linear layer can produce
them, and holds the orthonormal map to the block as one sparse matrix. Nothing is padded: a table
belongs to a pair of shell signatures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from helmol.arrays import Array, Float64, Int64, IntArray
from helmol.basis.coupling import coupling
from helmol.basis.shells import Signature, signature_nao


@dataclass(frozen=True, eq=False)
class IrrepTable:
    """Map irreps ``y [n, dim]`` to blocks ``B [n, rows, columns]`` and back, keeping the norm.

    The components of ``y`` are ordered l by l; within an l as ``[2l+1, n_l]`` (m slow, irrep fast).
    ``‖B‖² = ‖y‖²`` holds for the diagonal table too, where irreps of two different shells carry
    the factor √2 because they fill both triangles.

    Attributes:
        first, second: shells of the two atoms.
        rows: AOs of the first atom.
        columns: AOs of the second atom.
        counts: number of irreps n_l for l = 0 … lmax.
        shell_pairs: for each l the shells (a, b) of each irrep.
        matrix: ``[rows·columns, dim]``, orthonormal columns.
    """

    first: Signature
    second: Signature
    rows: int
    columns: int
    counts: tuple[int, ...]
    shell_pairs: tuple[tuple[tuple[int, int], ...], ...]
    matrix: csr_array

    @property
    def lmax(self) -> int:
        """Largest degree."""
        return len(self.counts) - 1

    @property
    def dim(self) -> int:
        """Number of components, ``Σ_l (2l+1) n_l``."""
        return sum(self.sizes)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of components of each degree, ``(2l+1) n_l``."""
        return tuple((2 * l + 1) * n for l, n in enumerate(self.counts))

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where the components of each degree stand."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return tuple(slice(*part) for part in pairwise(ends))

    @cached_property
    def parities(self) -> tuple[Int64[IntArray, " n_l"], ...]:
        """For each degree ``(l₁ + l₂ + l) mod 2`` of its irreps, ``[n_l]``: a mirror turns odd ones round."""
        return tuple(
            np.array([(self.first[a] + self.second[b] + l) % 2 for a, b in pairs], dtype=np.int64)
            for l, pairs in enumerate(self.shell_pairs)
        )

    @cached_property
    def transposed(self) -> tuple[Int64[IntArray, " n_l"], ...]:
        """For each degree where irrep (a, b) finds (b, a), ``[n_l]``; two atoms of equal shells.

        Transposing a block exchanges them with the sign ``(−1)^{l₁+l₂−l}`` of :attr:`parities`.
        """
        orders = []
        for pairs in self.shell_pairs:
            place = {pair: k for k, pair in enumerate(pairs)}
            orders.append(np.array([place[b, a] for a, b in pairs], dtype=np.int64))
        return tuple(orders)

    @cached_property
    def exchange(self) -> tuple[Int64[IntArray, " dim"], Float64[Array, " dim"]]:
        """``order, sign``, each ``[dim]``, with ``y_ji = sign · y_ij[order]``; two atoms of equal shells."""
        order, sign = [], []
        for l, (part, place, parity) in enumerate(
            zip(self.slices, self.transposed, self.parities, strict=True)
        ):
            for m in range(2 * l + 1):
                order.append(part.start + m * len(place) + place)
                sign.append(1.0 - 2.0 * parity)
        return np.concatenate(order), np.concatenate(sign)

    def to_blocks(
        self, irreps: Float64[Array, "n {self.dim}"]
    ) -> Float64[Array, "n {self.rows} {self.columns}"]:
        """Return the blocks ``[n, rows, columns]`` of irreps ``[n, dim]``."""
        return np.asarray((self.matrix @ irreps.T).T).reshape(len(irreps), self.rows, self.columns)

    def to_irreps(
        self, blocks: Float64[Array, "n {self.rows} {self.columns}"]
    ) -> Float64[Array, "n {self.dim}"]:
        """Return the irreps ``[n, dim]`` of blocks ``[n, rows, columns]``.

        For the diagonal table this is the projection on symmetric blocks.
        """
        return np.asarray((self.matrix.T @ blocks.reshape(len(blocks), -1).T).T)


def _table(
    first: Signature, second: Signature, entries: list[tuple[int, int, int]], *, symmetric: bool
) -> IrrepTable:
    """Build a table from its irreps ``(l, shell a, shell b)``, already sorted by l."""
    rows, columns = signature_nao(first), signature_nao(second)
    row_start = np.concatenate([[0], np.cumsum([2 * l + 1 for l in first])])
    column_start = np.concatenate([[0], np.cumsum([2 * l + 1 for l in second])])
    lmax = max(l for l, _, _ in entries)
    counts = [sum(1 for l, _, _ in entries if l == k) for k in range(lmax + 1)]
    start = np.concatenate([[0], np.cumsum([(2 * l + 1) * n for l, n in enumerate(counts)])])
    seen = [0] * (lmax + 1)
    at: list[IntArray] = []
    column: list[IntArray] = []
    value: list[Array] = []
    for l, a, b in entries:
        table = coupling(first[a], second[b], l)
        m1, m2, m = np.nonzero(table)
        i, j = row_start[a] + m1, column_start[b] + m2
        k = start[l] + m * counts[l] + seen[l]
        seen[l] += 1
        if symmetric and a != b:
            at += [i * columns + j, j * columns + i]
            column += [k, k]
            value += [table[m1, m2, m] / np.sqrt(2)] * 2
        else:
            at.append(i * columns + j)
            column.append(k)
            value.append(table[m1, m2, m])
    matrix = csr_array(
        (np.concatenate(value), (np.concatenate(at), np.concatenate(column))),
        shape=(rows * columns, int(start[-1])),
    )
    pairs = tuple(tuple((a, b) for k, a, b in entries if k == l) for l in range(lmax + 1))
    return IrrepTable(first, second, rows, columns, tuple(counts), pairs, matrix)


@cache
def pair_table(first: Signature, second: Signature) -> IrrepTable:
    """Return the table of an off-diagonal block: rows of ``first``, columns of ``second``."""
    entries = [
        (l, a, b)
        for a, l1 in enumerate(first)
        for b, l2 in enumerate(second)
        for l in range(abs(l1 - l2), l1 + l2 + 1)
    ]
    return _table(first, second, sorted(entries), symmetric=False)


@cache
def diagonal_table(signature: Signature) -> IrrepTable:
    """Return the table of the block of an atom with itself, which is symmetric.

    Shell pairs a ≤ b only; a shell with itself has only even l, because
    ``y^{ba}_l = (−1)^{l1+l2−l} y^{ab}_l``. ``dim`` is ``N(N+1)/2``.
    """
    entries = [
        (l, a, b)
        for a, l1 in enumerate(signature)
        for b, l2 in enumerate(signature)
        for l in range(abs(l1 - l2), l1 + l2 + 1)
        if a < b or (a == b and l % 2 == 0)
    ]
    return _table(signature, signature, sorted(entries), symmetric=True)
