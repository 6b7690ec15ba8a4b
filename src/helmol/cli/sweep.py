"""``helmol sweep CONFIG``: a matched ablation, and its table."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Out, Sets, Verbose
from helmol.cli.session import session


def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file: base, cases, seeds, split.")],
    out: Out = None,
    sets: Sets = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Train variants of one configuration with equal data, seeds and budget, and print their errors.

    The folder is sweeps/NAME unless --out is given; the same command goes on after an interruption.
    """
    with session("sweep", json_file=json_file, verbose=verbose) as s:
        from helmol.errors import DivergedError
        from helmol.train.sweep import read_sweep, run_sweep, slug
        from helmol.train.sweep_table import HEADINGS, cells

        settings = read_sweep(config, sets or [])
        folder = out or Path("sweeps") / config.stem
        result = run_sweep(settings, out=folder)
        s.table(settings.title, HEADINGS, [cells(case, row) for case, row in result["cases"].items()])
        s.say(
            f"[ ] 95 % interval over {len(settings.seeds)} seeds; runs, sweep.json and table.md in {folder}"
        )
        s.result(result)
        if result["failed"]:
            first = result["failed"][0]
            raise DivergedError(
                f"{len(result['failed'])} of {result['total']} runs diverged; {first['case']!r}, seed "
                f"{first['seed']}: {first['error']}"
            )
        best = min(result["cases"], key=lambda case: result["cases"][case]["mean"]["h_mae_uEh"])
        run = folder / "runs" / slug(best) / f"seed-{settings.seeds[0]}"
        s.next(f"helmol evaluate {run} {settings.training(best, settings.seeds[0]).data.store}")
