"""``helmol bench``: speed of every stage, in µs per edge and as a share of the floor."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import Device, JsonFile, Precision, Verbose
from helmol.cli.session import session


def bench(
    case: Annotated[
        str,
        typer.Option("--case", help="water, water-64, ethanol-16, uracil, uracil-4, 40-atoms, 150-atoms-tz."),
    ] = "uracil-4",
    channels: Annotated[int, typer.Option("--channels", help="Channels of the network.")] = 64,
    unnatural: Annotated[
        int, typer.Option("--unnatural", help="Channels of unnatural parity among them.")
    ] = 0,
    lmax: Annotated[
        int | None, typer.Option("--lmax", help="Largest degree; default: what the basis needs.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", help="Timed calls per stage.")] = 7,
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="Keep little for the gradient.")] = False,
    pairs_at_once: Annotated[
        int | None, typer.Option("--pairs-at-once", help="Pairs whose edge features are in memory together.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Measure reading of this store instead of a made-up one.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Time every stage of a training step beside the least time its arithmetic could take."""
    with session("bench", json_file=json_file, verbose=verbose) as s:
        import torch

        from helmol.bench import CASES, data_rate, run, store_rate, usual_target
        from helmol.config import parse
        from helmol.devices import resolve_device
        from helmol.model import ModelConfig

        # Before anything is timed: a store that cannot be read need not be waited for.
        target = None if store is None else usual_target(store)
        result = run(
            case,
            parse(ModelConfig, {"channels": channels, "unnatural": unnatural, "lmax": lmax}, source="bench"),
            device=torch.device(resolve_device(device)),
            threads=threads,
            repeats=repeats,
            checkpoint=checkpoint,
            pairs_at_once=pairs_at_once,
            precision=precision,
        )
        workload, cutoff = CASES[case], ModelConfig().cutoff
        if store is None or target is None:
            data = data_rate(workload, cutoff=cutoff)
        else:
            data = store_rate(store, target=target, cutoff=cutoff)
        step = result["stages"]["training_step"]["microseconds_per_edge"] * result["n_edges"] / workload.batch
        result["data"] = {**data, "training_step_microseconds_per_sample": step}
        rows = []
        for name, row in result["stages"].items():
            share = row["share_of_floor"]
            rows.append(
                [
                    name.replace("_", " "),
                    row["microseconds_per_edge"],
                    row["forward_microseconds_per_edge"],
                    "-" if share is None else f"{100 * share:.0f} %",
                    row["bytes_per_edge"] / 1e3,
                    row["operations"],
                ]
            )
        title = (
            f"{case}: {result['n_edges']} edges, L={result['lmax']}, C={channels}, {result['precision']}, "
            f"{result['device']}; matrix products reach {result['gemm_gflops']:.0f} GFLOP/s"
        )
        s.table(title, ["stage", "µs/edge", "forward", "of floor", "kB kept/edge", "operations"], rows)
        s.say("floor: arithmetic of the SO(2) convolutions alone, both directions of every edge")
        s.say(
            f"data: {data['samples_per_second']:.0f} samples/s from the store's file to a batch on one core "
            f"({data['samples_per_cpu_second']:.0f} per second of CPU time), "
            f"{data['microseconds_per_sample']:.0f} µs each; a training step takes {step:.0f} µs per sample"
        )
        s.result(result)
        s.next("helmol estimate")
