"""``helmol import FORMAT PATH``: a published data set into a store."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Verbose
from helmol.cli.session import session


def import_(
    format: Annotated[str, typer.Argument(help="md17, qh9-stable, qh9-dynamic, nabladft or omol-csh.")],
    path: Annotated[Path, typer.Argument(help="The data set's file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to make or continue.")] = Path("data.h5"),
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Read at most so many molecules.")
    ] = None,
    elements: Annotated[
        str | None, typer.Option("--elements", help="Only molecules of these elements, e.g. H,C,N,O.")
    ] = None,
    max_atoms: Annotated[
        int | None, typer.Option("--max-atoms", min=1, help="Only molecules of at most so many atoms.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Official split, e.g. id or ood, geo or mol; default the usual one."),
    ] = None,
    checks: Annotated[
        int, typer.Option("--checks", min=1, help="Molecules whose overlap is recomputed.")
    ] = 5,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Read a published data set into a store, checked by recomputing; resumable."""
    with session("import", json_file=json_file, verbose=verbose) as s:
        from helmol.elements import atomic_number
        from helmol.exchange import import_file

        chosen = None if elements is None else {atomic_number(symbol) for symbol in elements.split(",")}
        result = import_file(
            format,
            path,
            out=out,
            limit=limit,
            elements=chosen,
            max_atoms=max_atoms,
            split=split,
            n_checked=checks,
        )
        s.say(
            f"{result['n_stored']} of {result['n_selected']} molecules in {out} ({result['level']}), "
            f"{result['n_new']} of them new, {result['n_unconverged']} not converged and left out"
        )
        found = result["checks"]
        if found["overlap_error"] is not None:
            s.say(f"max |S - S_ref| of {found['n_overlaps']} molecules: {found['overlap_error']:.1e}")
        s.say(f"max |F[D] - F| of {found['fock_id']}: {found['fock_error_Eh']:.1e} Eh")
        s.say(f"energies: {result['energies']}; forces: {result['forces']}")
        if result["split"] is not None:
            sizes = ", ".join(f"{k} {v['stored']} of {v['published']}" for k, v in result["splits"].items())
            s.say(f"split {result['split']!r}: {sizes}")
        s.result(result)
        s.next(f"helmol inspect {out}")
