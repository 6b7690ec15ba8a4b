"""The training loop, whole."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from helmol.digests import write_description
from helmol.errors import DivergedError, StoppedError
from helmol.evaluate import METRICS
from helmol.files import write_json
from helmol.graph import Batch
from helmol.model import Model, save_model
from helmol.progress import Progress
from helmol.train import metrics
from helmol.train.average import update_average
from helmol.train.checkpoint import replacing_folder
from helmol.train.config import TrainConfig
from helmol.train.data import Share
from helmol.train.folder import NOT_FINITE
from helmol.train.interrupts import deferred_stop
from helmol.train.objective import Loss
from helmol.train.ranks import ALONE, Ranks
from helmol.train.schedule import ema_weight, lr_factor, progress
from helmol.train.state import Counters, TrainingState
from helmol.train.step import Gradient

NAMED = 5
"""Molecules that a log line names at most."""

log = logging.getLogger("helmol.train")


@dataclass(frozen=True)
class Wiring:
    """Hold what the loop calls and where it writes.

    Attributes:
        config: the run's configuration.
        share_after: this process's share of the batch that follows after a number of molecules drawn.
        one: batch of one training molecule.
        ids: of the training molecules.
        loss: of a model for a batch at a share of the schedule.
        settle: chooses what of a model is chosen by validation molecules, before each validation.
        validate: error table of a model.
        criterion: which of these errors chooses the best model.
        epoch: passes through the data after a number of molecules drawn.
        folder: run folder.
        fingerprint: what a resumed run must agree with.
        ranks: the processes; the first writes.
    """

    config: TrainConfig
    share_after: Callable[[int], Share]
    one: Callable[[int], Batch]
    ids: list[str]
    loss: Loss
    settle: Callable[[Model], object]
    validate: Callable[[Model], dict[str, Any]]
    criterion: str
    epoch: Callable[[int], float]
    folder: Path
    fingerprint: dict[str, Any]
    ranks: Ranks = ALONE


class Clock:
    """Count the time that a run takes, in all processes the same: seconds of the first, CPU seconds of all.

    Args:
        counters: where it is counted.
        ranks: the processes.
    """

    def __init__(self, counters: Counters, ranks: Ranks) -> None:
        self._counters, self._ranks = counters, ranks
        self._start, self._cpu = time.perf_counter() - counters.elapsed, time.process_time()

    def tick(self, asked: int = 0) -> int:
        """Count; return the signal that has asked one of the processes to stop, 0 if none has.

        Args:
            asked: the signal that this one has got.
        """
        now = time.process_time()
        said = self._ranks.numbers(asked, time.perf_counter() - self._start, now - self._cpu)
        self._cpu = now
        self._counters.elapsed = float(said[0, 1])
        self._counters.cpu += float(said[:, 2].sum())
        return int(said[:, 0].max())

    def leave_out(self) -> None:
        """Count the time since the last tick as elapsed, but not as CPU time."""
        self._cpu = time.process_time()
        self.tick()
        self._cpu = time.process_time()


def train(state: TrainingState, wiring: Wiring) -> None:
    """Train until the schedule ends.

    Raises:
        DivergedError: the loss stays non-finite.
        TrainingError: a checkpoint cannot be written, or a batch does not fit into memory.
        KeyboardInterrupt: Ctrl-C; ``checkpoints/last`` holds the last finished step.
        StoppedError: SIGTERM or SIGUSR1; so it does.
    """
    config, counters, model, ranks = wiring.config, state.counters, state.model, wiring.ranks
    schedule, init = config.schedule, config.init
    ends = schedule.ends
    # To walk through all modules takes as long as a small network's optimizer: done once, not every step.
    weights, averages = list(model.parameters()), list(state.average.parameters())
    gradient = Gradient(model, wiring.loss, ranks, budget=schedule.edges_per_batch)
    clock = Clock(counters, ranks)
    with deferred_stop() as stopped, _progress_bar(config, counters, wiring.criterion) as bar:
        while not counters.finished:
            done = progress(counters.step, counters.elapsed, counters.cpu, **ends)
            counters.lr = state.optimizers.set_lr(
                lr_factor(counters.step, done, warmup_steps=schedule.warmup_steps),
                backbone=0.0 if counters.step < init.head_warmup_steps else init.backbone_lr_factor,
            )
            share = wiring.share_after(counters.drawn)
            state.optimizers.zero_grad()
            loss = gradient(share, done)
            norm = torch.nn.utils.clip_grad_norm_(weights, config.optimizer.clip_norm, foreach=True).item()
            counters.step += 1
            counters.drawn += share.n_molecules
            if not (math.isfinite(loss) and math.isfinite(norm)):
                _name_culprits(wiring, gradient, share, counters.step, done)
            if _count(counters, loss, norm, config):
                state.optimizers.step()
                keep = ema_weight(counters.step, decay=schedule.ema_decay)
                update_average(averages, weights, keep=keep)
            asked = clock.tick(signal.SIGTERM if ranks.left_alone else stopped())
            done = progress(counters.step, counters.elapsed, counters.cpu, **ends)
            counters.finished = done >= 1
            if counters.finished or counters.step % config.run.validate_every == 0:
                _validate(state, wiring)
                clock.leave_out()
            if counters.finished or asked or counters.step % config.run.checkpoint_every == 0:
                if ranks.first:
                    last, n = wiring.folder / "checkpoints" / "last", config.run.keep_checkpoints
                    state.save(last, wiring.fingerprint, n_earlier=n - 1)
                ranks.any(False)  # nobody ends before it is written
            bar(done)
            if asked and not counters.finished:
                _stop(asked, counters.step)


def _stop(asked: int, step: int) -> None:
    """Raise what belongs to a signal."""
    if asked == signal.SIGINT:
        log.info("interrupted; step %d is saved, the same command goes on from there", step)
        raise KeyboardInterrupt
    raise StoppedError(
        f"stopped by {signal.Signals(asked).name}; step {step} is saved, the same command goes on from there"
    )


def _name_culprits(wiring: Wiring, gradient: Gradient, share: Share, step: int, done: float) -> None:
    """Say which molecules make a loss or gradient that is not finite, and keep the batch."""
    ranks = wiring.ranks
    own = [] if share.idle else share.places
    found = gradient.culprits(own, wiring.one, done)
    batch = [wiring.ids[place] for part in ranks.gather(own) for place in part]
    # At the end of an epoch a molecule may stand twice in a batch.
    parts = {place: (loss, norm) for part in ranks.gather(found) for place, loss, norm in part}
    culprits = [
        {"id": wiring.ids[place], "loss": loss, "grad_norm": norm} for place, (loss, norm) in parts.items()
    ]
    if not ranks.first:
        return
    write_json(wiring.folder / NOT_FINITE, {"step": step, "batch": batch, "molecules": culprits})
    if not culprits:
        who = "no molecule alone makes it so"
    elif len(culprits) == len(set(batch)):
        who = f"each of its {len(culprits)} molecules alone makes it so: the weights are at fault"
    else:
        more = f" and {len(culprits) - NAMED} more" if len(culprits) > NAMED else ""
        who = f"it is {', '.join(repr(one['id']) for one in culprits[:NAMED])}{more}"
    log.warning("step %d, loss or gradient not finite: %s (%s has the batch)", step, who, NOT_FINITE)


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
            f"schedule.warmup_steps, or use run.dtype float64, with another --out; {NOT_FINITE} names the "
            "molecules of the last of them"
        )
    return False


def keep_if_best(state: TrainingState, wiring: Wiring, table: dict[str, Any]) -> None:
    """Save the averaged weights as ``checkpoints/best`` if their validation error is the smallest so far."""
    key, best = wiring.criterion, state.counters.best.get(wiring.criterion)
    if math.isfinite(table[key]) and (best is None or table[key] < best):
        if wiring.ranks.first:
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
    if wiring.ranks.first:
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
