"""Clocks and counters: time, operations, bytes kept for the gradient, rate of matrix products."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from helmol.model.backbone.products import product

GEMM_SIZE = 1024
COPIED = 1 << 24
"""Numbers that are copied to measure the memory's rate, on a CPU; 16 times that on CUDA."""


@dataclass(frozen=True)
class Measured:
    """Hold what one stage costs.

    Attributes:
        forward: seconds, median.
        backward: seconds, median; 0 where there is no gradient.
        operations: tensor operations of both.
        saved_bytes: bytes kept between them.
    """

    forward: float
    backward: float
    operations: int
    saved_bytes: int

    @property
    def seconds(self) -> float:
        """Both directions."""
        return self.forward + self.backward


class OperationCounter(TorchDispatchMode):
    """Count the tensor operations that reach the kernels; views are free and not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count and run one operation."""
        self.n += not func.is_view
        return func(*args, **(kwargs or {}))


def count_operations(function: Callable[[], Any]) -> int:
    """Return the number of tensor operations of a call."""
    with OperationCounter() as counter:
        function()
    return counter.n


def count_saved_bytes(function: Callable[[], Any]) -> int:
    """Return the bytes that a forward call keeps for its gradient, weights not counted.

    Storages kept more than once count once.
    """
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []  # holds on to storages, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        if not (tensor.is_leaf and tensor.requires_grad):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function()
    total = sum(sizes.values())
    del result
    return total


@dataclass(frozen=True)
class Clock:
    """Read time, in seconds, after everything that was begun has ended."""

    read: Callable[[], float]
    synchronize: Callable[[], None]

    def __call__(self) -> float:
        """Return the time now."""
        self.synchronize()
        return self.read()


def clock_for(device: torch.device) -> Clock:
    """Return processor time for one CPU thread (a busy machine does not lengthen it), else wall time."""
    if device.type == "cuda":
        return Clock(time.perf_counter, torch.cuda.synchronize)
    one = device.type == "cpu" and torch.get_num_threads() == 1
    return Clock(time.process_time if one else time.perf_counter, lambda: None)


def measure(function: Callable[[], Any], *, repeats: int, clock: Clock) -> Measured:
    """Time a call that returns tensors, and the gradient of their sum."""
    forward, backward = [], []
    for repeat in range(repeats + 1):
        start = clock()
        result = _tensors(function())
        middle = clock()
        if result:
            torch.autograd.backward(result, [torch.ones_like(part) for part in result])
        end = clock()
        if repeat:  # the first call warms up
            forward.append(middle - start)
            backward.append(end - middle)

    def both() -> None:
        result = _tensors(function())
        if result:
            torch.autograd.backward(result, [torch.ones_like(part) for part in result])

    return Measured(
        statistics.median(forward),
        statistics.median(backward),
        count_operations(both),
        count_saved_bytes(function),
    )


def _tensors(result: Any) -> list[Tensor]:
    """Return the tensors of a result that carry a gradient."""
    parts = result if isinstance(result, (list, tuple)) else [result]
    return [part for part in parts if isinstance(part, Tensor) and part.requires_grad]


def gemm_rate(dtype: torch.dtype, device: torch.device, *, clock: Clock, precision: str = "fp32") -> float:
    """Return the rate of a large square matrix product in a precision, FLOP/s, best of several."""
    size = GEMM_SIZE if device.type == "cpu" else 8 * GEMM_SIZE
    a = torch.randn(size, size, dtype=dtype, device=device)
    b, c = torch.randn_like(a), torch.empty_like(a)
    best = float("inf")
    for _ in range(8):
        start = clock()
        product(a, b, precision, out=c)
        best = min(best, clock() - start)
    return 2 * size**3 / best


def copy_rate(device: torch.device, *, clock: Clock) -> float:
    """Return how fast memory is read and written by a copy, bytes per second of both, best of several."""
    source = torch.ones(COPIED * (16 if device.type == "cuda" else 1), device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(5):
        start = clock()
        target.copy_(source)
        best = min(best, clock() - start)
    return 2 * source.numel() * source.element_size() / best
