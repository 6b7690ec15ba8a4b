"""``helmol estimate``: memory and time for a molecule, basis and model before anyone waits for it."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import Device, JsonFile, Verbose
from helmol.cli.session import session


def estimate(
    molecules: Annotated[
        Path | None, typer.Argument(help="Structures; the largest counts. Default: --atoms.")
    ] = None,
    run: Annotated[Path | None, typer.Option("--model", help="Run or model folder; else --preset.")] = None,
    preset: Annotated[str, typer.Option("--preset", help="Size of an untrained model.")] = "medium",
    basis: Annotated[str, typer.Option("--basis", help="Basis of an untrained model.")] = "def2-svp",
    atoms: Annotated[int, typer.Option("--atoms", min=1, help="Atoms of a made-up organic molecule.")] = 40,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.")] = None,
    device: Device = "auto",
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Estimate memory and time of a prediction and of a training step from a small probe."""
    with session("estimate", json_file=json_file, verbose=verbose) as s:
        import torch

        from helmol.bench import estimate as measure
        from helmol.bench import largest, untrained
        from helmol.devices import resolve_device
        from helmol.predict import TrainedModel

        if threads:
            torch.set_num_threads(threads)
        molecule = largest(molecules, atoms)
        if run is None:
            model = untrained(preset, basis, molecule.numbers).to(resolve_device(device))
        else:
            model = TrainedModel.load(run, device=device).model
        result = {"formula": molecule.formula, **measure(model, molecule)}
        gb = "memory in GB"
        rows = [
            ["predict", result["predict_seconds"], result["predict_memory_GB"]],
            ["training step", result["train_seconds"], result["train_memory_GB"]],
            [
                "training step, checkpointed",
                1.33 * result["train_seconds"],
                result["train_checkpoint_memory_GB"],
            ],
        ]
        reference = result["reference_seconds"]
        if reference:
            rows.append(["reference matrix of a prediction", reference, ""])
        title = (
            f"{molecule.formula}: {result['n_atoms']} atoms, {result['n_ao']} orbitals, "
            f"{result['n_edges']} edges, {result['parameters'] / 1e6:.2f} M parameters"
        )
        s.table(title, ["work", "seconds", gb], rows)
        unknown = reference is None or run is None
        rest = "; a delta target's reference matrix comes on top" if unknown else ""
        s.say(f"from a probe of {result['probe_edges']} edges{rest}")
        s.result(result)
        s.next("helmol bench")
