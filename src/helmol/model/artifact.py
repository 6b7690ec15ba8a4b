"""A model as a folder: ``model.safetensors`` (weights, statistics) and ``model.json`` (all else)."""

from __future__ import annotations

import json
from dataclasses import asdict
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
from helmol.graph.batch import Key
from helmol.model.config import ModelConfig
from helmol.model.domain import Domain
from helmol.model.linear import Functions, Label, LinearPart
from helmol.model.network import HamiltonianModel
from helmol.model.reference import EnergyReference
from helmol.model.statistics import Statistics

SCHEMA = 1


def save_model(folder: Path, network: HamiltonianModel, *, extra: dict[str, Any] | None = None) -> None:
    """Write a model folder; each file is replaced atomically, the description last."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "model.safetensors") as path:
        save_file(model_tensors(network), path)
    linear, reference = network.linear, network.reference
    description = {
        "schema": SCHEMA,
        "helmol": __version__,
        "dtype": str(network.dtype).removeprefix("torch."),
        "model": network.config.model_dump(),
        "domain": network.domain.to_json(),
        "unit_Eh": network.statistics.unit,
        "overlap_floor": network.overlap_floor,
        "linear": None if linear is None else _describe_linear(linear),
        "energy_scale_Eh": reference.scale,
        "force_scale_Eh_per_bohr": reference.force_scale,
        **(extra or {}),
    }
    write_json(folder / "model.json", description)


def model_tensors(network: HamiltonianModel) -> dict[str, Tensor]:
    """Return by name all numbers that a model has learnt: weights, statistics, maps, element energies."""
    statistics, reference = network.statistics, network.reference
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"mean.{z}": value for z, value in statistics.mean.items()}
    tensors |= {f"scale.{z}": value for z, value in statistics.scale.items()}
    tensors |= {f"pair_scale.{_text(key)}": value for key, value in statistics.pair_scale.items()}
    linear = network.linear
    if linear is not None:
        tensors |= {f"linear.{_label(label)}": value for label, value in linear.maps.items()}
    if network.energy is not None:
        tensors |= {"energy.per_element": reference.per_element, "energy.span": reference.span}
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def set_overlap_floor(folder: Path, floor: float) -> None:
    """Note the floor of the overlap in a model folder that is there already."""
    description = json.loads((folder / "model.json").read_text())
    write_json(folder / "model.json", {**description, "overlap_floor": floor})


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


def describe_model(folder: Path) -> tuple[ModelConfig, Domain, dict[str, Any]]:
    """Read what a model folder says of its network, domain and the rest, without the weights.

    Raises:
        InputError: no model there, or its description is damaged or of a newer helmol.
    """
    try:
        data = json.loads((folder / "model.json").read_text())
    except FileNotFoundError as error:
        raise InputError(f"no model in {folder}: model.json is missing") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the model in {folder} is damaged: {error}") from error
    if data.get("schema") != SCHEMA:
        raise InputError(f"the model in {folder} has schema {data.get('schema')}, this helmol reads {SCHEMA}")
    data["model"].setdefault("radial", "edge")  # written before there was a choice
    return parse(ModelConfig, data["model"], source=str(folder)), Domain.from_json(data["domain"]), data


def load_model(folder: Path, device: torch.device | str = "cpu") -> HamiltonianModel:
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
    network = HamiltonianModel(config, domain)
    network = network.to(getattr(torch, data["dtype"]))
    weights = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"the weights in {folder} do not fit its description: {str(error)[:200]}") from error
    mean, scale, pair_scale, maps = {}, {}, {}, {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "mean":
            mean[int(rest)] = value
        elif kind == "scale":
            scale[int(rest)] = value
        elif kind == "pair_scale":
            pair_scale[_key(rest)] = value
        elif kind == "linear":
            maps[tuple(int(part) for part in rest.split(","))] = value
    if data.get("linear") is not None:
        described = data["linear"]
        network.linear = LinearPart(
            tuple(described["elements"]), described["lmax"], described["cutoff"],
            Functions(**described["functions"]), maps, described.get("n_spins", 1),
            tuple((int(charge), int(spin)) for charge, spin in described.get("states", [])),
        )  # fmt: skip
    if network.energy is not None:
        scales = float(data["energy_scale_Eh"]), float(data["force_scale_Eh_per_bohr"])
        network.reference = EnergyReference(tensors["energy.per_element"], tensors["energy.span"], *scales)
    network.statistics = Statistics(mean, scale, pair_scale, float(data["unit_Eh"]))
    network.overlap_floor = float(data.get("overlap_floor", 0.0))
    return network.to(device).eval()


def _describe_linear(linear: LinearPart) -> dict[str, Any]:
    """Return all of a linear part but its maps."""
    return {
        "elements": list(linear.elements),
        "lmax": linear.lmax,
        "cutoff": linear.cutoff,
        "functions": asdict(linear.functions),
        "n_spins": linear.n_spins,
        "states": [list(state) for state in linear.states],
    }


def _label(label: Label) -> str:
    return ",".join(str(number) for number in label)


def _text(key: Key) -> str:
    return "-".join(",".join(str(l) for l in signature) for signature in key)


def _key(text: str) -> Key:
    return tuple(tuple(int(l) for l in part.split(",")) for part in text.split("-"))
