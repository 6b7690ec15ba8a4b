"""``helmol demo``: data, training, evaluation, prediction and an SCF start, in minutes, with a report."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Seed, Sets, Verbose
from helmol.cli.session import session


def demo(
    molecule: Annotated[str, typer.Argument(help="What to learn: water.")] = "water",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything.")] = Path("demo"),
    workers: Annotated[int, typer.Option("--workers", help="Processes for DFT, threads of training.")] = 2,
    minutes: Annotated[float, typer.Option("--minutes", help="Time for the whole demo.")] = 9.0,
    seed: Seed = 0,
    sets: Sets = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Go the whole way on a fresh machine: generate, train, evaluate, predict, guess; leave a report."""
    with session("demo", json_file=json_file, verbose=verbose) as s:
        from helmol.config import parse, with_overrides
        from helmol.demo import DemoConfig, run

        settings = {"molecule": molecule, "workers": workers, "minutes": minutes, "seed": seed}
        result = run(parse(DemoConfig, with_overrides(settings, sets or []), source="demo"), out=out)
        rows = [[b["what"], b["wanted"], b["seen"], "yes" if b["passed"] else "NO"] for b in result["bars"]]
        s.table(
            f"{result['n_molecules']} held-out molecules, target {result['target']}",
            ["bar", "wanted", "seen", "cleared"],
            rows,
        )
        s.say(f"report: {out / 'report.md'} (or report.html), numbers: {out / 'demo.json'}")
        s.say(f"{result['seconds']['total']:.0f} s in all")
        s.result(result)
        s.next(f"helmol guess {out / 'run'} {out / 'structures.extxyz'} --index -2")
