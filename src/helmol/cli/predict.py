"""``helmol predict RUN MOLS``: Fock matrices and what follows from them, for many molecules."""

from pathlib import Path
from typing import Annotated, Any

import typer

from helmol.cli.options import Device, JsonFile, Precision, Strict, Verbose
from helmol.cli.session import Session, session

MOST_SHOWN = 5
"""Molecules named one by one in what is printed."""


def predict(
    run: Annotated[
        Path, typer.Argument(help="Run folder, model folder, or a name that 'helmol models' shows.")
    ],
    molecules: Annotated[
        list[Path],
        typer.Argument(help="Structures (xyz, extxyz, ...) or stores (.h5): files, folders, patterns."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("predictions"),
    also: Annotated[
        list[Path] | None,
        typer.Option("--also", help="Another run on energies: mean and spread of all (repeatable)."),
    ] = None,
    residual: Annotated[
        bool, typer.Option("--residual", help="One Fock build per molecule: how far from self-consistency.")
    ] = False,
    molden: Annotated[bool, typer.Option("--molden", help="Write a .molden file beside each .npz.")] = False,
    split: Annotated[
        str, typer.Option("--split", help="Split of a store; 'all' for the whole store.")
    ] = "all",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there.")] = False,
    compress: Annotated[
        bool, typer.Option("--compress", help="Compressed arrays: a little smaller, much slower.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    max_edges: Annotated[int, typer.Option("--max-edges", help="Atom pairs per batch.")] = 20000,
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Predict Fock matrix, orbitals, gap, dipole, charges, density (.npz, PySCF order), or energies."""
    with session("predict", json_file=json_file, verbose=verbose) as s:
        from helmol.errors import InputError
        from helmol.predict import TrainedModel
        from helmol.predict.files import predict_file
        from helmol.skipped import joined

        model = TrainedModel.load(run, device=device, precision=precision)
        if not model.has_fock and (residual or molden):
            raise InputError(
                f"--residual and --molden are of Fock matrices, and {run} predicts energies only"
            )
        energies: dict[str, Any] = {}
        if model.has_energy:
            others = [TrainedModel.load(path, device=device, precision=precision) for path in also or []]
            models = [model, *others]
            energies = _energies(
                s, models, molecules, out=out, split=split, max_edges=max_edges, strict=strict
            )
        elif also:
            raise InputError(f"--also averages energies, and {run} predicts Fock matrices only")
        if not model.has_fock:
            s.result(energies)
            s.next(f"helmol evaluate {run} STORE")
            return
        writers = {}
        if molden:
            from helmol.pyscf import write_molden

            level = model.domain.level
            writers[".molden"] = lambda p, file: write_molden(p, file, level=level)
        result = predict_file(
            model,
            molecules,
            out=out,
            residual=residual,
            writers=writers,
            split=split,
            overwrite=overwrite,
            compress=compress,
            max_edges=max_edges,
            strict=strict,
        )
        columns = ["id", "formula", "gap_eV", "dipole_debye", "residual_Eh"]
        rows = [["-" if row[c] is None else row[c] for c in columns] for row in result["molecules"][:10]]
        s.table(f"{result['n_molecules']} molecules in {out}, first {len(rows)}", columns, rows)
        skipped = joined([result, energies] if energies else [result])
        s.say(
            f"{result['n_predicted']} predicted, {result['n_kept']} already there, "
            f"{skipped['n_skipped']} skipped"
        )
        _say_flags(s, result)
        if result["n_others"]:
            s.say(f"{out} has {result['n_others']} results of earlier calls too, which are not in the table")
        s.say(f"table of all molecules in {out / 'summary.csv'}")
        s.result({**result, **({"energies": energies} if energies else {}), **skipped})
        s.next(f"helmol guess {run} {molecules[0]}")


def _say_flags(s: Session, result: dict[str, Any]) -> None:
    """Name the first molecules that somebody should look at, and how many there are."""
    flagged = [row for row in result["molecules"] if row["flags"]]
    if flagged:
        s.say(f"LOOK AT {len(flagged)} of {result['n_molecules']} molecules (column flags of the table):")
    for row in flagged[:MOST_SHOWN]:
        s.say(f"  {row['id']} ({row['formula']}): {row['flags']}")
    if len(flagged) > MOST_SHOWN:
        s.say(f"  and {len(flagged) - MOST_SHOWN} more")


def _energies(
    s: Session, models: list[Any], molecules: list[Path], *, out: Path, **settings: Any
) -> dict[str, Any]:
    """Predict energies and print the first of them."""
    from helmol.predict.energy_files import COLUMNS, predict_energies_of_file

    result = predict_energies_of_file(models, molecules, out=out, **settings)
    rows = [["-" if row[c] is None else row[c] for c in COLUMNS] for row in result["molecules"][:10]]
    title = f"{result['n_molecules']} energies in {out} ({result['n_skipped']} skipped), first {len(rows)}"
    s.table(title, list(COLUMNS), rows)
    s.say(f"all of them in {out / 'energies.csv'} and {out / 'energies.extxyz'}")
    return result
