"""Loss and gradient of a batch that processes share; what is done if memory runs out or numbers do."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from helmol.bench.estimate import estimate
from helmol.errors import TrainingError
from helmol.graph import Batch
from helmol.model import Model
from helmol.train.data import Share
from helmol.train.objective import Loss
from helmol.train.ranks import Ranks

log = logging.getLogger("helmol.train")

PARTS = 4
"""In so many parts pairs go through the network where memory is short."""


class _Full(Exception):
    """Memory has run out in another process before this one was done."""


class Gradient:
    """Compute the loss of a batch and leave its gradient in the parameters, in all processes the same.

    Where memory runs out, in whichever process, all do the step once more with less: the pairs of a batch in
    parts, what the gradient needs computed again instead of kept. So the batch is the same and its
    gradient, up to rounding. Later shares of as many edges begin that way.

    Args:
        model: what is trained.
        loss: of a model for a batch.
        ranks: the processes.
        budget: edges per batch, for the message.
    """

    def __init__(self, model: Model, loss: Loss, ranks: Ranks, *, budget: int) -> None:
        self._model, self._loss, self._ranks, self._budget = model, loss, ranks, budget
        self._weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._too_many = math.inf

    def __call__(self, share: Share, done: float) -> float:
        """Return the loss of the whole batch.

        Args:
            share: this process's.
            done: share of the schedule that is over.

        Raises:
            TrainingError: memory runs out with less, too.
        """
        for again in (False, True):
            value = self._once(share, done, frugal=again or share.batch.n_edges >= self._too_many)
            if value is not None:
                return value
            self._forget()
            if self._failed[self._ranks.rank]:
                self._too_many = min(self._too_many, share.batch.n_edges)
            if not again:
                log.warning("out of memory: once more with the pairs in %d parts", PARTS)
        texts = self._ranks.gather(self._advice(share))
        raise TrainingError(texts[int(self._failed.argmax())])

    def _once(self, share: Share, done: float, *, frugal: bool) -> float | None:
        """Do it; return None, in all processes, if memory runs out in one."""
        network: Callable[..., Any] = self._model
        if frugal:
            pairs = max(1, -(-share.batch.pair_index.shape[1] // PARTS))
            network = partial(self._model, checkpoint=True, pairs_at_once=pairs)
        add = self._ranks.nothing if share.idle else self._ranks.total

        def total(*sums: Tensor) -> tuple[Tensor, ...]:
            if self._full_somewhere(False):
                raise _Full
            return add(*sums)

        try:
            loss = self._loss(network, share.batch, done, total)
            if loss.requires_grad:
                loss.backward()
            full = False
        except _Full:
            return None
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            full = True
        if self._full_somewhere(full):
            return None
        self._ranks.add_gradients(self._weights)
        return loss.item()

    def _full_somewhere(self, here: bool) -> bool:
        """Return, in all processes, whether one says that memory has run out."""
        self._failed = self._ranks.numbers(float(here))[:, 0]
        return bool(self._failed.any())

    def _forget(self) -> None:
        """Give memory back."""
        self._model.zero_grad(set_to_none=True)
        gc.collect()
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _advice(self, share: Share) -> str:
        """Say what did not fit and what to do."""
        batch, model = share.batch, self._model
        largest = max(batch.molecules, key=lambda molecule: molecule.n_atoms)
        needs = ""
        if "fock" in model.heads:
            try:
                found = estimate(model, largest)
                needs = (
                    f" (estimated for it alone: {found['train_memory_GB']:.1f} GB, "
                    f"{found['train_checkpoint_memory_GB']:.1f} GB with less kept)"
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
        where = "" if self._ranks.size == 1 else f" of process {self._ranks.rank}"
        return (
            f"out of memory, also with the pairs in {PARTS} parts: the share{where} had {batch.n_edges} "
            f"edges, its largest molecule is {largest.formula} with {largest.n_atoms} atoms{needs}; "
            f"lower schedule.edges_per_batch (now {self._budget}), take more processes or a smaller "
            "model, or leave the largest molecules out; 'helmol estimate' says what a molecule needs"
        )

    def culprits(
        self, places: Sequence[int], one: Callable[[int], Batch], done: float
    ) -> list[tuple[int, float, float]]:
        """Return which molecules of this process alone have no finite loss or gradient.

        Args:
            places: of the molecules.
            one: batch of one molecule.
            done: share of the schedule that is over.

        Returns:
            Place, loss and norm of the gradient of each.
        """
        found = []
        for place in places:
            self._model.zero_grad(set_to_none=True)
            loss = self._loss(self._model, one(place), done)
            loss.backward()
            gradients = [weight.grad for weight in self._weights if weight.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if not (loss.isfinite() and norm.isfinite()):
                found.append((place, loss.item(), norm.item()))
        self._model.zero_grad(set_to_none=True)
        return found


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there is not enough memory, on a GPU or for a process."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
