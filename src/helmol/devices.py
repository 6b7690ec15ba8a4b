"""Which device torch computes on."""

from __future__ import annotations

from helmol.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda", "mps")
"""Names that are understood; ``cuda:1`` is, too."""


def available() -> dict[str, bool]:
    """Return which kinds of device this machine has."""
    import torch

    return {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


def resolve_device(name: str) -> str:
    """Return ``"cuda"`` (where there is one) or ``"cpu"`` for ``"auto"``, else the name itself.

    Raises:
        ConfigError: the device is not there.
    """
    there = available()
    if name == "auto":
        return "cuda" if there["cuda"] else "cpu"
    if not there.get(name.split(":")[0], False):
        raise ConfigError(
            f"device {name!r} is not available here: use auto or one of "
            f"{', '.join(kind for kind in there if there[kind])}"
        )
    return name
