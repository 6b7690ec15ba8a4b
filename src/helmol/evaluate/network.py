"""Evaluate a model on labelled molecules, with cheap guesses beside it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from helmol.arrays import Array
from helmol.evaluate.fock import ErrorTable
from helmol.progress import Progress
from helmol.system import LevelOfTheory, Sample

if TYPE_CHECKING:
    from helmol.model import Model


class Predicted(NamedTuple):
    """A labelled molecule, its predicted Fock matrix (house order, Eh), and the seconds that it took."""

    sample: Sample
    fock: Array
    seconds: float


def predictions(
    model: Model, samples: Iterable[Sample], *, max_edges: int = 20_000, at_a_time: int = 64
) -> Iterator[Predicted]:
    """Yield labelled molecules with their predicted Fock matrices.

    Args:
        model: with a Hamiltonian head.
        samples: labelled molecules, e.g. read lazily from a store.
        max_edges: atom pairs per batch.
        at_a_time: molecules in memory, predicted before the first of them is yielded.

    Raises:
        DomainError: a molecule that the model has not learnt.
    """
    from helmol.model import predict_fock

    iterator = iter(samples)
    while chunk := list(itertools.islice(iterator, at_a_time)):
        start = time.perf_counter()
        molecules, known = [sample.molecule for sample in chunk], [sample.matrices.known for sample in chunk]
        matrices = predict_fock(model, molecules, known, max_edges=max_edges)
        seconds = (time.perf_counter() - start) / len(chunk)
        for sample, matrix in zip(chunk, matrices, strict=True):
            yield Predicted(sample, matrix, seconds)


def evaluate_model(
    model: Model,
    samples: Iterable[Sample],
    *,
    total: int,
    level: LevelOfTheory | None = None,
    max_edges: int = 20000,
    at_a_time: int = 64,
) -> dict[str, Any]:
    """Return the error table of a model and of every cheap guess that the samples carry.

    The samples are read once, ``at_a_time`` in memory.

    Args:
        model: from :func:`helmol.model.load_model`.
        samples: labelled molecules, e.g. read lazily from a store.
        total: their number, for the progress bar.
        level: level of theory of the samples; with it dipoles are evaluated (needs PySCF).
        max_edges: atom pairs per batch.
        at_a_time: molecules predicted before they are compared.

    Returns:
        The keys of :func:`helmol.evaluate.errors`, ``baselines`` (the same keys per guess),
        ``target``, ``parameters``, ``seconds_per_molecule`` (prediction alone).
    """
    table = ErrorTable(model.domain.basis, level=level)
    common: set[str] | None = None
    seconds, count = 0.0, 0
    with Progress("Evaluate", total=total, unit="molecules") as bar:
        for one in predictions(model, samples, max_edges=max_edges, at_a_time=at_a_time):
            references = one.sample.matrices.references
            common = set(references) if common is None else common & set(references)
            table.add(one.sample, {"model": one.fock, **references})
            seconds, count = seconds + one.seconds, count + 1
            bar.advance()
    result = table.summary("model")
    result["baselines"] = {name: table.summary(name) for name in sorted(common or ())}
    result["target"] = model.domain.target
    result["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    result["seconds_per_molecule"] = seconds / max(count, 1)
    return result
