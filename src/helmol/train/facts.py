"""What several processes of one run must have in common, and the table of who they are."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import helmol
from helmol.errors import ConfigError
from helmol.files import plain
from helmol.train.data import ShareStream
from helmol.train.folder import FREE_TO_CHANGE, device_name, flat

log = logging.getLogger("helmol.train")

LARGEST_IMBALANCE = 0.1
"""By how much the fullest share of a batch may exceed the mean without a warning."""


@dataclass(frozen=True)
class Facts:
    """Hold what one process says of itself.

    Attributes:
        place: where it is, in words for the table.
        alike: by name what must be the same in all.
        config: by key the settings that must be the same in all.
    """

    place: dict[str, str]
    alike: dict[str, str]
    config: dict[str, Any]


def facts(fingerprint: Mapping[str, Any], device: torch.device) -> Facts:
    """Return what this process says of itself.

    Args:
        fingerprint: configuration and ``content_hash`` of the data.
        device: that it computes on.
    """
    place = {
        "machine": socket.gethostname(),
        "process": str(os.getpid()),
        "device": str(device),
        "name": device_name(device),
        "threads": str(torch.get_num_threads()),
    }
    alike = {
        "version of helmol": helmol.__version__,
        "code of helmol": code_digest(),
        "version of torch": torch.__version__.partition("+")[0],
        "data (content hash)": str(fingerprint["content_hash"]),
        "kind of device": device.type,
    }
    settings = flat(plain(fingerprint["config"]))
    return Facts(place, alike, {key: settings[key] for key in settings if key not in FREE_TO_CHANGE})


def code_digest() -> str:
    """Return a digest of the source of helmol."""
    root, digest = Path(helmol.__file__).parent, hashlib.blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def check_alike(there: Sequence[Facts]) -> None:
    """Compare the processes of a run.

    Raises:
        ConfigError: two differ; the message names the first difference.
    """
    first = there[0]
    for rank, other in enumerate(there[1:], start=1):
        differences = [
            (name, mine.get(name), theirs.get(name))
            for mine, theirs in ((first.alike, other.alike), (first.config, other.config))
            for name in dict.fromkeys([*mine, *theirs])
            if mine.get(name) != theirs.get(name)
        ]
        if differences:
            name, mine, theirs = differences[0]
            raise ConfigError(
                f"the processes of this run disagree on {name}: {mine!r} in process 0 on "
                f"{first.place['machine']}, {theirs!r} in process {rank} on {other.place['machine']}: start "
                "all with the same helmol, data, configuration and kind of device"
            )


def introduce(there: Sequence[Facts], stream: ShareStream, budget: int) -> None:
    """Log the table of processes, and how evenly they share the batches.

    Args:
        there: the processes.
        stream: where the batches come from.
        budget: edges per batch.
    """
    if len(there) == 1:
        return
    columns = ["rank", *there[0].place]
    rows = [columns, *([str(rank), *one.place.values()] for rank, one in enumerate(there))]
    widths = [max(len(row[k]) for row in rows) for k in range(len(columns))]
    log.info("%d processes share every batch:", len(there))
    for row in rows:
        log.info(
            "  %s", "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    excess = stream.imbalance()
    log.info("the fullest share of a batch has %.1f %% more edges than the mean", 100 * excess)
    if excess > LARGEST_IMBALANCE:
        log.warning(
            "shares differ by more than %.0f %%, so that processes wait for each other: raise "
            "schedule.edges_per_batch (%d, of all processes together)",
            100 * LARGEST_IMBALANCE, budget,
        )  # fmt: skip
