"""A model as a folder: ``model.safetensors`` (its whole state) and ``model.json`` (what it is)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from helmol import __version__
from helmol.config import parse
from helmol.errors import InputError
from helmol.files import replacing, write_json
from helmol.model.config import ModelConfig
from helmol.model.model import Model
from helmol.model.updates import description_v2, state_v2
from helmol.target import Domain

SCHEMA = 2
"""Of a model folder. 1: helmol 0.1; see :mod:`helmol.model.updates`."""


def save_model(folder: Path, model: Model, *, extra: dict[str, Any] | None = None) -> None:
    """Write a model folder; each file is replaced atomically, the description last."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.safetensors") as path:
        save_file(model_tensors(model), path)
    description = {
        "schema": SCHEMA,
        "helmol": __version__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "model": model.config.model_dump(mode="json"),
        "domain": model.domain.to_json(),
        "targets": {name: target.description() for name, target in model.targets.items()},
        **(extra or {}),
    }
    write_json(folder / "model.json", description)


def model_tensors(model: Model) -> dict[str, Tensor]:
    """Return by name all numbers that a model has learnt."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}


def find_model(path: Path | str) -> Path:
    """Return the model folder of a run folder (its best checkpoint), or a model folder itself.

    Raises:
        InputError: there is no model at ``path``.
    """
    folder = Path(path)
    candidates = [folder / "checkpoints" / "best", folder]
    found = next((c for c in candidates if (c / "model.safetensors").is_file()), None)
    if found is None:
        raise InputError(
            f"no model in {folder}: expected a run folder with checkpoints/best/model.safetensors "
            "or a folder with model.safetensors"
        )
    return found


def read_description(folder: Path) -> dict[str, Any]:
    """Return ``model.json`` as the newest schema has it; ``schema`` stays that of the file.

    Raises:
        InputError: no model there, or its description is damaged or of a newer helmol.
    """
    try:
        data = json.loads((folder / "model.json").read_text())
    except FileNotFoundError as error:
        raise InputError(f"no model in {folder}: model.json is missing") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the model in {folder} is damaged: {error}") from error
    if data.get("schema") not in (1, SCHEMA):
        raise InputError(
            f"the model in {folder} has schema {data.get('schema')}, this helmol {__version__} reads 1 to "
            f"{SCHEMA}: update helmol to use it"
        )
    return description_v2(data) if data["schema"] == 1 else data


def describe_model(folder: Path) -> tuple[ModelConfig, Domain, dict[str, Any]]:
    """Read what a model folder says of its network, domain and the rest, without the weights.

    Raises:
        InputError: no model there, or its description is damaged or of a newer helmol.
    """
    data = read_description(folder)
    return parse(ModelConfig, data["model"], source=str(folder)), Domain.from_json(data["domain"]), data


def load_model(folder: Path, device: torch.device | str = "cpu") -> Model:
    """Read a model folder; nothing in it is executed.

    Raises:
        InputError: no model there, files damaged, or written by a newer helmol.
    """
    config, domain, data = describe_model(folder)
    try:
        tensors = load_file(folder / "model.safetensors", device="cpu")
    except FileNotFoundError as error:
        raise InputError(f"no model in {folder}: {Path(error.filename).name} is missing") from error
    except SafetensorError as error:
        raise InputError(f"the model in {folder} is damaged: {error}") from error
    model = Model(config, domain, data["targets"]).to(getattr(torch, data["dtype"]))
    try:
        model.load_state_dict(state_v2(model, tensors, data) if data["schema"] == 1 else tensors)
    except (RuntimeError, KeyError) as error:
        raise InputError(f"the weights in {folder} do not fit its description: {str(error)[:200]}") from error
    return model.to(device).eval()
