"""Orders of the ``(l, m)`` components of a feature.

Nodes are **l-major**: ``k = l² + l + m``. Edges are **m-major**: m = 0 with l = 0 … L, then for
m = 1 … L first all +m (l = m … L), then all −m. A convolution in the edge frame then reads each m
as one contiguous slice.
"""

from functools import cache

import torch
from torch import Tensor

from helmol.arrays import Float64, Int64


@cache
def m_major(lmax: int) -> Int64[Tensor, " K"]:
    """Return the l-major index of each m-major component, ``[(lmax+1)²]``."""
    order = [l * l + l for l in range(lmax + 1)]
    for m in range(1, lmax + 1):
        order += [l * l + l + m for l in range(m, lmax + 1)]
        order += [l * l + l - m for l in range(m, lmax + 1)]
    return torch.tensor(order)


@cache
def m_sizes(lmax: int) -> tuple[int, ...]:
    """Return the number of m-major components of each m = 0 … lmax."""
    return (lmax + 1, *[2 * (lmax + 1 - m) for m in range(1, lmax + 1)])


@cache
def degree_of_m_major(lmax: int) -> Int64[Tensor, " K"]:
    """Return the degree l of each m-major component."""
    return torch.tensor([int(k**0.5) for k in m_major(lmax).tolist()])


@cache
def rows_of_degree(lmax: int) -> tuple[Int64[Tensor, " m"], ...]:
    """Return for each l the m-major rows of m = −l … l."""
    position = torch.argsort(m_major(lmax))
    return tuple(position[l * l : (l + 1) ** 2] for l in range(lmax + 1))


@cache
def flip_signs(lmax: int) -> Float64[Tensor, " K"]:
    """Return the l-major diagonal of a turn by π about x, which joins the frames of r and −r.

    (x, y, z) → (x, −y, −z) gives ``(−1)^{l+m}`` for m ≥ 0 and ``(−1)^{l+m+1}`` for m < 0, so
    ``D(−r) = diag(flip) D(r)`` in the gauge γ = 0.
    """
    signs = [(-1.0) ** (l + m + (m < 0)) for l in range(lmax + 1) for m in range(-l, l + 1)]
    return torch.tensor(signs, dtype=torch.float64)


@cache
def quarter_turn(lmax: int) -> tuple[Int64[Tensor, " K"], Float64[Tensor, " K"]]:
    """Return rows and signs of J, the product of ``x₊ + i x₋`` with i: ``(Jx)_k = sign_k x_{row_k}``.

    ``(Jx)₊ = −x₋`` and ``(Jx)₋ = x₊`` for m > 0; rows of m = 0 stay. Rows are m-major.
    ``J⁻¹ = Jᵀ`` has the same rows and, for m > 0, the other signs.
    """
    rows, signs = list(range(lmax + 1)), [1.0] * (lmax + 1)
    for m in range(1, lmax + 1):
        n, start = lmax + 1 - m, len(rows)
        rows += [*range(start + n, start + 2 * n), *range(start, start + n)]
        signs += [-1.0] * n + [1.0] * n
    return torch.tensor(rows), torch.tensor(signs, dtype=torch.float64)
