"""Models of before, as models of today: one function for each step of the schema.

Schema 1 (helmol 0.1) kept a tensor for every read-out and loose statistics by element; schema 2 is the
``state_dict`` of :class:`helmol.model.Model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helmol.graph.batch import Key
from helmol.graph.blocks import key_name
from helmol.model.model import Model
from helmol.target import LinearPart, Means

NOT_WEIGHTS = ("targets.", "matrix_input.known.")
"""How names begin of what is known before training."""


def config_v2(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a network of schema 1 in that of schema 2."""
    rest = {key: value for key, value in data.items() if key not in ("hamiltonian", "energy")}
    rest.setdefault("radial", "edge")  # written before there was a choice
    heads: dict[str, Any] = {"fock": {}} if data.get("hamiltonian", True) else {}
    if data.get("energy") is not None:
        heads["energy"] = dict(data["energy"])
    return {**rest, "heads": heads}


def description_v2(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``model.json`` of schema 1 in the form of schema 2; maps of a linear part have no shapes yet."""
    config = config_v2(data["model"])
    targets: dict[str, Any] = {}
    if "fock" in config["heads"]:
        targets["fock"] = {"means": {}}
        if data.get("linear") is not None:
            linear = {"n_spins": 1, "states": [], **data["linear"], "maps": {}}
            targets["fock"] = {"linear": linear, "means": {}}
    if "energy" in config["heads"]:
        targets["energy"] = {"rank": 0}
    return {**data, "model": config, "targets": targets}


@dataclass(frozen=True)
class Piece:
    """Say where a tensor of schema 1 stands in one of schema 2: which rows, and whether transposed."""

    name: str
    rows: slice
    transposed: bool


def pieces_v1(model: Model) -> dict[str, list[Piece]]:
    """Return for every parameter that schema 1 had in pieces what they are."""
    plan: dict[str, list[Piece]] = {}
    if "fock" in model.heads:
        head = model.fock_head
        for l, slots in enumerate(head.slots):
            plan[f"heads.fock.weights.{l}"] = [
                Piece(f"head.readouts.{key_name(key)}.weights.{l}", slots[key], True)
                for key in slots.keys
                if slots[key].start < slots[key].stop
            ]
        plan["heads.fock.bias"] = [
            Piece(f"head.readouts.{key_name(key)}.bias", head.bias_slots[key], False)
            for key in head.bias_slots.keys
        ]
    if model.matrix_input is not None:
        for l, slots in enumerate(model.matrix_input.slots):
            plan[f"matrix_input.weights.{l}"] = [
                Piece(f"backbone.given.maps.{key_name(key)}.{l}", slots[key], False)
                for key in slots.keys
                if slots[key].start < slots[key].stop
            ]
    return plan


def name_v1(name: str) -> str:
    """Return what schema 1 called a parameter that it had whole."""
    for new, old in (("heads.fock.", "head."), ("heads.energy.", "energy.")):
        if name.startswith(new):
            return old + name.removeprefix(new)
    return name


def weights_v2(model: Model, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return parameters and buffers of the network, by today's names, of those of schema 1.

    Args:
        model: whose shapes are wanted.
        old: by the names of schema 1; of tensors in pieces some may be missing, which count as zero.

    Raises:
        KeyError: a tensor is missing.
    """
    plan, found = pieces_v1(model), {}
    for name, value in model.state_dict().items():
        if name.startswith(NOT_WEIGHTS):
            continue
        if name not in plan:
            found[name] = old[name_v1(name)]
            continue
        there = [piece for piece in plan[name] if piece.name in old]
        if not there and plan[name]:
            raise KeyError(plan[name][0].name)
        joined = torch.zeros_like(value)
        for piece in there:
            part = old[piece.name]
            joined[piece.rows] = part.T if piece.transposed else part
        found[name] = joined
    return found


def state_v2(model: Model, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a model folder of schema 1; a linear part is given the shapes of its maps.

    Args:
        model: made from :func:`description_v2`.
        tensors: of ``model.safetensors``.
        data: ``model.json``.
    """
    network = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    _fill_targets(model, tensors, data)
    if model.matrix_input is not None:
        _fill_standard(model, network)
    known = {n: t for n, t in model.state_dict().items() if n.startswith(NOT_WEIGHTS)}
    return {**weights_v2(model, network), **known}


@torch.no_grad()
def _fill_targets(model: Model, tensors: Mapping[str, Tensor], data: Mapping[str, Any]) -> None:
    """Put statistics, linear part and element energies of schema 1 into the targets of a model."""
    if "fock" in model.targets:
        target = model.fock_target
        if "linear" in target.parts:
            blank = target.parts["linear"]
            maps = {
                tuple(int(number) for number in name.removeprefix("linear.").split(",")): value
                for name, value in tensors.items()
                if name.startswith("linear.")
            }
            if isinstance(blank, LinearPart):
                target.parts["linear"] = LinearPart.of_maps(
                    blank.elements,
                    blank.lmax,
                    blank.cutoff,
                    blank.functions,
                    maps,
                    blank.n_spins,
                    blank.states,
                )
        means = Means(model.domain.basis, model.domain.n_spins)
        target.parts["means"] = means
        for number in model.domain.basis.elements:
            means.elements.of(number).copy_(tensors[f"mean.{number}"])
            target.scale.elements.of(number).copy_(tensors[f"scale.{number}"])
        for key in target.scale.pair_slots.keys:
            target.scale.of_pair(key).copy_(tensors[f"pair_scale.{_text(key)}"])
        target.scale.unit.fill_(float(data["unit_Eh"]))
        target.overlap_floor.fill_(float(data.get("overlap_floor", 0.0)))
    if "energy" in model.targets:
        scales = float(data["energy_scale_Eh"]), float(data["force_scale_Eh_per_bohr"])
        model.energy_target.set(tensors["energy.per_element"], tensors["energy.span"], *scales)


@torch.no_grad()
def _fill_standard(model: Model, network: Mapping[str, Tensor]) -> None:
    """Put centre and scale of the read matrices of schema 1 into a model."""
    reader = model.matrix_input
    if reader is None:
        return
    for number in model.domain.basis.elements:
        reader.known.mean.of(number).copy_(network[f"backbone.given.mean_{number}"])
        reader.known.inverse.of(number).copy_(network[f"backbone.given.inverse_{number}"])
    for key in reader.known.pair_slots.keys:
        reader.known.inverse_of(key).copy_(network[f"backbone.given.inverse_{key_name(key)}"])


def _text(key: Key) -> str:
    """Return how schema 1 wrote a kind of pair."""
    return "-".join(",".join(str(l) for l in signature) for signature in key)
