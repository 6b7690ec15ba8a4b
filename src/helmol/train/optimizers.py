"""AdamW, or Muon for the matrices inside the network and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from helmol.errors import TrainingError
from helmol.train.config import OptimizerConfig
from helmol.train.muon import Muon
from helmol.train.ranks import ALONE, Ranks

BACKBONE = ("backbone.", "matrix_input.")
"""How names of parameters begin that make features; the others belong to heads."""


def is_hidden_matrix(name: str, parameter: nn.Parameter, module: nn.Module | None) -> bool:
    """Return whether Muon updates a parameter: a matrix of the backbone, no embedding, norm or input."""
    return (
        name.startswith("backbone.")
        and parameter.ndim == 2
        and isinstance(module, (nn.Linear, nn.ParameterList))
    )


class Optimizers:
    """Hold one or two optimizers as one: step, learning rates, a flat state by parameter name.

    Args:
        model: whose parameters to train.
        config: rates, momenta, decay.
        ranks: processes that train the model together.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig, ranks: Ranks = ALONE) -> None:
        modules = dict(model.named_modules())
        hidden: list[tuple[str, nn.Parameter]] = []
        others: dict[tuple[bool, bool], list[tuple[str, nn.Parameter]]] = {
            (backbone, matrix): [] for backbone in (False, True) for matrix in (True, False)
        }
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            owner = modules.get(name.rpartition(".")[0])
            if config.kind == "muon" and is_hidden_matrix(name, parameter, owner):
                hidden.append((name, parameter))
            else:
                others[name.startswith(BACKBONE), parameter.ndim > 1].append((name, parameter))
        self._names: dict[str, list[str]] = {"adamw": [n for some in others.values() for n, _ in some]}
        self._all: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(
                [
                    {
                        "params": [p for _, p in some],
                        "weight_decay": config.weight_decay if matrix else 0.0,
                        "backbone": backbone,
                    }
                    for (backbone, matrix), some in others.items()
                ],
                lr=config.lr,
                betas=config.betas,
                fused=True,
            )
        }
        self._peak = {"adamw": config.lr, "muon": config.muon_lr}
        if hidden:
            self._names["muon"] = [name for name, _ in hidden]
            self._all["muon"] = Muon(
                [p for _, p in hidden],
                lr=config.muon_lr,
                momentum=config.momentum,
                weight_decay=config.weight_decay,
                ranks=ranks,
            )

    def set_lr(self, factor: float, *, backbone: float = 1.0) -> float:
        """Set every learning rate to its peak times ``factor`` (inside the backbone also times ``backbone``).

        Returns:
            AdamW's outside the backbone.
        """
        for name, optimizer in self._all.items():
            for group in optimizer.param_groups:
                inside = name == "muon" or group["backbone"]
                group["lr"] = self._peak[name] * factor * (backbone if inside else 1.0)
        return self._peak["adamw"] * factor

    def step(self) -> None:
        """Update the parameters from their gradients."""
        for optimizer in self._all.values():
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self._all.values():
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return every state tensor as ``optimizer/quantity/parameter name``."""
        return dict(self._state())

    def _state(self) -> Iterator[tuple[str, Tensor]]:
        for kind, optimizer in self._all.items():
            for index, entries in optimizer.state_dict()["state"].items():
                for quantity, value in entries.items():
                    yield f"{kind}/{quantity}/{self._names[kind][index]}", torch.as_tensor(value)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore :meth:`state`.

        Raises:
            TrainingError: the tensors belong to other parameters.
        """
        for kind, optimizer in self._all.items():
            place = {name: index for index, name in enumerate(self._names[kind])}
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                owner, quantity, name = key.split("/", 2)
                if owner == kind:
                    if name not in place:
                        raise TrainingError(
                            f"the checkpoint's optimizer state names an unknown parameter {name!r}"
                        )
                    entries.setdefault(place[name], {})[quantity] = value
            optimizer.load_state_dict(
                {"state": entries, "param_groups": optimizer.state_dict()["param_groups"]}
            )
