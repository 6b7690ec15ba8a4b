"""``helmol predict RUN MOLS``: Fock matrices and what follows from them, for many molecules."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from helmol.cli.options import Device, JsonFile, Precision, Strict, Verbose, part, words
from helmol.cli.session import Session, session

FORMATS, MANY = "Formats beside the arrays", "Many molecules"
"""Headings of the help."""

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
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--properties",
            help="More to compute: charges (Löwdin, intrinsic orbitals), bonds (Mayer, Wiberg), spins, "
            "quadrupole, energy and forces (DFT, right to 1 meV: some Fock builds each); with commas, or "
            "repeated.",
        ),
    ] = None,
    cube: Annotated[
        list[str] | None,
        typer.Option(
            "--cube",
            help="Cube files: density, spin, esp (slow), homo, homo-1, lumo, lumo+1, ..., the number of an "
            "orbital from 1; with commas, or repeated.",
            rich_help_panel=FORMATS,
        ),
    ] = None,
    cube_spacing: Annotated[
        float,
        typer.Option("--cube-spacing", help="Distance of a cube's points, Å.", rich_help_panel=FORMATS),
    ] = 0.25,
    molden: Annotated[
        bool, typer.Option("--molden", help="Orbitals as .molden.", rich_help_panel=FORMATS)
    ] = False,
    chkfile: Annotated[
        bool,
        typer.Option(
            "--chkfile", help="PySCF's checkpoint (.chk): any script starts from it.", rich_help_panel=FORMATS
        ),
    ] = False,
    dos: Annotated[
        bool,
        typer.Option("--dos", help="Picture of the density of states (.dos.png).", rich_help_panel=FORMATS),
    ] = False,
    extxyz: Annotated[
        bool,
        typer.Option(
            "--extxyz",
            help="Geometries with dipoles and charges for ASE: predictions.extxyz.",
            rich_help_panel=FORMATS,
        ),
    ] = False,
    parquet: Annotated[
        bool,
        typer.Option("--parquet", help="Tables as .parquet, too (needs pyarrow).", rich_help_panel=FORMATS),
    ] = False,
    one_file: Annotated[
        bool,
        typer.Option(
            "--one-file",
            help="Arrays of all molecules in predictions.h5, no .npz each.",
            rich_help_panel=MANY,
        ),
    ] = False,
    matrices: Annotated[
        bool,
        typer.Option(
            "--matrices/--no-matrices",
            help="Whether to keep matrices of orbitals, which take nearly all the space.",
            rich_help_panel=MANY,
        ),
    ] = True,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="i/n: the i-th of n parts, for job arrays; own --out each.",
            rich_help_panel=MANY,
        ),
    ] = None,
    compress: Annotated[
        bool,
        typer.Option(
            "--compress", help="Compressed arrays: a little smaller, much slower.", rich_help_panel=MANY
        ),
    ] = False,
    split: Annotated[
        str, typer.Option("--split", help="Split of a store; 'all' for the whole store.")
    ] = "all",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Predict again what is there.")] = False,
    device: Device = "auto",
    precision: Precision = "fp32",
    max_edges: Annotated[int, typer.Option("--max-edges", help="Atom pairs per batch.")] = 20000,
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Predict Fock matrix, orbitals, gap, dipole, charges, density (.npz, PySCF order), or energies.

    What is there already from the same model is kept: the same command goes on where it was stopped.
    """
    with session("predict", json_file=json_file, verbose=verbose) as s:
        from helmol.errors import InputError
        from helmol.heap import keep_freed_memory
        from helmol.predict import TrainedModel
        from helmol.predict.files import predict_file
        from helmol.skipped import joined

        keep_freed_memory()
        model = TrainedModel.load(run, device=device, precision=precision)
        asked = {
            "--residual": residual, "--properties": properties, "--cube": cube, "--molden": molden,
            "--chkfile": chkfile, "--dos": dos, "--extxyz": extxyz, "--parquet": parquet,
            "--one-file": one_file, "--no-matrices": not matrices,
        }  # fmt: skip
        if not model.has_fock and any(asked.values()):
            names = ", ".join(name for name, value in asked.items() if value)
            raise InputError(f"{names}: of Fock matrices, and {run} predicts energies only")
        energies: dict[str, Any] = {}
        if model.has_energy:
            others = [TrainedModel.load(path, device=device, precision=precision) for path in also or []]
            models = [model, *others]
            energies = _energies(
                s,
                models,
                molecules,
                out=out,
                split=split,
                shard=part(shard),
                max_edges=max_edges,
                strict=strict,
            )
        elif also:
            raise InputError(f"--also averages energies, and {run} predicts Fock matrices only")
        if not model.has_fock:
            s.result(energies)
            s.next(f"helmol evaluate {run} STORE")
            return
        writers = format_writers(
            model, cubes=words(cube), spacing=cube_spacing, molden=molden, chkfile=chkfile, dos=dos
        )
        result = predict_file(
            model,
            molecules,
            out=out,
            residual=residual,
            properties=words(properties),
            writers=writers,
            extxyz=extxyz,
            parquet=parquet,
            one_file=one_file,
            matrices=matrices,
            split=split,
            shard=part(shard),
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
        s.say(f"tables of all molecules in {', '.join(str(out / name) for name in result['tables'])}")
        s.result({**result, **({"energies": energies} if energies else {}), **skipped})
        s.next(f"helmol guess {run} {molecules[0]}")


def format_writers(
    model: Any, *, cubes: list[str], spacing: float, molden: bool, chkfile: bool, dos: bool
) -> dict[str, Any]:
    """Return what writes the formats asked for, by suffix."""
    writers: dict[str, Any] = {}
    if cubes or chkfile:
        # Where PySCF is missing that is said now, not of every molecule.
        importlib.import_module("helmol.dft")
    if molden:
        from helmol.pyscf import write_molden

        writers[".molden"] = write_molden
    if chkfile:
        from helmol.predict.exports import write_chkfile

        writers[".chk"] = write_chkfile
    if cubes:
        from helmol.predict.exports import CubeWriter, check_spacing, cube_names

        check_spacing(spacing)
        for name in cube_names(cubes, unrestricted=model.domain.n_spins == 2):
            writers[f".{name}.cube"] = CubeWriter(name, spacing)
    if dos:
        from helmol.predict.pictures import plot_states

        writers[".dos.png"] = plot_states
    return writers


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
