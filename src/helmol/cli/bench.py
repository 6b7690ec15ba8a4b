"""``helmol bench``: speed of every stage, in µs per edge and as a share of the floor."""

from typing import Annotated

import typer

from helmol.cli.options import Device, JsonFile, Verbose
from helmol.cli.session import session


def bench(
    case: Annotated[
        str,
        typer.Option("--case", help="Workload: water, water-64, uracil, uracil-4, 40-atoms, 150-atoms-tz."),
    ] = "uracil-4",
    channels: Annotated[int, typer.Option("--channels", help="Channels of the network.")] = 64,
    lmax: Annotated[
        int | None, typer.Option("--lmax", help="Largest degree; default: what the basis needs.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="CPU threads.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", help="Timed calls per stage.")] = 7,
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="Keep little for the gradient.")] = False,
    pairs_at_once: Annotated[
        int | None, typer.Option("--pairs-at-once", help="Pairs whose edge features are in memory together.")
    ] = None,
    device: Device = "auto",
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Time every stage of a training step beside the least time its arithmetic could take."""
    with session("bench", json_file=json_file, verbose=verbose) as s:
        import torch

        from helmol.bench import run
        from helmol.model import ModelConfig
        from helmol.predict import resolve_device

        result = run(
            case,
            ModelConfig(channels=channels, lmax=lmax),
            device=torch.device(resolve_device(device)),
            threads=threads,
            repeats=repeats,
            checkpoint=checkpoint,
            pairs_at_once=pairs_at_once,
        )
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
            f"{case}: {result['n_edges']} edges, L={result['lmax']}, C={channels}, {result['dtype']}, "
            f"{result['device']}; matrix products reach {result['gemm_gflops']:.0f} GFLOP/s"
        )
        s.table(title, ["stage", "µs/edge", "forward", "of floor", "kB kept/edge", "operations"], rows)
        s.say("floor: arithmetic of the SO(2) convolutions alone, both directions of every edge")
        s.result(result)
        s.next("helmol estimate")
