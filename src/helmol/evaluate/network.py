"""Evaluate a network on labelled molecules, with cheap guesses beside it."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from helmol.evaluate.fock import ErrorTable
from helmol.progress import Progress
from helmol.system import LevelOfTheory, Sample

if TYPE_CHECKING:
    from helmol.model import Model

T = TypeVar("T")
log = logging.getLogger("helmol.evaluate")


def evaluate_model(
    network: Model,
    samples: Iterable[Sample],
    *,
    total: int,
    level: LevelOfTheory | None = None,
    max_edges: int = 20000,
    at_a_time: int = 64,
) -> dict[str, Any]:
    """Return the error table of a network and of every cheap guess that the samples carry.

    The samples are read once, ``at_a_time`` in memory.

    Args:
        network: from :func:`helmol.model.load_model`.
        samples: labelled molecules, e.g. read lazily from a store.
        total: their number, for the progress bar.
        level: level of theory of the samples; with it dipoles are evaluated (needs PySCF).
        max_edges: atom pairs per batch.
        at_a_time: molecules predicted before they are compared.

    Returns:
        The keys of :func:`helmol.evaluate.errors`, ``baselines`` (the same keys per guess),
        ``target``, ``parameters``, ``seconds_per_molecule`` (prediction alone).
    """
    from helmol.model import predict_fock

    basis = network.domain.basis
    table = ErrorTable(basis, level=level)
    common: set[str] | None = None
    seconds, count = 0.0, 0
    with Progress("Evaluate", total=total, unit="molecules") as bar:
        for chunk in _chunks(samples, at_a_time):
            start = time.perf_counter()
            matrices = predict_fock(
                network,
                [sample.molecule for sample in chunk],
                [sample.matrices.known for sample in chunk],
                max_edges=max_edges,
            )
            seconds, count = seconds + time.perf_counter() - start, count + len(chunk)
            for sample, matrix in zip(chunk, matrices, strict=True):
                references = sample.matrices.references
                common = set(references) if common is None else common & set(references)
                table.add(sample, {"model": matrix, **references})
                bar.advance()
    result = table.summary("model")
    result["baselines"] = {name: table.summary(name) for name in sorted(common or ())}
    result["target"] = network.domain.target
    result["parameters"] = sum(parameter.numel() for parameter in network.parameters())
    result["seconds_per_molecule"] = seconds / max(count, 1)
    return result


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most ``size`` items."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
