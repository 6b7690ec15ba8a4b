"""``helmol train CONFIG``: train a model on the labels of a store."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Out, Sets, Verbose
from helmol.cli.session import INTERRUPTED, STOPPED, session
from helmol.errors import TrainingError


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
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="Processes on this machine that train together.")
    ] = 1,
    sets: Sets = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Train a model on the Fock matrices, energies or forces of a store; runs/NAME unless --out is given."""
    given = {"run.device": device, "run.seed": seed}
    overrides = [*(sets or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    folder = out or Path("runs") / config.stem
    if processes > 1:
        with session("train", verbose=verbose) as s:
            arguments = ["train", str(config), "--out", str(folder), "--resume", resume]
            arguments += [part for setting in overrides for part in ("--set", setting)]
            arguments += [] if json_file is None else ["--json", str(json_file)]
            s.exit_code = _in_processes(processes, [*arguments, *(["--verbose"] if verbose else [])])
        return
    with ExitStack() as stack:
        s = stack.enter_context(session("train", json_file=json_file, verbose=verbose))
        from helmol.train import read_config, run
        from helmol.train.ranks import joined
        from helmol.train.report import NO_BASELINE, error_columns

        ranks = stack.enter_context(joined())
        settings = read_config(config, overrides)
        result = run(settings, out=folder, resume=resume, ranks=ranks)
        if not ranks.first:
            return
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


def _in_processes(n: int, arguments: list[str]) -> int:
    """Train in several processes; return the exit code, unless one of them was killed."""
    import signal

    from helmol.train.launcher import start

    outcome = start(n, arguments)
    if killed := outcome.killed:
        raise TrainingError(f"{killed}: the same command goes on from the last checkpoint")
    if outcome.signal:
        return INTERRUPTED if outcome.signal == signal.SIGINT else STOPPED
    return max((code for code in outcome.codes.values() if code > 0), default=1 if outcome.codes else 0)
