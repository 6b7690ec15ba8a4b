"""Time and memory for a molecule before anyone waits for it, from a probe of a few hundred edges."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from helmol.bench.measure import clock_for, count_saved_bytes
from helmol.graph import collate
from helmol.model import Model
from helmol.model.prediction import pairs_at_once
from helmol.system import Molecule

PROBE_ATOMS = 23
"""Atoms of the probe: about 500 edges, enough for the rate of larger batches."""
MAX_EDGES = 20_000
"""Directed edges in memory together where caches set no limit, as :func:`helmol.model.predict_fock` says."""
REPEATS = 3
LIBRARIES = 350e6
"""Bytes of Python, torch and what belongs to them."""
WORKING_ARRAYS = 8
"""Arrays of ``[E, K, C]`` that exist together at the worst moment of a convolution on edges."""


def estimate(model: Model, molecule: Molecule) -> dict[str, Any]:
    """Estimate what one molecule costs on this machine.

    A part of the molecule (its atoms nearest to the centre) is predicted and differentiated; times and bytes
    grow in proportion to the number of edges. Reference matrices that take no Fock build are made, of the
    whole molecule; others (of about one Fock build) are not part of it.

    Args:
        model: the model, or an untrained one of the same size.
        molecule: any.

    Returns:
        ``n_atoms``, ``n_edges`` (directed, inside the cutoff), ``n_ao``, ``parameters``,
        ``predict_seconds`` of the network, ``predict_memory_GB``, ``train_seconds`` (forward and gradient),
        ``train_memory_GB``, ``train_checkpoint_memory_GB``, ``probe_edges``; ``reference_seconds``, 0 if the
        model needs no reference, ``None`` where it was not measured.
    """
    device, clock = model.device, clock_for(model.device)
    probe = _centre(molecule, PROBE_ATOMS)
    reader, n_probe = model.matrix_input, int(model.domain.basis.offsets(probe.numbers)[-1])
    inputs = None if reader is None else np.zeros((reader.n_matrices, n_probe, n_probe))
    batch = collate([model.prepare(probe, inputs=inputs)]).to(device)
    n_edges, n_ao = model.prepare(molecule).n_edges, int(model.domain.basis.offsets(molecule.numbers)[-1])
    scale = n_edges / max(batch.n_edges, 1)

    def predict() -> None:
        with torch.no_grad():
            model.fock_target.dense(model(batch).fock, batch)

    def learn() -> None:
        out = model(batch).fock
        torch.autograd.backward(out.normalised, [torch.ones_like(part) for part in out.normalised])
        model.zero_grad()

    predict_seconds, train_seconds = _time(predict, clock), _time(learn, clock)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    k, c = (model.lmax + 1) ** 2, model.config.channels
    working = WORKING_ARRAYS * k * c * torch.finfo(model.dtype).bits // 8
    # Irreps of all blocks twice (float32 and float64), dense matrix twice in float64.
    output = 8.0 * n_ao**2 * model.domain.n_spins * 3.5
    base = LIBRARIES + weights + output
    saved = count_saved_bytes(lambda: model(batch)) * scale
    little = count_saved_bytes(lambda: model(batch, checkpoint=True)) * scale
    together = 2 * pairs_at_once(device, MAX_EDGES)
    # A gradient and two moments for every weight; arrays of the gradient beside those of the values.
    learning = base + 3 * weights + 2 * working * n_edges
    return {
        "n_atoms": len(molecule.numbers), "n_edges": n_edges, "n_ao": n_ao,
        "parameters": model.n_parameters,
        "predict_seconds": predict_seconds * scale,
        "predict_memory_GB": (base + working * min(n_edges, together)) / 1e9,
        "train_seconds": train_seconds * scale,
        "train_memory_GB": (learning + saved) / 1e9,
        "train_checkpoint_memory_GB": (learning + little) / 1e9,
        "probe_edges": batch.n_edges,
        "reference_seconds": reference_seconds(model, molecule),
    }  # fmt: skip


def reference_seconds(model: Model, molecule: Molecule) -> float | None:
    """Return the time of the reference matrices that a prediction takes, s.

    Returns:
        ``None`` where PySCF is missing, or with references that take Fock builds.
    """
    names = model.needed_references
    if not names:
        return 0.0
    try:
        from helmol import dft
    except ImportError:
        return None
    if any(dft.FOCK_BUILDS[name] for name in names):
        return None
    level = dft.level_from(model.domain.level)
    mole = dft.build_mole(molecule, level)
    return _time(lambda: dft.reference_focks(mole, level, names), clock_for(torch.device("cpu")))


def _time(function: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Return the median time of several calls after one that warms up."""
    function()
    times = []
    for _ in range(REPEATS):
        start = clock()
        function()
        times.append(clock() - start)
    return statistics.median(times)


def _centre(molecule: Molecule, n: int) -> Molecule:
    """Return the ``n`` atoms nearest to the centre, with a charge that pairs the electrons."""
    distance = np.linalg.norm(molecule.positions - molecule.positions.mean(axis=0), axis=1)
    chosen = np.sort(np.argsort(distance, kind="stable")[:n])
    numbers = molecule.numbers[chosen]
    return Molecule(numbers, molecule.positions[chosen], charge=int(numbers.sum()) % 2)
