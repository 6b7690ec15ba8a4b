"""The table of one accelerator: every precision on a middle-sized and a large molecule, beside the floors.

Molecules are made up (:mod:`helmol.bench.cases`), so neither PySCF, ASE nor a store is needed.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from helmol.bench.cases import CASES, DOUBLE_ZETA, Case, domain, molecules, organic
from helmol.bench.measure import clock_for, copy_rate, gemm_rate
from helmol.bench.run import convolution_flops
from helmol.graph import Batch, Item, collate
from helmol.graph.blocks import table_of
from helmol.model import MODEL_PRESETS, PRECISIONS, Model, ModelConfig, build, hamiltonian_loss

log = logging.getLogger("helmol.bench")

BYTES_PER_PARAMETER = 40
"""Memory traffic of one parameter in a training step: gradient, two moments, weight, read and written."""


@dataclass(frozen=True)
class Workload:
    """Name a molecule and the network that it is run through."""

    case: Case
    config: ModelConfig


WORKLOADS = {
    "40 atoms, def2-SVP": Workload(CASES["40-atoms"], MODEL_PRESETS["large"]),
    "150 atoms, def2-TZVPD": Workload(CASES["150-atoms-tz"], MODEL_PRESETS["large"]),
}
TINY = {
    "6 atoms, double zeta": Workload(
        Case(organic(6), 1, DOUBLE_ZETA), ModelConfig(channels=8, n_layers=1, radial_channels=8)
    ),
}
"""For a trial on any machine."""


def accelerator_table(
    device: torch.device,
    *,
    workloads: dict[str, Workload] = WORKLOADS,
    precisions: Sequence[str] = PRECISIONS,
    repeats: int = 10,
    n_sizes: int = 50,
) -> dict[str, Any]:
    """Measure everything.

    Args:
        device: where.
        workloads: by name.
        precisions: of matrix products.
        repeats: timed calls; medians are reported.
        n_sizes: molecules of different sizes in the test for recompilations.

    Returns:
        ``device``, ``torch``, ``copy_GB_per_s``, ``rates`` (by precision FLOP/s of a large product),
        ``rows`` (one per workload and precision, see :func:`_row`), ``sizes`` (see :func:`many_sizes`).
    """
    rates = {p: gemm_rate(torch.float32, device, clock=clock_for(device), precision=p) for p in precisions}
    bandwidth = copy_rate(device, clock=clock_for(device))
    rows = []
    for name, workload in workloads.items():
        first: list[Tensor] = []
        for precision in precisions:
            row, output = _row(workload, device, precision, rates[precision], bandwidth, repeats=repeats)
            first = first or output
            change = max(float((a - b).norm() / b.norm()) for a, b in zip(output, first, strict=True))
            rows.append({"workload": name, "precision": precision, **row, "output_change": change})
            log.info("%s, %s: %s", name, precision, row)
    smallest = next(iter(workloads.values()))
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "copy_GB_per_s": bandwidth / 1e9,
        "rates": rates,
        "rows": rows,
        "sizes": many_sizes(device, smallest, n=n_sizes),
    }


def _row(
    workload: Workload, device: torch.device, precision: str, rate: float, bandwidth: float, *, repeats: int
) -> tuple[dict[str, Any], list[Tensor]]:
    """Measure one workload in one precision.

    Returns:
        ``n_edges``, ``parameters``, ``prediction_ms``, ``training_ms`` (with the optimizer), their floors
        (arithmetic of the convolutions at ``rate``; for training three times that and the traffic of the
        weights) and times over floors, peak memory of both in GB (CUDA only); and the normalised output.
    """
    model = build(workload.config, domain(workload.case)).to(device).set_precision(precision)
    batch = collate(labelled(model, molecules(workload.case, seed=0))).to(device)
    step = training_step(model, batch)

    def predict() -> list[Tensor]:
        with torch.no_grad():
            return model(batch).fock.normalised

    n_convolutions = 2 * workload.config.n_layers
    config = workload.config
    floor = convolution_flops(model.backbone.lmax, config.channels, config.unnatural) * n_convolutions
    floor_s = floor * batch.n_edges / rate
    training_floor_s = 3 * floor_s + BYTES_PER_PARAMETER * model.n_parameters / bandwidth
    output = [part.double().cpu() for part in predict()]
    prediction, prediction_gb = _timed(predict, device, repeats)
    training, training_gb = _timed(step, device, repeats)
    return {
        "n_edges": batch.n_edges, "lmax": model.backbone.lmax, "channels": workload.config.channels,
        "parameters": model.n_parameters,
        "prediction_ms": 1e3 * prediction, "prediction_floor_ms": 1e3 * floor_s,
        "prediction_over_floor": prediction / floor_s, "prediction_GB": prediction_gb,
        "training_ms": 1e3 * training, "training_floor_ms": 1e3 * training_floor_s,
        "training_over_floor": training / training_floor_s, "training_GB": training_gb,
    }, output  # fmt: skip


def labelled(model: Model, some: Sequence[Any]) -> list[Item]:
    """Return prepared molecules with targets of zero."""
    n_spins, items = model.domain.n_spins, []
    for molecule in some:
        item = model.prepare(molecule)
        buckets = {
            key: replace(b, target=np.zeros((len(b.index), n_spins, table_of(key).dim)))
            for key, b in item.buckets.items()
        }
        items.append(replace(item, buckets=buckets))
    return items


def training_step(model: Model, batch: Batch) -> Callable[[], Tensor]:
    """Return a whole training step on one batch: loss, gradient, optimizer."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = hamiltonian_loss(model(batch).fock, batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _timed(function: Callable[[], Any], device: torch.device, repeats: int) -> tuple[float, float | None]:
    """Return the median seconds of a call, and the peak memory in GB where CUDA knows it."""
    clock, cuda = clock_for(device), device.type == "cuda"
    function()
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats):
        start = clock()
        function()
        seconds.append(clock() - start)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if cuda else None
    return statistics.median(seconds), peak


def many_sizes(device: torch.device, workload: Workload, *, n: int) -> dict[str, Any]:
    """Train on molecules of 3, 4, 5 … atoms, none twice, and count what is compiled on the way.

    Returns:
        ``n_molecules``, ``compilations`` (graphs that torch.compile made after the first molecule),
        ``slowest_over_median`` (milliseconds per step over their running neighbours' median: a compilation
        would stand out).
    """
    from torch._dynamo.utils import counters

    model = build(workload.config, domain(workload.case)).to(device)
    clock, seconds, before = clock_for(device), [], 0
    for k in range(n + 1):
        case = replace(workload.case, numbers=organic(3 + max(k - 1, 0)), batch=1)
        step = training_step(model, collate(labelled(model, molecules(case, seed=k))).to(device))
        start = clock()
        step()
        seconds.append(clock() - start)
        if k == 0:  # the first call may set things up
            before = sum(counters["stats"].values())
    rest = seconds[1:]
    near = [statistics.median(rest[max(0, k - 3) : k + 4]) for k in range(len(rest))]
    return {
        "n_molecules": n,
        "compilations": sum(counters["stats"].values()) - before,
        "slowest_over_median": max(s / m for s, m in zip(rest, near, strict=True)),
    }


def as_markdown(found: dict[str, Any]) -> str:
    """Return the table as text."""
    lines = [
        f"{found['device']}, torch {found['torch']}, copies at {found['copy_GB_per_s']:.0f} GB/s",
        "",
        "| | precision | products TFLOP/s | prediction ms | × floor | training step ms | × floor "
        "| memory GB (prediction, training) | output change |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        memory = [row["prediction_GB"], row["training_GB"]]
        text = ", ".join("–" if gb is None else f"{gb:.2f}" for gb in memory)
        lines.append(
            f"| {row['workload']} (L = {row['lmax']}, C = {row['channels']}, {row['n_edges']} edges) "
            f"| {row['precision']} | {found['rates'][row['precision']] / 1e12:.2f} "
            f"| {row['prediction_ms']:.1f} | {row['prediction_over_floor']:.1f} | {row['training_ms']:.1f} "
            f"| {row['training_over_floor']:.1f} | {text} | {row['output_change']:.1e} |"
        )
    sizes = found["sizes"]
    lines += [
        "",
        f"{sizes['n_molecules']} molecules of different sizes: {sizes['compilations']} compilations, slowest "
        f"step {sizes['slowest_over_median']:.1f} times its neighbours' median",
    ]
    return "\n".join(lines) + "\n"
