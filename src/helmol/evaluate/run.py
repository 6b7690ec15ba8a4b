"""Evaluate a model on a store and leave the table and its plots in a folder."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helmol.errors import InputError
from helmol.evaluate.network import evaluate_model
from helmol.files import write_json
from helmol.store import Store

if TYPE_CHECKING:
    from helmol.model import HamiltonianModel

MOLECULES_PLOTTED = 30

log = logging.getLogger("helmol.evaluate")


def evaluate_store(
    network: HamiltonianModel,
    path: Path,
    *,
    split: str | None = None,
    seen: Collection[str] = (),
    out: Path,
    max_edges: int = 20000,
) -> dict[str, Any]:
    """Return the error table of a network on one split of a store; write it and plots to ``out``.

    Args:
        network: the model.
        path: the store.
        split: name of a split, or ``"all"``; by default ``"test"``, and in a store without one all
            molecules that are not in ``seen`` (reported as ``"unseen"``).
        seen: ids that the model was trained or chosen on.
        out: folder for ``evaluation.json`` and the plots.
        max_edges: atom pairs per batch.

    Raises:
        InputError: the store has no such split, or it is empty.
        DomainError: the store's functional or basis is not the model's.
    """
    with Store.open(path) as store:
        network.domain.check_data(store.level, store.basis)
        split = split or ("test" if "test" in store.splits else "unseen")
        chosen = split_indices(store, split, seen=seen)
        result = evaluate_model(
            network, (store[i] for i in chosen), total=len(chosen), level=store.level, max_edges=max_edges
        )
        result |= {"store": str(path), "split": split}
        write_json(out / "evaluation.json", result)
        _plot(network, store, chosen[:MOLECULES_PLOTTED], result, out=out, max_edges=max_edges)
    return result


def split_indices(store: Store, split: str, *, seen: Collection[str] = ()) -> list[int]:
    """Return the positions of a split's samples.

    Raises:
        InputError: no such split, or nothing in it.
    """
    if split == "unseen" and split not in store.splits:
        indices = [i for i, id in enumerate(store.ids) if id not in seen]
        if not indices:
            raise InputError(
                f"the model was trained or chosen on all {len(store)} molecules of the store, which has "
                "no split 'test': --split all measures the errors on those"
            )
        return indices
    if split != "all" and split not in store.splits:
        have = ", ".join(store.splits) or "none"
        raise InputError(f"the store has no split {split!r} (it has {have}): use --split all or one of these")
    indices = list(range(len(store))) if split == "all" else [int(i) for i in store.indices(split)]
    if not indices:
        raise InputError(f"split {split!r} of the store is empty")
    return indices


def _plot(
    network: HamiltonianModel,
    store: Store,
    indices: Sequence[int],
    result: dict[str, Any],
    *,
    out: Path,
    max_edges: int,
) -> None:
    """Draw parity, levels and errors by shell pair for a few molecules."""
    from helmol.evaluate import plots
    from helmol.model import predict_fock

    samples = [store[i] for i in indices]
    predicted = predict_fock(
        network, [s.molecule for s in samples], [s.matrices.references for s in samples], max_edges=max_edges
    )
    plots.parity(samples, predicted, store.basis, out / "parity.png")
    plots.shell_pairs(result["by_shell_pair"], out / "shell_pairs.png")
    sample = samples[0]
    if sample.matrices.overlap is not None:
        plots.levels(
            sample,
            predicted[0],
            out / "levels.png",
            overlap=sample.matrices.overlap,
            n_electrons=store.basis.n_electrons(sample.molecule.numbers, sample.molecule.charge),
            baseline=next(iter(result["baselines"]), None),
        )
