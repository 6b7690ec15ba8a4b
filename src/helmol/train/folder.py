"""The run folder: whether it may be used, its log, and what describes the run."""

from __future__ import annotations

import logging
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from helmol import __version__
from helmol.damage import read_json, understood
from helmol.errors import ConfigError, InputError
from helmol.files import entries, plain, write_json, write_text
from helmol.letters import Lines
from helmol.repeats import filtered
from helmol.train.checkpoint import DAMAGED, NEW, OLD, earlier, recover, settle
from helmol.train.updates import SCHEMA

log = logging.getLogger("helmol.train")

FREE_TO_CHANGE = (
    "data.store", "data.cache_mb", "run.device", "run.n_threads", "run.checkpoint_every",
    "run.keep_checkpoints",
)  # fmt: skip
"""Keys that may differ when a run is resumed: a store may have moved (its content hash must agree); the
others change no number but for rounding."""


SPLIT = "split.json"
RECORD, BASELINES = "overlap_floor.json", "baselines.json"
"""What was chosen at the end of a run, and what it has to beat."""

NOT_FINITE = "not_finite.json"
"""The latest batch whose loss or gradient was not finite, and which of its molecules alone make it so."""

RESULTS = ("card.md", "plots/learning_curve.png", RECORD, BASELINES, NOT_FINITE)
"""What a run leaves, besides its checkpoints."""

OWN = (
    "config.yaml", SPLIT, "environment.json", "log.txt", "metrics.csv", "card.md", "plots", RECORD,
    BASELINES, NOT_FINITE,
)  # fmt: skip
"""What may stand in a folder in which a run begins: an earlier one left it whose checkpoints are gone."""

CHECKPOINTS = ("last", "best")


def check_place(folder: Path, resume: str) -> None:
    """Refuse what can be no run folder before anything is made there.

    Raises:
        ConfigError: ``resume`` is neither ``auto`` nor ``never``.
        InputError: the folder is a file.
    """
    if resume not in ("auto", "never"):
        raise ConfigError(f"resume is {resume!r}: expected 'auto' or 'never'")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the run with --out")


def open_folder(folder: Path, resume: str, check: Callable[[Path], object]) -> bool:
    """Make sure a run may use a folder, which is held; return whether there is a checkpoint to resume.

    What a run leaves that was stopped before its first checkpoint blocks no other. A last checkpoint that is
    damaged gives way to the one before it, where there is one.

    Args:
        folder: of the run.
        resume: ``auto`` or ``never``.
        check: raises a HelmolError for a checkpoint that cannot be read.

    Raises:
        InputError: the folder holds something else, or a run that may not be resumed.
    """
    for name in CHECKPOINTS:
        recover(folder / "checkpoints" / name)
    if resume == "auto":
        settle(folder / "checkpoints" / "last", check)
    if (folder / "checkpoints" / "last").exists():
        if resume == "never":
            raise InputError(f"{folder} holds a run: choose another --out, or --resume auto to go on with it")
        return True
    there = entries(folder)
    others = [path.name for path in there if path.name not in OWN and not _is_checkpoints(path)]
    begun = (folder / "config.yaml").exists() or {path.name for path in there} <= {"log.txt"}
    if others or not begun or (resume == "never" and any(path.name != "log.txt" for path in there)):
        what = others[0] if others else there[0].name
        raise InputError(
            f"{folder} is not empty ({what}) and holds no run to resume: choose another --out, or empty it"
        )
    return False


def _is_checkpoints(path: Path) -> bool:
    """Return whether a path is the folder of a run's checkpoints, and holds nothing else."""
    names = {name + suffix for name in CHECKPOINTS for suffix in ("", NEW, OLD)} | {DAMAGED}
    names |= {before.name for before in earlier(path / "last")}
    return path.name == "checkpoints" and path.is_dir() and {p.name for p in entries(path)} <= names


def describe(
    folder: Path, config: Mapping[str, Any], split: Mapping[str, Any], *, device: torch.device
) -> None:
    """Write ``config.yaml``, ``split.json`` and ``environment.json``."""
    settings = plain({"schema": SCHEMA, **config})
    write_text(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    write_json(folder / SPLIT, split)
    write_json(folder / "environment.json", environment(device))


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, commit, device and threads."""
    versions = {"helmol": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "safetensors", "h5py"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "commit": _commit(),
        "platform": platform.platform(),
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
    }


def device_name(device: torch.device) -> str:
    """Return what a device is called by its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the source tree that runs, ``-dirty`` if it has changes; None if it is none."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


BEFORE = {"model.unnatural": 0}
"""What a run did whose configuration does not have a key, because there was no choice yet."""


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path) -> None:
    """Compare the fingerprint of a checkpoint with that of the run that wants to resume it.

    Raises:
        ConfigError: a configuration key, the data or the split differ; the message names the first.
    """
    way_out = "restore it to resume, or train anew with another --out"
    with understood(f"the training state in {folder}"):
        old, new = BEFORE | flat(dict(saved["config"])), flat(plain(now["config"]))
    for key in sorted(old.keys() | new.keys()):
        if key not in FREE_TO_CHANGE and old.get(key) != new.get(key):
            raise ConfigError(
                f"cannot resume {folder}: {key} was {old.get(key)!r} and is {new.get(key)!r}; {way_out}"
            )
    before, after = str(saved.get("content_hash")), now.get("content_hash")
    if after is not None and before != after:
        raise ConfigError(
            f"cannot resume {folder}: the data have changed (content hash {before[:12]}… then, "
            f"{after[:12]}… now); {way_out}"
        )


def trained_on(folder: Path) -> dict[str, list[str]]:
    """Return the ids of the molecules that a run trains (``train``) and validates (``val``) on.

    Raises:
        InputError: ``split.json`` is not there, or damaged.
    """
    found = read_json(folder / SPLIT)
    with understood(str(folder / SPLIT)):
        return {role: [str(id) for id in found[role]] for role in ("train", "val")}


def check_split(folder: Path, split: Mapping[str, list[str]]) -> None:
    """Raise ConfigError if the run was started with other molecules (the store's splits were changed)."""
    saved = trained_on(folder)
    for role, ids in split.items():
        if saved[role] != ids:
            raise ConfigError(
                f"cannot resume {folder}: the molecules of the split {role!r} have changed since the start "
                "(split.json has the old ones); restore them, or train anew with another --out"
            )


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as ``key.sub``."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


class _LogFile(logging.FileHandler):
    """A log file that says nothing when the disk is full: the error that matters comes from elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            self.stream = None


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append what helmol logs to a file, repeated warnings once, and the traceback of what ends the run."""
    root = logging.getLogger("helmol")
    handler = _LogFile(path, delay=True, encoding="utf-8")
    handler.setFormatter(Lines("%(asctime)s %(name)s %(levelname)s %(message)s"))
    level = root.level
    if not root.isEnabledFor(logging.INFO):
        root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        with filtered(handler):
            yield
    except Exception as error:
        record = log.makeRecord(
            log.name, logging.ERROR, __file__, 0, "the run ended with %s", (type(error).__name__,),
            (type(error), error, error.__traceback__),
        )  # fmt: skip
        handler.handle(record)
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
        root.setLevel(level)
