"""Measure one workload stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from helmol.bench.cases import CASES, domain, molecules
from helmol.bench.measure import Measured, clock_for, gemm_rate, measure
from helmol.errors import InputError
from helmol.graph import Pairs, collate, edge_geometry
from helmol.graph.axis import Axis
from helmol.model import Model, ModelConfig, build, hamiltonian_loss


def convolution_flops(lmax: int, channels: int, unnatural: int = 0) -> int:
    """Return multiplications and additions of one SO(2) convolution per directed edge, forward.

    ``2 S C_in C_out`` with ``S = (L+1)² + 4 Σ_{m≥1} (L+1−m)²``, for the maps 2C → C and C → C. With unnatural
    channels the numbers are real, 2 instead of 4, and m = 0 has a map of even and one of odd components.
    """
    axis = Axis(lmax, channels, unnatural)
    orders = (2 if unnatural else 4) * sum((lmax + 1 - m) ** 2 for m in range(1, lmax + 1))
    return 2 * 3 * (axis.n_even**2 + axis.n_odd**2 + orders * channels**2)


def run(
    case_name: str,
    config: ModelConfig,
    *,
    device: torch.device,
    threads: int | None = None,
    repeats: int = 7,
    checkpoint: bool = False,
    pairs_at_once: int | None = None,
    precision: str = "fp32",
) -> dict[str, Any]:
    """Measure a workload.

    Args:
        case_name: one of :data:`helmol.bench.CASES`.
        config: the network.
        device: where.
        threads: CPU threads; default torch's.
        repeats: timed calls per stage; medians are reported.
        checkpoint: recompute block by block in the gradient of the whole step.
        pairs_at_once: as in :meth:`helmol.model.Model.forward`.
        precision: of matrix products; the floor is at the rate of that precision.

    Returns:
        ``stages`` (each with ``microseconds_per_edge``, ``share_of_floor``, ``bytes_per_edge``,
        ``operations``), ``gemm_gflops``, sizes.

    Raises:
        InputError: unknown case.
    """
    if case_name not in CASES:
        raise InputError(f"unknown case {case_name!r}: expected one of {', '.join(CASES)}")
    if threads:
        torch.set_num_threads(threads)
    case = CASES[case_name]
    model = build(config, domain(case)).to(device).set_precision(precision)
    clock = clock_for(device)
    prepare_start = clock()
    items = [model.prepare(molecule) for molecule in molecules(case, seed=0)]
    prepare_seconds = clock() - prepare_start
    items = [
        replace(
            item, buckets={k: replace(b, target=_zeros(k, len(b.index))) for k, b in item.buckets.items()}
        )
        for item in items
    ]
    batch = collate(items).to(device)
    flops = convolution_flops(model.backbone.lmax, config.channels, config.unnatural)
    n_convolutions = 2 * config.n_layers
    # A gradient costs twice the forward pass.
    floors = {
        "convolution": 3 * flops,
        "node_block": 3 * flops,
        "edge_block": 3 * flops,
        "training_step": 3 * flops * n_convolutions,
        "prediction": flops * n_convolutions,
    }
    rate = gemm_rate(model.dtype, device, clock=clock, precision=precision)
    rows: dict[str, dict[str, Any]] = {}
    stages = _stages(model, batch, items, checkpoint=checkpoint, pairs_at_once=pairs_at_once)
    for name, function in stages.items():
        found = measure(function, repeats=repeats, clock=clock)
        rows[name] = _row(found, batch.n_edges, floors.get(name), rate)
    return {
        "case": case_name, "n_edges": batch.n_edges, "lmax": model.backbone.lmax,
        "channels": config.channels,
        "parameters": model.n_parameters, "dtype": str(model.dtype).removeprefix("torch."),
        "precision": precision,
        "device": str(device), "threads": torch.get_num_threads() if device.type == "cpu" else None,
        "gemm_gflops": rate / 1e9, "prepare_microseconds_per_edge": 1e6 * prepare_seconds / batch.n_edges,
        "stages": rows,
    }  # fmt: skip


def _row(found: Measured, n_edges: int, floor: int | None, rate: float) -> dict[str, Any]:
    """Return a stage's numbers per directed edge."""
    return {
        "microseconds_per_edge": 1e6 * found.seconds / n_edges,
        "forward_microseconds_per_edge": 1e6 * found.forward / n_edges,
        "share_of_floor": None if floor is None else floor * n_edges / rate / found.seconds,
        "bytes_per_edge": found.saved_bytes / n_edges,
        "operations": found.operations,
    }


def _zeros(key: tuple[tuple[int, ...], ...], n: int) -> Any:
    """Return targets of zero for the blocks of one kind."""
    import numpy as np

    from helmol.graph.blocks import table_of

    return np.zeros((n, 1, table_of(key).dim))


def _stages(
    model: Model, batch: Any, items: Any, *, checkpoint: bool, pairs_at_once: int | None
) -> dict[str, Callable[[], Any]]:
    """Return one function per stage, on inputs made once."""
    config, backbone = model.config, model.backbone
    with torch.no_grad():
        states = backbone.nodes(batch)
        stream = backbone.edges(states)
    geometry, scalars = states.geometry, states.scalars
    pairs = Pairs.of(geometry)
    nodes = states.layers[0].clone().requires_grad_()
    stream = stream.requires_grad_()
    output = model(batch).fock
    parts = [part.detach().requires_grad_() for part in output.normalised]
    node_block: Any
    edge_block: Any
    node_block, edge_block = backbone.node_blocks[0], backbone.edge_blocks[0]
    gated_nodes = states.final.clone().requires_grad_()

    def head() -> list[torch.Tensor]:
        fock = model.fock_head
        atoms = fock.diagonal(fock.node_gate(gated_nodes), [b for b in batch.buckets if len(b.key) == 1])
        blocks = [(b.key, b.index) for b in batch.buckets if len(b.key) == 2]
        return [*atoms, *fock.pairs(fock.edge_gate(backbone.normalised_edges(stream)), geometry, blocks)]

    def predict() -> None:
        with torch.no_grad():
            model(batch, pairs_at_once=pairs_at_once)

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def optimize() -> None:
        for parameter in model.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()

    def step() -> torch.Tensor:
        model.zero_grad()
        out = model(batch, checkpoint=checkpoint, pairs_at_once=pairs_at_once)
        return hamiltonian_loss(out.fock, batch)

    def geometry_stage() -> None:
        edge_geometry(
            batch.positions, batch.pair_index, lmax=backbone.lmax, cutoff=config.cutoff, dtype=model.dtype
        )

    return {
        "collate": lambda: collate(items).n_edges,
        "geometry": geometry_stage,
        "rotate_out": lambda: pairs.weighted_sum(stream, len(nodes)),
        "radial": lambda: node_block.convolution.radial(scalars),
        "convolution": lambda: node_block.convolution(nodes, scalars, pairs),
        "edge_norm": lambda: edge_block.norm_ffn(stream),
        "edge_feed_forward": lambda: edge_block.ffn.after_norm(stream, edge_block.norm_ffn),
        "node_block": lambda: node_block(nodes, [(scalars, pairs)]),
        "edge_block": lambda: edge_block(stream, nodes, scalars, pairs),
        "head": head,
        "loss": lambda: hamiltonian_loss(replace(output, normalised=parts), batch),
        "training_step": step,
        "optimizer": optimize,
        "prediction": predict,
    }
