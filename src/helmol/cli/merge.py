"""``helmol merge A B --out C``: stores of one level of theory into one."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Verbose
from helmol.cli.session import session


def merge(
    stores: Annotated[list[Path], typer.Argument(help="Stores to join (.h5), two or more.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new store.")],
    rename: Annotated[
        bool, typer.Option("--rename", help="Put the store's name before ids that different samples share.")
    ] = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Join stores of one level of theory and basis; equal samples are kept once."""
    with session("merge", json_file=json_file, verbose=verbose) as s:
        from helmol.store import merge as join

        result = join(stores, out, rename=rename)
        s.say(
            f"{result['n_molecules']} molecules in {out}; {result['n_twice']} stood twice and are kept once, "
            f"{result['n_renamed']} were renamed"
        )
        if result["splits"]:
            s.say("splits: " + ", ".join(f"{name} {n}" for name, n in result["splits"].items()))
        s.result(result)
        s.next(f"helmol inspect {out}" if result["splits"] else f"helmol split {out}")
