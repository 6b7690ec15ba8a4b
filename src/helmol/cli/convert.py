"""``helmol convert STORE --to FORMAT``: samples for other programs, and back."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Strict, Verbose
from helmol.cli.session import session


def convert(
    source: Annotated[Path, typer.Argument(help="A store (.h5), or with --to store what convert wrote.")],
    to: Annotated[str, typer.Option("--to", help="npz, qh9, extxyz (with PySCF chkfiles), or store.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder (npz, extxyz) or file (qh9, store).")],
    split: Annotated[str | None, typer.Option("--split", help="Only this split of the store.")] = None,
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Write a store's samples for other programs in PySCF's AO order, or bring them back."""
    with session("convert", json_file=json_file, verbose=verbose) as s:
        from helmol.errors import InputError
        from helmol.exchange import export_store, import_store

        back = to == "store"
        if back and split is not None:
            raise InputError("--split chooses from a store; with --to store everything comes back")
        if back:
            result = import_store(source, out=out, strict=strict)
        else:
            result = export_store(source, to, out=out, split=split, strict=strict)
        s.say(f"{result['n_molecules']} molecules in {out}, {result['n_skipped']} skipped")
        s.result(result)
        s.next(f"helmol inspect {out}" if back else f"helmol convert {out} --to store --out back.h5")
