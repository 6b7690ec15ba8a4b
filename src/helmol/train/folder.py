"""The run folder: whether it may be used, its log, and what describes the run."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from helmol import __version__
from helmol.errors import ConfigError, InputError
from helmol.files import plain, write_json, write_text
from helmol.train.checkpoint import recover

log = logging.getLogger("helmol.train")

FREE_TO_CHANGE = ("data", "device", "n_threads", "cache_mb", "checkpoint_every")
"""Keys that may differ when a run is resumed: a store may have moved (its content hash must agree); the
others change no number but for rounding."""


def open_folder(folder: Path, resume: str) -> bool:
    """Make sure a run may use a folder; return whether there is a checkpoint to resume.

    Raises:
        ConfigError: ``resume`` is neither ``auto`` nor ``never``.
        InputError: the folder holds something else, or a run that may not be resumed.
    """
    if resume not in ("auto", "never"):
        raise ConfigError(f"resume is {resume!r}: expected 'auto' or 'never'")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder for the run with --out")
    for name in ("last", "best"):
        recover(folder / "checkpoints" / name)
    if (folder / "checkpoints" / "last").exists():
        if resume == "never":
            raise InputError(f"{folder} holds a run: choose another --out, or --resume auto to go on with it")
        return True
    if (
        folder.exists()
        and any(folder.iterdir())
        and (resume == "never" or not (folder / "config.yaml").exists())
    ):
        raise InputError(
            f"{folder} is not empty and holds no run to resume: choose another --out, or empty it"
        )
    return False


def describe(
    folder: Path, config: Mapping[str, Any], split: Mapping[str, Any], *, device: torch.device
) -> None:
    """Write ``config.yaml``, ``split.json`` and ``environment.json``."""
    write_text(folder / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
    write_json(folder / "split.json", split)
    write_json(folder / "environment.json", environment(device))


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, commit, device and threads."""
    versions = {"helmol": __version__, "python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "safetensors", "h5py"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else platform.processor() or platform.machine()
    )
    return {
        "versions": versions,
        "commit": _commit(),
        "platform": platform.platform(),
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    """Return the commit of the source tree that runs, ``-dirty`` if it has changes; None if it is none."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], *, folder: Path) -> None:
    """Compare the fingerprint of a checkpoint with that of the run that wants to resume it.

    Raises:
        ConfigError: a configuration key, the data or the split differ; the message names the first.
    """
    way_out = "restore it to resume, or train anew with another --out"
    old, new = _flat(saved["config"]), _flat(plain(now["config"]))
    for key in sorted(old.keys() | new.keys()):
        if key not in FREE_TO_CHANGE and old.get(key) != new.get(key):
            raise ConfigError(
                f"cannot resume {folder}: {key} was {old.get(key)!r} and is {new.get(key)!r}; {way_out}"
            )
    if "content_hash" in now and saved["content_hash"] != now["content_hash"]:
        raise ConfigError(
            f"cannot resume {folder}: the data have changed (content hash {saved['content_hash'][:12]}… "
            f"then, {now['content_hash'][:12]}… now); {way_out}"
        )


def check_split(folder: Path, split: Mapping[str, list[str]]) -> None:
    """Raise ConfigError if the run was started with other molecules (the store's splits were changed)."""
    saved = json.loads((folder / "split.json").read_text())
    for role, ids in split.items():
        if saved[role] != ids:
            raise ConfigError(
                f"cannot resume {folder}: the molecules of the split {role!r} have changed since the start "
                "(split.json has the old ones); restore them, or train anew with another --out"
            )


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested keys as ``key.sub``."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        result |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return result


class _LogFile(logging.FileHandler):
    """A log file that says nothing when the disk is full: the error that matters comes from elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop the record."""

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            self.stream = None  # type: ignore[assignment]


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append what helmol logs to a file, and the traceback of an error that ends the run."""
    root = logging.getLogger("helmol")
    handler = _LogFile(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    level = root.level
    if not root.isEnabledFor(logging.INFO):
        root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
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
