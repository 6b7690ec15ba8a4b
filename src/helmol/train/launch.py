"""One training run from its configuration to its folder."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from helmol.damage import read_json, understood
from helmol.digests import read_description
from helmol.errors import TrainingError
from helmol.evaluate import METRICS
from helmol.evaluate.remarks import no_better
from helmol.files import plain, write_json
from helmol.graph import collate
from helmol.locks import Claim
from helmol.model import Model, load_model
from helmol.store import Store
from helmol.train import metrics
from helmol.train.checkpoint import DAMAGED, earlier
from helmol.train.config import RunConfig, TrainConfig
from helmol.train.data import Share, ShareStream, TrainingData, choose_split, prepare_data
from helmol.train.facts import check_alike, facts, introduce
from helmol.train.floor import FloorChoice, settle_floor
from helmol.train.fock_loss import training_orbitals
from helmol.train.folder import (
    BASELINES,
    CHECKPOINTS,
    RECORD,
    RESULTS,
    check_place,
    check_same,
    check_split,
    describe,
    environment,
    logging_to,
    open_folder,
    trained_on,
)
from helmol.train.loop import Wiring, keep_if_best, train
from helmol.train.objective import CRITERIA, criterion, objective
from helmol.train.plan import Plan, make_plan
from helmol.train.ranks import ALONE, Ranks, joined
from helmol.train.report import errors_text, plot_learning_curve, write_card
from helmol.train.start import starting_model
from helmol.train.state import Counters, TrainingState, check_whole, read_record
from helmol.train.validation import (
    EnergyValidation,
    Together,
    Validation,
    energy_baselines,
    fock_baselines,
)

log = logging.getLogger("helmol.train")


def run(
    config: TrainConfig, *, out: Path, resume: str = "auto", ranks: Ranks | None = None
) -> dict[str, Any]:
    """Train a model, or go on with a run that was interrupted.

    In every one of several processes that ``torchrun`` has started, call it with the same arguments.

    Args:
        config: what to train on what.
        out: run folder.
        resume: ``auto`` goes on from ``checkpoints/last`` if there is one; ``never`` wants a new folder.
        ranks: the processes that train it together, from :func:`helmol.train.ranks.joined`; found out unless
            they are given.

    Returns:
        ``run``, ``finished``, ``resumed_from`` (step, or ``None``), ``steps``, ``skipped_steps``,
        ``seconds``, ``cpu_seconds`` (without validation), ``parameters``, ``task``, ``target``, ``learnt``
        (in words), ``n_train``, ``n_val``, ``start`` (before the first step; empty where it says nothing),
        ``best`` and ``last``: the validation error tables (keys of :func:`helmol.evaluate.errors` and
        ``step``), ``baselines``: the same of cheap guesses, ``overlap_floor``: what
        :func:`helmol.train.floor.choose_floor` returned.

    Raises:
        ConfigError: bad configuration, or one that the run in ``out`` was not started with.
        InputError, StoreError: the data or the folder cannot be used.
        BusyError: another process trains in ``out``.
        TrainingError: the run diverged, or a checkpoint cannot be written or read.
        StoppedError: SIGTERM or SIGUSR1; ``checkpoints/last`` holds the last finished step.
    """
    out = Path(out)
    check_place(out, resume)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined()) if ranks is None else ranks
        if ranks.first:
            stack.enter_context(Claim(out, folder=True))
        return _run(config, out, resume, ranks)


def _run(config: TrainConfig, out: Path, resume: str, ranks: Ranks) -> dict[str, Any]:
    """Train in a folder that is held."""
    plan = make_plan(config)
    settings = plan.resolved()
    resuming = ranks.from_first(lambda: open_folder(out, resume, check_whole))
    if resuming:
        fingerprint, counters = ranks.from_first(lambda: read_record(out / "checkpoints" / "last"))
        check_same(fingerprint, {"config": settings}, folder=out)
        if counters.finished:
            return ranks.from_first(lambda: _finished(out, config, settings, fingerprint))
    with Store.open(config.data.store) as store, torch_settings(config.run, ranks) as device:
        now = {"config": settings, "content_hash": store.content_hash}
        there = ranks.gather(facts(now, device))
        check_alike(there)
        split = choose_split(store, config.data)
        if resuming:
            check_same(fingerprint, now, folder=out)
            check_split(out, {"train": split.train, "val": split.val})
        # Nothing is written before the data are known to be good.
        data = prepare_data(store, plan, split, ranks)
        out.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if ranks.first:
                stack.enter_context(logging_to(out / "log.txt"))
            state = (
                _resume(out, config, device, ranks)
                if resuming
                else _begin(out, plan, data, now, device, ranks)
            )
            if "fock" in state.model.heads and (resuming or not ranks.first):
                data.items.change(state.model.fock_target.subtract)
            first = state.counters.step
            wiring, stream = _wiring(config, data, store, out, now, device, ranks)
            if ranks.first:
                metrics.start(out / "metrics.csv", up_to_step=first)
                _introduce(state.model, data, out, first if resuming else None)
                introduce(there, stream, config.schedule.edges_per_batch)
            if not resuming and (plan.source is not None or config.task != "hamiltonian"):
                _report_start(state, wiring)
            train(state, wiring)

            def complete() -> dict[str, Any]:
                _complete(out, config, store, data.split.val, device)
                return _finish(out, config, _counters(out), resumed_from=first if resuming else None)

            return ranks.from_first(complete)


def _finished(
    out: Path, config: TrainConfig, settings: dict[str, Any], fingerprint: dict[str, Any]
) -> dict[str, Any]:
    """Return the result of a run that was finished before, and complete what it lacks."""
    log.info("the run in %s is finished: nothing to do", out)
    _check_data(out, config.data.store, settings, fingerprint)
    # Killed just before, or of before it was done.
    unsettled = config.task != "energy" and not (out / RECORD).exists()
    if unsettled or (config.data.store.exists() and not (out / BASELINES).exists()):
        with Store.open(config.data.store) as store, torch_settings(config.run) as device:
            _complete(out, config, store, trained_on(out)["val"], device)
    counters = _counters(out)
    return _finish(out, config, counters, resumed_from=counters.step)


def _complete(out: Path, config: TrainConfig, store: Store, ids: list[str], device: torch.device) -> None:
    """Settle what validation molecules choose at the end, and note what the model has to beat on them."""

    def ready(model: Model) -> Model:
        return model.to(device).set_precision(config.run.precision)

    found: dict[str, dict[str, Any]] = {}
    if config.task != "energy":
        settle_floor(out, store, ids, _validation(config, store, ids), ready=ready)
        found |= fock_baselines(store, ids)
    if config.task != "hamiltonian":
        found |= energy_baselines(ready(load_model(out / "checkpoints" / "last")), store, ids)
    write_json(out / BASELINES, found)


def _check_data(out: Path, data: Path, settings: dict[str, Any], fingerprint: dict[str, Any]) -> None:
    """Raise ConfigError if a finished run is given other data than it was trained on; none at all will do."""
    if data.exists():
        with Store.open(data) as store:
            now = {"config": settings, "content_hash": store.content_hash}
        check_same(fingerprint, now, folder=out)


def _begin(
    out: Path,
    plan: Plan,
    data: TrainingData,
    fingerprint: dict[str, Any],
    device: torch.device,
    ranks: Ranks,
) -> TrainingState:
    """Describe the run in its folder and make a model with random weights and fitted statistics."""

    def make() -> tuple[Model, float]:
        _describe(out, plan, data, fingerprint, device)
        return starting_model(plan, data)

    model, seconds = ranks.from_first(make)
    torch.manual_seed(plan.config.run.seed)
    state = TrainingState.begin(model.to(device), plan.config, ranks)
    state.counters.cpu = seconds
    return state


def _describe(
    out: Path, plan: Plan, data: TrainingData, fingerprint: dict[str, Any], device: torch.device
) -> None:
    """Make the folder that of this run: nothing of an earlier one, and what it is."""
    last = out / "checkpoints" / "last"
    for folder in (*(out / "checkpoints" / name for name in (*CHECKPOINTS, DAMAGED)), *earlier(last)):
        shutil.rmtree(folder, ignore_errors=True)
    for name in RESULTS:
        (out / name).unlink(missing_ok=True)
    record = {
        "data": plan.config.data.store, "content_hash": fingerprint["content_hash"],
        "train": data.split.train, "val": data.split.val,
    }  # fmt: skip
    describe(out, fingerprint["config"], record, device=device)


def _resume(out: Path, config: TrainConfig, device: torch.device, ranks: Ranks) -> TrainingState:
    """Read the last checkpoint; the best model is the one on the disk, which may be a little newer."""
    _warn_of_versions(out, device)
    state = TrainingState.load(out / "checkpoints" / "last", config, device=device, ranks=ranks)
    state.counters.best = _best_table(out)
    return state


def _counters(out: Path) -> Counters:
    """Return what the checkpoints of a finished run say of it."""
    _, counters = read_record(out / "checkpoints" / "last")
    counters.best = _best_table(out)
    return counters


def _best_table(out: Path) -> dict[str, Any]:
    """Return the validation errors of the best model, empty if there is none."""
    path = out / "checkpoints" / "best" / "validation.json"
    return read_description(path, error=TrainingError) if path.exists() else {}


def _wiring(
    config: TrainConfig,
    data: TrainingData,
    store: Store,
    out: Path,
    fingerprint: dict[str, Any],
    device: torch.device,
    ranks: Ranks,
) -> tuple[Wiring, ShareStream]:
    """Wire the data to the loop; return also the stream that they come from."""
    budget, val = config.schedule.edges_per_batch, data.split.val
    stream = ShareStream(data.n_edges, budget=budget, seed=config.run.seed, ranks=ranks)

    def share_after(drawn: int) -> Share:
        share = stream.share(drawn, data.items)
        return replace(share, batch=share.batch.to(device))

    orbitals = training_orbitals(store, config.loss.fock, data.split.train, ranks)
    wiring = Wiring(
        config=config,
        share_after=share_after,
        one=lambda place: collate(data.items.many([place])).to(device),
        ids=data.split.train,
        loss=objective(config, data.domain.basis, orbitals),
        settle=(lambda model: None) if config.task == "energy" else FloorChoice(store, val, ranks=ranks),
        validate=_validation(config, store, val, ranks),
        criterion=criterion(config),
        epoch=stream.epoch,
        folder=out,
        fingerprint=plain(fingerprint),
        ranks=ranks,
    )
    return wiring, stream


def _validation(
    config: TrainConfig, store: Store, ids: list[str], ranks: Ranks = ALONE
) -> Callable[[Model], dict[str, Any]]:
    """Return what is computed in a validation of a task."""
    if config.task == "hamiltonian":
        return Validation(store, ids, ranks)
    energies = EnergyValidation(store, ids, ranks)
    return energies if config.task == "energy" else Together(Validation(store, ids, ranks), energies)


def _report_start(state: TrainingState, wiring: Wiring) -> None:
    """Validate before the first step: errors of wrong element energies are huge, of a fitted head small."""
    wiring.settle(state.average)
    table = wiring.validate(state.average)
    state.counters.start = {"step": 0, **table}
    head = state.model.energy_head if "energy" in state.model.heads else None
    # The best is chosen by energies: a new head must not hide that forces and Fock matrices are not learnt.
    if wiring.config.task == "hamiltonian" or head is None or head.trained or _energies_alone(wiring.config):
        keep_if_best(state, wiring, state.counters.start)
    parts = [METRICS[key].text(table[key]) for key in CRITERIA if table.get(key) is not None]
    log.info("step 0, validation: %s", ", ".join(parts))


def _energies_alone(config: TrainConfig) -> bool:
    """Return whether nothing but energies is learnt."""
    return config.task == "energy" and config.loss.force_weight == 0


def _finish(
    out: Path, config: TrainConfig, counters: Counters, *, resumed_from: int | None
) -> dict[str, Any]:
    """Write card and plot of what is saved, say how good it is, and return the result."""
    model = load_model(out / "checkpoints" / "last")
    baselines = read_json(out / BASELINES) if (out / BASELINES).exists() else {}
    metrics.correct(out / "metrics.csv", [counters.best, counters.validation])
    write_card(out, model, counters, baselines, precision=config.run.precision)
    plot_learning_curve(out)
    log.info("the best model, step %s, validation: %s", counters.best.get("step"), errors_text(counters.best))
    for line in no_better(counters.best, baselines):
        log.warning("%s", line)
    split = trained_on(out)
    return {
        "run": str(out),
        "finished": counters.finished,
        "resumed_from": resumed_from,
        "steps": counters.step,
        "skipped_steps": counters.skipped,
        "seconds": counters.elapsed,
        "cpu_seconds": counters.cpu,
        "parameters": model.n_parameters,
        "task": config.task,
        "target": model.domain.target,
        "learnt": model.learnt,
        "n_train": len(split["train"]),
        "n_val": len(split["val"]),
        "start": counters.start,
        "best": counters.best,
        "last": counters.validation,
        "baselines": baselines,
        "overlap_floor": read_json(out / RECORD) if (out / RECORD).exists() else None,
    }


def _introduce(model: Model, data: TrainingData, out: Path, resumed_from: int | None) -> None:
    """Say what is about to be trained."""
    log.info(
        "%s: %s parameters, %s, %s; %d training and %d validation molecules",
        out, f"{model.n_parameters:,}", data.domain.level.label, model.learnt,
        len(data.split.train), len(data.split.val),
    )  # fmt: skip
    if resumed_from is not None:
        log.info("resumed from step %d", resumed_from)


def _warn_of_versions(out: Path, device: torch.device) -> None:
    """Say what makes a resumed run differ in rounding from an uninterrupted one."""
    path = out / "environment.json"
    old, new = read_json(path), environment(device)
    for key in ("device_name", "threads", "versions"):
        with understood(str(path)):
            before = old[key]
        if before != new[key]:
            log.warning(
                "resumed with another %s (%s, was %s): not bit for bit the same run", key, new[key], before
            )


@contextmanager
def torch_settings(config: RunConfig, ranks: Ranks = ALONE) -> Iterator[torch.device]:
    """Set threads and deterministic algorithms, yield the device, and put everything back."""
    device = ranks.device(config.device)
    if config.precision != "fp32" and device.type != "cuda":
        log.warning(
            "precision %s is emulated on %s: its errors, but slower than fp32", config.precision, device.type
        )
    if device.type == "cuda":
        # cuBLAS is deterministic only with a fixed workspace, chosen before its first call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    deterministic: Any = torch.utils.deterministic
    threads, fill = torch.get_num_threads(), deterministic.fill_uninitialized_memory
    strict = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.n_threads or threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield device
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)
        deterministic.fill_uninitialized_memory = fill
