"""``helmol import FORMAT PATH``: a published data set, or energies and forces, into a store."""

from pathlib import Path
from typing import Annotated, Any

import typer

from helmol.cli.options import JsonFile, Strict, Verbose
from helmol.cli.session import Session, session

ENERGIES = ("extxyz", "ase-db")
"""Formats of energies and forces of a level that the user names."""


def import_(
    format: Annotated[
        str,
        typer.Argument(
            help="md17, qh9-stable, qh9-dynamic, nabladft, omol-csh; extxyz or ase-db: energies and forces."
        ),
    ],
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
        int | None,
        typer.Option(
            "--checks", min=0, help="Molecules to recompute: overlaps (default 5), or energies (default 1)."
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level", help="Level of theory of energies: FUNCTIONAL/BASIS as PySCF names them, or a preset."
        ),
    ] = None,
    energy: Annotated[str | None, typer.Option("--energy", help="Name of the energies in the file.")] = None,
    forces: Annotated[str | None, typer.Option("--forces", help="Name of the forces in the file.")] = None,
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Read a published data set, or energies and forces, into a store, checked by recomputing; resumable."""
    with session("import", json_file=json_file, verbose=verbose) as s:
        from helmol.elements import atomic_number
        from helmol.errors import InputError
        from helmol.exchange import import_file

        chosen = None if elements is None else {atomic_number(symbol) for symbol in elements.split(",")}
        if format in ENERGIES:
            if level is None:
                raise InputError(
                    f"{path} does not say at which level its energies were computed: name it with "
                    "--level, for example --level wb97m-v/def2-tzvpd"
                )
            if split is not None:
                raise InputError(f"{format} has no official split: use 'helmol split {out}' afterwards")
            which = {"limit": limit, "elements": chosen, "max_atoms": max_atoms, "strict": strict}
            _energies(s, path, out, level=level, energy=energy, forces=forces, checks=checks, **which)
            return
        if level is not None or energy is not None or forces is not None:
            raise InputError(
                f"--level, --energy and --forces are for {' and '.join(ENERGIES)}, not for {format}"
            )
        result = import_file(
            format,
            path,
            out=out,
            limit=limit,
            elements=chosen,
            max_atoms=max_atoms,
            split=split,
            n_checked=5 if checks is None else checks,
            strict=strict,
        )
        s.say(
            f"{result['n_stored']} of {result['n_selected']} molecules in {out} ({result['level']}), "
            f"{result['n_new']} of them new, {result['n_skipped']} skipped "
            f"({result['n_unconverged']} not converged)"
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


def _energies(s: Session, path: Path, out: Path, *, level: str, checks: int | None, **settings: Any) -> None:
    """Import energies and forces and say what was found."""
    from helmol.exchange import import_energies, named_level

    result = import_energies(
        path, out=out, level=named_level(level), n_checked=1 if checks is None else checks, **settings
    )
    s.say(
        f"{result['n_stored']} of {result['n_selected']} molecules in {out} ({result['level']}), "
        f"{result['n_new']} of them new, {result['n_skipped']} skipped"
    )
    forces = "no forces" if result["forces"] is None else f"{result['forces']} in {result['force_unit']}"
    s.say(f"{result['energy']} in {result['energies']}, {forces}")
    if result["checked"]:
        s.say(f"E - E_ref of {result['checked'][0]}: {result['energy_difference_Eh']:.1e} Eh")
    s.result(result)
    s.next(f"helmol split {out} --by random")
