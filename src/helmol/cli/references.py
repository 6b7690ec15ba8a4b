"""``helmol references STORE --add minao-lite --out NEW``: what a delta target is measured from."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Strict, Verbose, part
from helmol.cli.session import session


def references(
    store: Annotated[Path, typer.Argument(help="Store of Fock matrices (.h5); it is left as it is.")],
    add: Annotated[
        str,
        typer.Option(
            "--add",
            help="Comma-separated: minao-lite, minao-hartree, minao, "
            "minao-df, minao-coarse, minao-step, sap.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new store.")],
    shard: Annotated[
        str | None, typer.Option("--shard", help="i/n: the i-th of n parts, for job arrays; own --out each.")
    ] = None,
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Add cheap Fock matrices to a store, the references of delta targets; renew outdated ones; resumable."""
    with session("references", json_file=json_file, verbose=verbose) as s:
        from helmol.exchange import add_references

        names = [name.strip() for name in add.split(",") if name.strip()]
        result = add_references(store, names, out=out, strict=strict, shard=part(shard))
        s.say(
            f"{result['n_molecules']} molecules in {out} with {', '.join(result['references'])}; "
            f"{result['n_new']} matrices computed, {result['n_renewed']} of them for outdated ones; "
            f"{result['n_skipped']} molecules skipped"
        )
        s.result(result)
        if shard:
            s.next("helmol merge PART1 PART2 ... --out WHOLE.h5")
        else:
            s.next(f"helmol train CONFIG --set data={out} --set target=fock-minus-{names[-1]}")
