"""Matched ablations: the same data, seeds and budget, one thing changed at a time.

Every case is trained once per seed and evaluated on molecules that no choice was made on. Seeds come
first, cases inside, so that a sweep that was stopped early compares like with like.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from helmol.config import Config, parse, read_yaml, with_overrides
from helmol.damage import read_json, understood
from helmol.errors import ConfigError, DivergedError
from helmol.evaluate import FOCK_METRICS, evaluate_model
from helmol.files import short_name, write_json, write_text
from helmol.locks import Claim
from helmol.model import load_model
from helmol.store import Store, split_indices
from helmol.train.config import TrainConfig
from helmol.train.folder import trained_on
from helmol.train.launch import run, torch_settings
from helmol.train.plan import make_plan
from helmol.train.ranks import n_processes
from helmol.train.sweep_table import markdown, summarise
from helmol.train.updates import combined, config_v2, setting_v2

log = logging.getLogger("helmol.train")

Runner = Callable[[TrainConfig, Path], dict[str, Any]]


class SweepConfig(Config):
    """Set a matched ablation; one YAML file per table."""

    title: str = "Sweep"
    """Heading of the table."""
    base: dict[str, Any]
    """Training configuration that all cases share, budget included (``schedule.max_cpu_minutes`` is the
    fairest)."""
    cases: dict[str, dict[str, Any]] = Field(min_length=1)
    """Name of each case and the keys in which it differs from ``base``; the first is what the others are
    compared with. Sections are merged, other values replace."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field((0,), min_length=1)
    """Seeds of weights and data order; each case is trained once with each."""
    split: str = "test"
    """Split of the store, or ``unseen``, that the finished models are evaluated on."""
    choose: Literal["best", "last"] = "best"
    """Checkpoint that is evaluated: the best on the validation molecules, or the last."""

    @field_validator("seeds")
    @classmethod
    def _different(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("the seeds must differ: a seed twice is the same run twice")
        return value

    def training(self, case: str, seed: int) -> TrainConfig:
        """Return the training configuration of a case.

        Raises:
            ConfigError: unknown key or bad value, or ``seed`` set by hand.
        """
        try:
            data = combined(self.base, self.cases[case])
        except ConfigError as error:
            raise ConfigError(f"case {case!r}: {error}") from error
        if "seed" in data.get("run", {}):
            raise ConfigError(f"case {case!r}: 'seed' is set by the sweep; list seeds under 'seeds'")
        config = parse(TrainConfig, combined(data, {"run": {"seed": seed}}), source=f"case {case!r}")
        if config.task == "energy":
            raise ConfigError(f"case {case!r}: a sweep compares errors of Fock matrices, not task 'energy'")
        make_plan(config)
        return config


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Return the sweep of a YAML file with ``key.sub=value`` settings applied.

    Raises:
        InputError: there is no such file, or no YAML in it.
        ConfigError: unknown key or bad value.
    """
    data = read_yaml(path)
    places = ["base."]
    if isinstance(base := data.get("base"), dict):
        data["base"] = config_v2(base)
    if isinstance(cases := data.get("cases"), dict):
        data["cases"] = {k: config_v2(v) if isinstance(v, dict) else v for k, v in cases.items()}
        places += [f"cases.{name}." for name in cases]
    for place in places:
        overrides = [setting_v2(setting, inside=place) for setting in overrides]
    return parse(SweepConfig, with_overrides(data, overrides), source=str(path))


def run_sweep(config: SweepConfig, *, out: Path, runner: Runner | None = None) -> dict[str, Any]:
    """Train and evaluate every case with every seed; a sweep that was stopped goes on where it was.

    Args:
        config: the cases.
        out: folder for ``runs/CASE/seed-N``, ``sweep.json`` and ``table.md``, which are written anew after
            every run.
        runner: trains and evaluates one run; :func:`train_and_evaluate` by default.

    Returns:
        ``title``, ``seeds``, ``split``, ``finished`` (how many runs of ``total``), ``cases``: for each
        case ``changes``, ``runs`` and the summary of :func:`helmol.train.sweep_table.summarise`; ``failed``:
        ``case``, ``seed`` and ``error`` of runs that diverged, which are in no mean.

    Raises:
        ConfigError: a case is no valid training configuration, or ``out`` holds a run with another one.
        InputError: the data have no such split.
        BusyError: another process works in ``out``.
        DivergedError: every run diverged.
    """
    if n_processes() > 1:
        raise ConfigError(
            f"this is one of {n_processes()} processes (WORLD_SIZE), and each would make the whole sweep: "
            "start 'helmol sweep' without torchrun"
        )
    _check_names(config.cases)
    plans = {(case, seed): config.training(case, seed) for seed in config.seeds for case in config.cases}
    if runner is None:
        _check_split({settings.data.store for settings in plans.values()}, config.split)
    with Claim(out, folder=True):
        return _run_all(config, plans, out, runner)


def _run_all(
    config: SweepConfig, plans: Mapping[tuple[str, int], TrainConfig], out: Path, runner: Runner | None
) -> dict[str, Any]:
    """Train and evaluate in a folder that is held."""
    rows: dict[str, list[dict[str, Any]]] = {case: [] for case in config.cases}
    failed: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for count, ((case, seed), settings) in enumerate(plans.items(), start=1):
        folder = out / "runs" / slug(case) / f"seed-{seed}"
        log.info("run %d of %d: %s, seed %d", count, len(plans), case, seed)
        try:
            if runner is not None:
                row = runner(settings, folder)
            else:
                row = train_and_evaluate(settings, folder, split=config.split, choose=config.choose)
            rows[case].append({"seed": seed, **row})
        except DivergedError as error:
            log.warning("%s, seed %d: %s", case, seed, error)
            failed.append({"case": case, "seed": seed, "error": str(error)})
        result = {
            "title": config.title,
            "seeds": list(config.seeds),
            "split": config.split,
            "finished": count,
            "total": len(plans),
            "failed": failed,
            "cases": summarise(rows, config.cases),
        }
        write_json(out / "sweep.json", result)
        write_text(out / "table.md", markdown(result))
    if not result["cases"]:
        raise DivergedError(f"every run diverged, the first one: {failed[0]['error']}")
    return result


def _check_names(cases: Iterable[str]) -> None:
    """Raise ConfigError if two cases would share a folder, or one has no name for it."""
    owners: dict[str, str] = {}
    for case in cases:
        if (other := owners.setdefault(slug(case), case)) != case:
            raise ConfigError(f"the cases {other!r} and {case!r} would share the folder {slug(case)!r}")


def _check_split(paths: Iterable[Path], split: str) -> None:
    """Raise InputError, before anything is trained, if there is nothing to evaluate on afterwards."""
    for path in sorted(paths):
        with Store.open(path) as store:
            split_indices(store, split)


def train_and_evaluate(config: TrainConfig, folder: Path, *, split: str, choose: str) -> dict[str, Any]:
    """Return the row of one run: what it cost and its errors on a split; training is done at most once.

    Raises:
        ConfigError: the run in ``folder`` was started with another configuration.
    """
    trained = run(config, out=folder)
    path = folder / f"{split}-{choose}.json"
    if not path.exists():
        table = _evaluate(config, folder, split=split, choose=choose)
        write_json(path, {**table, "row_of": {"split": split, "choose": choose}})
    table = read_json(path)
    with understood(str(path)):
        baselines = {name: part["h_mae_uEh"] for name, part in table["baselines"].items()}
    keys = ("n_molecules", "h_mae_uEh_ci95", "seconds_per_molecule", *FOCK_METRICS)
    return {
        "steps": trained["steps"],
        "cpu_minutes": trained["cpu_seconds"] / 60,
        "parameters": trained["parameters"],
        "target": trained["target"],
        "n_train": trained["n_train"],
        "val_h_mae_uEh": trained[choose]["h_mae_uEh"],
        **{key: table.get(key) for key in keys},
        "baselines_h_mae_uEh": baselines,
    }


def _evaluate(config: TrainConfig, folder: Path, *, split: str, choose: str) -> dict[str, Any]:
    """Return the error table of a finished run on a split."""
    chosen = trained_on(folder)
    with Store.open(config.data.store) as store, torch_settings(config.run) as device:
        model = load_model(folder / "checkpoints" / choose, device)
        places = split_indices(store, split, seen={*chosen["train"], *chosen["val"]})
        return evaluate_model(model, (store[k] for k in places), total=len(places))


def slug(name: str) -> str:
    """Return a name that can be a folder: letters, digits, dots and dashes.

    Raises:
        ConfigError: nothing is left of it.
    """
    text = short_name(re.sub(r"[^\w.]+", "-", name).strip("-.").lower())
    if not text:
        raise ConfigError(f"the case {name!r} needs a name with a letter or digit")
    return text
