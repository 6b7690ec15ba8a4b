"""The training loop, whole."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from helmol.digests import write_description
from helmol.errors import DivergedError
from helmol.evaluate import METRICS
from helmol.graph import Batch
from helmol.model import Model, save_model
from helmol.progress import Progress
from helmol.train import metrics
from helmol.train.average import update_average
from helmol.train.checkpoint import replacing_folder
from helmol.train.config import TrainConfig
from helmol.train.interrupts import deferred_interrupt
from helmol.train.objective import Loss
from helmol.train.schedule import ema_weight, lr_factor, progress
from helmol.train.state import Counters, TrainingState

log = logging.getLogger("helmol.train")


@dataclass(frozen=True)
class Wiring:
    """Hold what the loop calls and where it writes.

    Attributes:
        config: the run's configuration.
        batch_after: the batch that follows after a number of molecules drawn, and its length.
        loss: of a model for a batch at a share of the schedule.
        settle: chooses what of a model is chosen by validation molecules, before each validation.
        validate: error table of a model.
        criterion: which of these errors chooses the best model.
        epoch: passes through the data after a number of molecules drawn.
        folder: run folder.
        fingerprint: what a resumed run must agree with.
    """

    config: TrainConfig
    batch_after: Callable[[int], tuple[Batch, int]]
    loss: Loss
    settle: Callable[[Model], object]
    validate: Callable[[Model], dict[str, Any]]
    criterion: str
    epoch: Callable[[int], float]
    folder: Path
    fingerprint: dict[str, Any]


def train(state: TrainingState, wiring: Wiring) -> None:
    """Train until the schedule ends.

    Raises:
        DivergedError: the loss stays non-finite.
        TrainingError: a checkpoint cannot be written.
        KeyboardInterrupt: Ctrl-C; ``checkpoints/last`` holds the last finished step.
    """
    config, counters, model = wiring.config, state.counters, state.model
    schedule, init = config.schedule, config.init
    last = wiring.folder / "checkpoints" / "last"
    ends = schedule.ends
    # To walk through all modules takes as long as a small network's optimizer: done once, not every step.
    weights, averages = list(model.parameters()), list(state.average.parameters())
    start, start_cpu = time.perf_counter() - counters.elapsed, time.process_time() - counters.cpu
    with deferred_interrupt() as interrupted, _progress_bar(config, counters, wiring.criterion) as bar:
        while not counters.finished:
            done = progress(counters.step, counters.elapsed, counters.cpu, **ends)
            counters.lr = state.optimizers.set_lr(
                lr_factor(counters.step, done, warmup_steps=schedule.warmup_steps),
                backbone=0.0 if counters.step < init.head_warmup_steps else init.backbone_lr_factor,
            )
            batch, n_molecules = wiring.batch_after(counters.drawn)
            state.optimizers.zero_grad()
            loss = wiring.loss(model, batch, done)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(weights, config.optimizer.clip_norm, foreach=True)
            counters.step += 1
            counters.drawn += n_molecules
            if _count(counters, loss.item(), norm.item(), config):
                state.optimizers.step()
                keep = ema_weight(counters.step, decay=schedule.ema_decay)
                update_average(averages, weights, keep=keep)
            counters.elapsed = time.perf_counter() - start
            counters.cpu = time.process_time() - start_cpu
            done = progress(counters.step, counters.elapsed, counters.cpu, **ends)
            counters.finished = done >= 1
            if counters.finished or counters.step % config.run.validate_every == 0:
                _validate(state, wiring)
                counters.elapsed = time.perf_counter() - start
                start_cpu = time.process_time() - counters.cpu
            if counters.finished or interrupted() or counters.step % config.run.checkpoint_every == 0:
                state.save(last, wiring.fingerprint)
            bar(done)
            if interrupted() and not counters.finished:
                log.info("interrupted; step %d is saved, the same command goes on from there", counters.step)
                raise KeyboardInterrupt


def _count(counters: Counters, loss: float, norm: float, config: TrainConfig) -> bool:
    """Add a step to the sums and return whether it may be applied.

    Raises:
        DivergedError: too many steps in a row had a non-finite loss or gradient.
    """
    if math.isfinite(loss) and math.isfinite(norm):
        counters.loss_sum, counters.norm_sum = counters.loss_sum + loss, counters.norm_sum + norm
        counters.n_sum, counters.skipped_in_a_row = counters.n_sum + 1, 0
        return True
    counters.skipped, counters.skipped_in_a_row = counters.skipped + 1, counters.skipped_in_a_row + 1
    log.warning("step %d skipped: loss %g, gradient norm %g", counters.step, loss, norm)
    if counters.skipped_in_a_row >= config.run.max_skipped:
        raise DivergedError(
            f"the loss or its gradient was not finite in {counters.skipped_in_a_row} steps in a row (up to "
            f"step {counters.step}): lower optimizer.lr and optimizer.muon_lr, raise "
            "schedule.warmup_steps, or use run.dtype float64, "
            "with another --out"
        )
    return False


def keep_if_best(state: TrainingState, wiring: Wiring, table: dict[str, Any]) -> None:
    """Save the averaged weights as ``checkpoints/best`` if their validation error is the smallest so far."""
    key, best = wiring.criterion, state.counters.best.get(wiring.criterion)
    if math.isfinite(table[key]) and (best is None or table[key] < best):
        with replacing_folder(wiring.folder / "checkpoints" / "best") as new:
            save_model(new, state.average, extra={"step": state.counters.step})
            write_description(new / "validation.json", table)
        state.counters.best = table


def _validate(state: TrainingState, wiring: Wiring) -> None:
    """Validate the averaged weights, add a row to the metrics, keep the model if it is the best."""
    counters = state.counters
    wiring.settle(state.average)
    table = {"step": counters.step, **wiring.validate(state.average)}
    counters.validation = table
    n = counters.n_sum
    row = {
        "step": counters.step,
        "epoch": wiring.epoch(counters.drawn),
        "lr": counters.lr,
        "loss": counters.loss_sum / n if n else None,
        "grad_norm": counters.norm_sum / n if n else None,
        "seconds": counters.elapsed,
        **{name: table.get(name.removeprefix("val_")) for name in metrics.COLUMNS if name.startswith("val_")},
    }
    metrics.append(wiring.folder / "metrics.csv", row)
    counters.loss_sum = counters.norm_sum = 0.0
    counters.n_sum = 0
    keep_if_best(state, wiring, table)
    key, metric = wiring.criterion, METRICS[wiring.criterion]
    log.info(
        "step %d, epoch %.1f, loss %.4g, validation: %s%s, best %.4g %s (step %d), %.0f s",
        counters.step, row["epoch"], row["loss"] if n else math.nan, metric.text(table[key]),
        _other_errors(table, key), counters.best.get(key, math.nan), metric.unit,
        counters.best.get("step", 0), counters.elapsed,
    )  # fmt: skip


def _other_errors(table: dict[str, Any], criterion: str) -> str:
    """Return as text what else was validated: orbital energies, forces, in task ``both`` matrices."""
    keys = (name.removeprefix("val_") for name in metrics.COLUMNS if name.startswith("val_"))
    return "".join(
        f", {METRICS[key].text(table[key])}"
        for key in keys
        if key != criterion and table.get(key) is not None
    )


@contextmanager
def _progress_bar(
    config: TrainConfig, counters: Counters, criterion: str
) -> Iterator[Callable[[float], None]]:
    """Yield a function that shows the share of the run that is done: steps, or percent by the clock."""
    metric = METRICS[criterion]
    ends = config.schedule.ends
    by_steps = all(limit is None for end, limit in ends.items() if end != "max_steps")
    total = ends["max_steps"] if by_steps else 100
    first = (
        counters.step
        if by_steps
        else int(100 * progress(counters.step, counters.elapsed, counters.cpu, **ends))
    )
    with Progress("Train", total=total - first, unit="steps" if by_steps else "%") as bar:

        def show(done: float) -> None:
            reached = (counters.step if by_steps else int(100 * done)) - first
            best = counters.best.get(criterion)
            mean = counters.loss_sum / counters.n_sum if counters.n_sum else None
            parts = [] if mean is None else [f"loss {mean:.3g}"]
            parts += [] if best is None else [metric.text(best)]
            bar.advance(reached - bar.done, note=", ".join(parts) or None)

        yield show
