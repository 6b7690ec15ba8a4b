"""Several processes that train one model together, forked: they start in no time."""

import os
import socket
from collections.abc import Callable
from typing import Any

import torch

from forked import together
from helmol.train.ranks import Ranks, joined

# Loads what torch needs for it, seconds, once instead of in every child; off it is already.
torch.use_deterministic_algorithms(False)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def group(n: int, function: Callable[[Ranks], Any]) -> list[dict[str, Any]]:
    """Call a function in each of several processes that know each other; return their outcomes."""
    port = free_port()

    def member(rank: int) -> Any:
        os.environ.update(
            WORLD_SIZE=str(n), RANK=str(rank), LOCAL_RANK=str(rank), MASTER_ADDR="localhost",
            MASTER_PORT=str(port),
        )  # fmt: skip
        with joined() as ranks:
            return function(ranks)

    return together([lambda rank=rank: member(rank) for rank in range(n)])


def results(outcomes: list[dict[str, Any]]) -> list[Any]:
    """Return what all have returned."""
    assert all("ok" in outcome for outcome in outcomes), outcomes
    return [outcome["ok"] for outcome in outcomes]
