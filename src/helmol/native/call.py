"""Call a kernel on torch tensors. All kernels of ``kernels.h`` have the same order of arguments.

First the arrays that are read, then numbers (``long``, or ``double`` for a float), ``begin`` and ``end`` of
the rows to work on, then arrays of which every part of the rows has one of its own, then arrays that all
parts write to at their own rows. Names end in ``_f32`` or ``_f64``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from helmol.native.build import library

LARGEST_L = 8
"""Largest degree the kernels are written out for."""
ROWS_PER_THREAD = 32
"""With fewer rows a thread costs more than it gives."""
_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def usable(*tensors: Tensor, lmax: int = 0) -> bool:
    """Return whether the kernels can work on such tensors: CPU, one precision, dense along the last axis."""
    fits = all(x.device.type == "cpu" and x.dtype == tensors[0].dtype and x.stride(-1) == 1 for x in tensors)
    return fits and tensors[0].dtype in _SUFFIX and lmax <= LARGEST_L and library() is not None


def run(
    name: str,
    n: int,
    inputs: Sequence[Tensor],
    numbers: Sequence[int | float],
    own: Sequence[Tensor],
    out: Sequence[Tensor],
    *,
    strided: bool = False,
) -> None:
    """Run a kernel over ``n`` rows (pairs, or edges), in as many threads as torch may use.

    Args:
        name: of the kernel.
        n: number of rows.
        inputs: arrays that it reads, the first of the precision to compute in.
        numbers: follow them.
        own: scratch and sums; each part of the rows has one along their first dimension, see :func:`n_parts`.
        out: arrays that all parts write to, at their own rows.
        strided: the kernel takes the strides of its arrays among the numbers, so they need not be dense.
    """
    kernel = getattr(library(), f"{name}_{_SUFFIX[inputs[0].dtype]}")
    fixed = [_pointer(x, strided) for x in inputs] + [
        ctypes.c_double(x) if isinstance(x, float) else ctypes.c_long(x) for x in numbers
    ]

    def work(begin: int, end: int, part: int) -> None:
        written = [_pointer(x, strided) for x in (*(array[part] for array in own), *out)]
        kernel(*fixed, ctypes.c_long(begin), ctypes.c_long(end), *written)

    parts = n_parts(n)
    bounds = [n * k // parts for k in range(parts + 1)]
    if parts == 1:
        work(0, n, 0)
    else:
        list(_threads(parts).map(work, bounds[:-1], bounds[1:], range(parts)))


def n_parts(n: int) -> int:
    """Return into how many parts :func:`run` divides ``n`` rows."""
    return max(1, min(torch.get_num_threads(), n // ROWS_PER_THREAD))


def _pointer(tensor: Tensor, strided: bool) -> ctypes.c_void_p:
    """Return the address of a tensor."""
    if not (strided or tensor.is_contiguous()):
        raise ValueError("native kernels work on dense tensors")
    return ctypes.c_void_p(tensor.data_ptr())


@cache
def _threads(n: int) -> ThreadPoolExecutor:
    """Return a pool; C code runs without Python's lock."""
    return ThreadPoolExecutor(n)


def _after_fork() -> None:
    """Go on with one thread in a forked child: the others, this pool's and torch's, are not there.

    Who waits for them waits for ever.
    """
    _threads.cache_clear()
    torch.set_num_threads(1)


os.register_at_fork(after_in_child=_after_fork)
