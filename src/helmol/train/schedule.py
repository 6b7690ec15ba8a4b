"""How far a run has come, and the learning rate that belongs to it."""

from __future__ import annotations

import math


def progress(
    step: int,
    elapsed: float,
    cpu: float = 0.0,
    *,
    max_steps: int | None,
    max_minutes: float | None,
    max_cpu_minutes: float | None = None,
) -> float:
    """Return the largest share of a budget that is used up, at most 1; of budgets that are set.

    Args:
        step: finished steps.
        elapsed: seconds of training so far, over all starts of the run.
        cpu: CPU seconds of training so far, validation left out.
        max_steps: steps of the run.
        max_minutes: minutes of the run.
        max_cpu_minutes: CPU minutes of the run.
    """
    by_steps = step / max_steps if max_steps else 0.0
    by_clock = elapsed / (60 * max_minutes) if max_minutes else 0.0
    by_cpu = cpu / (60 * max_cpu_minutes) if max_cpu_minutes else 0.0
    return min(1.0, max(by_steps, by_clock, by_cpu))


def lr_factor(step: int, done: float, *, warmup_steps: int) -> float:
    """Return the learning rate in units of its peak: linear warm-up times ``(1 + cos π·done) / 2``.

    Args:
        step: finished steps; the first step has ``1 / warmup_steps``.
        done: :func:`progress`, 0 to 1.
        warmup_steps: steps of the warm-up.
    """
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return warmup * 0.5 * (1 + math.cos(math.pi * done))


def ema_weight(step: int, *, decay: float) -> float:
    """Return how much of the average is kept in (1-based) ``step``: ``min(decay, step / (step + 10))``."""
    return min(decay, step / (step + 10))
