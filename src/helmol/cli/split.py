"""``helmol split STORE``: named splits as explicit ids."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Seed, Verbose
from helmol.cli.session import session


def split(
    store: Annotated[Path, typer.Argument(help="Store whose splits are replaced (.h5).")],
    by: Annotated[
        str,
        typer.Option("--by", help="random, molecule, size (largest last) or scaffold (needs SMILES)."),
    ] = "random",
    sizes: Annotated[
        str, typer.Option("--sizes", help="Shares or numbers, e.g. train=500,val=100,test=100.")
    ] = "train=0.8,val=0.1,test=0.1",
    seed: Seed = 0,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Divide a store into train, val, test (or other names) by explicit ids."""
    with session("split", json_file=json_file, verbose=verbose) as s:
        from helmol.exchange import parse_sizes, split_store

        counts, fractions = parse_sizes(sizes)
        result = split_store(store, by=by, sizes=counts, fractions=fractions, seed=seed)
        parts = ", ".join(f"{name} {n}" for name, n in result["splits"].items())
        s.say(f"{parts}; {result['n_unused']} of {result['n_molecules']} in no split")
        if by != "random":
            s.say(f"{result['n_groups']} groups stay together")
        s.result(result)
        s.next(f"helmol train CONFIG --set data={store}")
