"""Losses of Fock matrices: what a difference from the labels costs, in units of the labels' own spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from helmol.errors import ConfigError, InputError
from helmol.graph import Batch, Bucket
from helmol.graph.blocks import rotate_pairs, table_of
from helmol.model.losses.sums import Total, alone
from helmol.target import FockOutput

LossKind = Literal["rmse+mse", "rmse", "mse", "mae", "rmse+mae", "huber"]
LossWeights = Literal["elements", "scales"]

HUBER_DELTA = 0.05
"""Error of an irrep, per component and in units of the loss, above which ``huber`` grows linearly."""
ROUND = 1e-7
"""Errors of an irrep below this, in units of the loss, count quadratically in ``mae``."""


def hamiltonian_loss(
    output: FockOutput,
    batch: Batch,
    *,
    kind: str = "rmse+mse",
    weights: str = "elements",
    diagonal_only: bool = False,
    total: Total = alone,
) -> Tensor:
    """Compare a batch with its targets; invariant to the orientation of the molecules.

    With ``e`` the error of an irrep of degree l in units of the training set's own spread, both
    triangles counted, and n the number of matrix elements:

    * ``mse``: ``Σ |e|² / n``, the mean square error of the matrix elements; ``rmse`` its root;
      ``rmse+mse`` their sum (the HELM paper's).
    * ``mae``: ``Σ √(2l+1) |e| / n``, an orientation-free form of the mean absolute error of the matrix
      elements; ``rmse+mae`` adds the root mean square.
    * ``huber``: ``Σ (2l+1) 2δ² (√(1 + |e|²/(2l+1)δ²) − 1) / n``: ``mse`` for errors below
      δ = 0.05, ``2δ · mae`` for large ones.

    Args:
        output: of the network for the batch.
        batch: molecules with targets, without what is known of them (:meth:`FockTarget.subtract`).
        kind: one of the above.
        weights: ``elements``: each matrix element counts alike. ``scales``: the error of each irrep is
            divided by the root of its target scale, so that blocks with small targets count more.
        diagonal_only: leave out the blocks between two atoms.
        total: sums over the whole batch, where this is a part of it; n and the root are of the whole.

    Returns:
        Scalar tensor in the network's precision.

    Raises:
        InputError: the batch has no targets.
        ConfigError: unknown ``kind`` or ``weights``.
    """
    if kind not in _LOSSES:
        raise ConfigError(f"unknown loss {kind!r}: expected one of {', '.join(_LOSSES)}")
    if weights not in get_args(LossWeights):
        raise ConfigError(f"unknown weights {weights!r}: expected one of {', '.join(get_args(LossWeights))}")
    squares, absolute, huber = (output.geometry.distance.new_zeros(()) for _ in range(3))
    entries = 0
    powers: dict[tuple[int, int], list[Tensor]] = {}
    for k, bucket in enumerate(batch.buckets):
        if diagonal_only and len(bucket.key) == 2:
            continue
        error, scale = block_errors(output, bucket, k)
        if weights == "scales":
            error = error * scale.clamp(min=1e-3).rsqrt()
        fold = len(bucket.key)
        entries += fold * table_of(bucket.key).matrix.shape[0] * len(error) * error.shape[1]
        if kind in ("mse", "rmse", "rmse+mse", "rmse+mae"):
            squares = squares + fold * error.square().sum()
        if kind in ("mae", "rmse+mae", "huber"):
            for degree, power in enumerate(_powers(error, bucket)):
                powers.setdefault((fold, degree), []).append(power.flatten())
    for (fold, degree), some in powers.items():
        n, power = 2 * degree + 1, torch.cat(some)
        if kind == "huber":
            root = (1 + power / (n * HUBER_DELTA**2)).sqrt()
            huber = huber + fold * n * 2 * HUBER_DELTA**2 * (root - 1).sum()
        else:
            # The root has no gradient at zero: rounded off far below any error that matters.
            absolute = absolute + fold * n**0.5 * ((power + ROUND**2).sqrt() - ROUND).sum()
    squares, absolute, huber, n_all = total(squares, absolute, huber, squares.new_full((), entries))
    return _LOSSES[kind](squares / n_all, absolute / n_all, huber / n_all)


_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "rmse+mse": lambda mse, mae, huber: (mse + 1e-16).sqrt() + mse,
    "rmse": lambda mse, mae, huber: (mse + 1e-16).sqrt(),
    "mse": lambda mse, mae, huber: mse,
    "mae": lambda mse, mae, huber: mae,
    "rmse+mae": lambda mse, mae, huber: (mse + 1e-16).sqrt() + mae,
    "huber": lambda mse, mae, huber: huber,
}


def block_errors(output: FockOutput, bucket: Bucket, k: int) -> tuple[Tensor, Tensor]:
    """Return the errors of a bucket's blocks and the scales of their targets, in units of the loss.

    Args:
        output: of the network for the batch.
        bucket: the batch's number ``k``, with targets.
        k: which.

    Returns:
        ``[n, n_spins, dim]``, predicted minus target (off-diagonal blocks in their edge frames), and
        the scales, broadcastable to it; both in the network's precision.

    Raises:
        InputError: the batch has no targets.
    """
    if bucket.target is None:
        raise InputError("a loss needs a batch with targets")
    predicted = output.normalised[k]
    with torch.no_grad():
        # The quotients are taken in float64, in which the labels are.
        target = (bucket.target / output.unit).to(predicted.dtype)
        weight = (output.scale[k] / output.unit).to(predicted.dtype)
        if len(bucket.key) == 2:
            target = rotate_pairs(target, bucket.key, bucket.index, output.geometry, to_edge=True)
    return predicted * weight - target, weight


def _powers(error: Tensor, bucket: Bucket) -> list[Tensor]:
    """Return for each degree the squared norms of the irreps, ``[n, n_spins, n_l]``."""
    table = table_of(bucket.key)
    parts = error.square().split(table.sizes, dim=2)
    return [
        part.unflatten(2, (2 * l + 1, count)).sum(dim=2)
        for l, (part, count) in enumerate(zip(parts, table.counts, strict=True))
    ]
