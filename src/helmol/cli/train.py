"""``helmol train CONFIG``: train a model on the labels of a store."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Out, Sets, Verbose
from helmol.cli.session import session


def train(
    config: Annotated[Path, typer.Argument(help="YAML file with the keys of the training configuration.")],
    out: Out = None,
    resume: Annotated[
        str, typer.Option("--resume", help="auto: go on from the last checkpoint; never: want a new folder.")
    ] = "auto",
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda; over the file.")] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed of weights and data order; over the file.")
    ] = None,
    sets: Sets = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Train a model on the Fock matrices, energies or forces of a store; runs/NAME unless --out is given."""
    with session("train", json_file=json_file, verbose=verbose) as s:
        from helmol.train import read_config, run
        from helmol.train.report import NO_BASELINE, error_columns

        given = {"run.device": device, "run.seed": seed}
        options = [f"{key}={value}" for key, value in given.items() if value is not None]
        settings = read_config(config, [*(sets or []), *options])
        folder = out or Path("runs") / config.stem
        result = run(settings, out=folder, resume=resume)
        if result["resumed_from"] == result["steps"]:
            s.say(f"the run in {folder} was finished already (step {result['steps']})")
        s.table(
            f"{result['n_val']} molecules, {result['learnt']}, {result['parameters']:,} parameters",
            *error_columns(result["best"], result["last"], result["baselines"]),
        )
        if not result["baselines"]:
            s.say(NO_BASELINE)
        s.result(result)
        s.next(f"helmol evaluate {folder} {settings.data.store}")
