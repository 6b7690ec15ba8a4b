"""Trained models that come with helmol: where each is, and its card.

Knows: names, folders, cards. Does not know: torch, what a model is.

A model is a folder here with ``model.safetensors`` and ``model.json``, as any model folder, and
``card.json``: what it was trained on and how large its errors are on molecules that it has not seen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helmol.damage import read_json

FOLDER = Path(__file__).parent
WEIGHTS, CARD = "model.safetensors", "card.json"


def shipped_names() -> tuple[str, ...]:
    """Return the names of the models that come with helmol."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{WEIGHTS}")))


def shipped_folder(name: str | Path) -> Path | None:
    """Return the folder of a model that comes with helmol, ``None`` if there is none of this name."""
    return FOLDER / str(name) if str(name) in shipped_names() else None


def shipped_card(name: str) -> dict[str, Any]:
    """Return the card of a model that comes with helmol."""
    return read_json(FOLDER / name / CARD)
