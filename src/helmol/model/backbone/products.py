"""Matrix products of edge features in a chosen precision: the one place where it is decided.

These products are over 85 % of the arithmetic. Sums are float32 in any case, and so is everything else
(frames, norms, radial networks, node feed-forward, heads, loss); labels and references are float64.

* ``fp32``: IEEE float32.
* ``tf32``: factors rounded to 10 bits of mantissa. ``bf16``: to 7 bits.
* ``tf32x3``, ``bf16x3``: each factor is the sum of two rounded ones, ``a = a₁ + a₂``, and the product is
  ``a₂b₁ + a₁b₂ + a₁b₁``: two to three times as many bits for three fast products.

On CUDA the tensor cores do it. Elsewhere the factors are rounded and multiplied in float32: the same error,
and slower than ``fp32``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor

from helmol.errors import ConfigError

Precision = Literal["fp32", "tf32", "tf32x3", "bf16x3", "bf16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

_TF32_DROPPED = 13
"""Bits of a float32's mantissa that TF32 does not have."""


def check_precision(precision: str, dtype: torch.dtype) -> None:
    """Refuse what does not exist.

    Raises:
        ConfigError: unknown name, or reduced precision of a float64 network.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"unknown precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    if precision != "fp32" and dtype != torch.float32:
        raise ConfigError(f"precision {precision} is of float32 networks; this one is {dtype}: use fp32")


def product(
    a: Tensor,
    b: Tensor,
    precision: str,
    *,
    out: Tensor | None = None,
    add: bool = False,
    alpha: float = 1.0,
) -> Tensor:
    """Return ``alpha · a b``, or write it to ``out``, or add it.

    Args:
        a: ``[n, k]`` or ``[batch, n, k]``.
        b: ``[k, m]`` or ``[batch, k, m]``.
        precision: of the factors, see above.
        out: where to write; must not share memory with ``a`` or ``b``.
        add: add to ``out`` instead of replacing it.
        alpha: factor, only with ``add``.
    """
    if precision == "fp32":
        if out is None:
            return a @ b
        if add:
            return out.baddbmm_(a, b, alpha=alpha) if a.ndim == 3 else out.addmm_(a, b, alpha=alpha)
        return torch.bmm(a, b, out=out) if a.ndim == 3 else torch.mm(a, b, out=out)
    result = out if add else None
    for left, right in _factors(a, b, precision):
        if result is None:
            result = _multiply(left, right, precision, out=out)
        else:
            _multiply(left, right, precision, out=result, add=True, alpha=alpha if add else 1.0)
    if result is None:
        raise ConfigError(f"unknown precision {precision!r}")
    return result


def _factors(a: Tensor, b: Tensor, precision: str) -> list[tuple[Tensor, Tensor]]:
    """Return the pairs of rounded factors whose products add up, small ones first."""
    kind = precision.removesuffix("x3")
    a1, b1 = rounded(a, kind), rounded(b, kind)
    if kind == precision:
        return [(a1, b1)]
    return [(rounded(a - a1, kind), b1), (a1, rounded(b - b1, kind)), (a1, b1)]


def rounded(x: Tensor, kind: str) -> Tensor:
    """Return float32 numbers rounded to the nearest of ``tf32`` or ``bf16``, as float32; ties to even."""
    if kind == "bf16":
        return x.to(torch.bfloat16).to(torch.float32)
    bits = x.contiguous().view(torch.int32)
    half = (1 << (_TF32_DROPPED - 1)) - 1
    bits = bits + half + ((bits >> _TF32_DROPPED) & 1)
    return (bits & ~((1 << _TF32_DROPPED) - 1)).view(torch.float32)


def _multiply(
    a: Tensor, b: Tensor, precision: str, *, out: Tensor | None, add: bool = False, alpha: float = 1.0
) -> Tensor:
    """Multiply rounded factors: by tensor cores where there are any, else in float32, which is exact."""
    if a.device.type != "cuda":
        return product(a, b, "fp32", out=out, add=add, alpha=alpha)
    if precision.startswith("tf32"):
        with tensor_cores():
            return product(a, b, "fp32", out=out, add=add, alpha=alpha)
    left, right = a.to(torch.bfloat16), b.to(torch.bfloat16)
    multiply = torch.bmm if a.ndim == 3 else torch.mm
    values = multiply(left, right, out_dtype=torch.float32)
    if out is None:
        return values
    return out.add_(values, alpha=alpha) if add else out.copy_(values)


@contextmanager
def tensor_cores() -> Iterator[None]:
    """Let CUDA multiply float32 matrices as TF32 inside, and put the setting back."""
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    settings.fp32_precision = "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before
