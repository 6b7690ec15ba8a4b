"""A model as a folder: ``model.safetensors`` (its whole state) and ``model.json`` (what it is)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load, save
from torch import Tensor

from helmol import __version__, hub
from helmol.config import parse
from helmol.damage import DAMAGE, one_line, understood
from helmol.digests import read_described, read_description, write_described
from helmol.errors import InputError
from helmol.model.config import ModelConfig
from helmol.model.model import Model
from helmol.model.updates import description_v2, state_v2
from helmol.shipped import shipped_folder, shipped_names
from helmol.target import Domain

NAME = "model"
"""Of the two files."""
SCHEMA = 2
"""Of a model folder. 1: helmol 0.1; see :mod:`helmol.model.updates`."""


STORED = {torch.float32: torch.float16, torch.float64: torch.float32}
"""Type in which numbers of another are kept in half the room."""


def save_model(
    folder: Path, model: Model, *, extra: dict[str, Any] | None = None, half: bool = False
) -> None:
    """Write a model folder; each file is replaced atomically, the description last.

    Args:
        folder: where to.
        model: what to write.
        extra: further entries of the description.
        half: keep numbers in half the room, weights with 11 bits instead of 24; a model that is read computes
            in its own precision all the same.

    Raises:
        InputError: a weight is too large for half the room.
    """
    description = {
        "schema": SCHEMA,
        "helmol": __version__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "model": model.config.model_dump(mode="json"),
        "domain": model.domain.to_json(),
        "targets": {name: cast(Any, target).description() for name, target in model.targets.items()},
        **(extra or {}),
    }
    tensors = model_tensors(model)
    if half:
        tensors = {name: _halved(name, value) for name, value in tensors.items()}
    write_described(folder, NAME, save(tensors), description)


def _halved(name: str, value: Tensor) -> Tensor:
    """Return a tensor in half the room."""
    short = value.to(STORED.get(value.dtype, value.dtype))
    if not torch.equal(short.isfinite(), value.isfinite()):
        raise InputError(f"{name} holds numbers too large to be kept in half the room")
    return short


def model_tensors(model: Model) -> dict[str, Tensor]:
    """Return by name all numbers that a model has learnt."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}


def find_model(path: Path | str) -> Path:
    """Return the model folder of a run folder (its best checkpoint), of a model folder, or of a name.

    Names are those of the models that come with helmol (:mod:`helmol.shipped`); a model in a folder of that
    name goes before. ``hf://OWNER/NAME`` is a model on the Hugging Face hub: the copy in the hub's cache,
    which is fetched at the first use (:func:`helmol.hub.fetch` renews it).

    Raises:
        InputError: there is no model at ``path``.
    """
    if (name := hub.hub_name(path)) is not None:
        return hub.fetch(name, renew=False)
    folder = Path(path)
    candidates = [folder / "checkpoints" / "best", folder]
    found = next((c for c in candidates if (c / "model.safetensors").is_file()), None)
    found = found or shipped_folder(path)
    if found is None:
        shipped = ", ".join(shipped_names()) or "none"
        raise InputError(
            f"no model in {folder}: expected a run folder with checkpoints/best/model.safetensors, "
            f"a folder with model.safetensors, a model that comes with helmol ({shipped}), or one on a hub "
            f"({hub.PREFIX}OWNER/NAME)"
        )
    return found


def read_model_description(folder: Path) -> dict[str, Any]:
    """Return ``model.json`` as the newest schema has it; ``schema`` stays that of the file.

    Raises:
        InputError: no model there, or its description is damaged or of a newer helmol.
    """
    return _newest(folder, read_description(folder / f"{NAME}.json"))


def _newest(folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Bring a description into the newest schema."""
    if data.get("schema") not in (1, SCHEMA):
        raise InputError(
            f"the model in {folder} has schema {data.get('schema')}, this helmol {__version__} reads 1 to "
            f"{SCHEMA}: update helmol to use it"
        )
    with understood(str(folder / f"{NAME}.json")):
        return description_v2(data) if data["schema"] == 1 else data


def describe_model(folder: Path) -> tuple[ModelConfig, Domain, dict[str, Any]]:
    """Read what a model folder says of its network, domain and the rest, without the weights.

    Raises:
        InputError: no model there, or its description is damaged or of a newer helmol.
    """
    data = read_model_description(folder)
    return *_parsed(folder, data), data


def _parsed(folder: Path, data: dict[str, Any]) -> tuple[ModelConfig, Domain]:
    """Return configuration and domain of a description."""
    with understood(str(folder / f"{NAME}.json")):
        return parse(ModelConfig, data["model"], source=str(folder)), Domain.from_json(data["domain"])


def load_model(folder: Path, device: torch.device | str = "cpu") -> Model:
    """Read a model folder; nothing in it is executed.

    Raises:
        InputError: no model there, files damaged or changed, or written by a newer helmol.
    """
    content, data = read_described(folder, NAME)
    data = _newest(folder, data)
    config, domain = _parsed(folder, data)
    tensors = load(content)
    with understood(f"the description of the model in {folder}"):
        model = Model(config, domain, data["targets"]).to(getattr(torch, data["dtype"]))
    try:
        model.load_state_dict(state_v2(model, tensors, data) if data["schema"] == 1 else tensors)
    except DAMAGE as error:
        raise InputError(f"the weights in {folder} do not fit its description: {one_line(error)}") from error
    return model.to(device).eval()
