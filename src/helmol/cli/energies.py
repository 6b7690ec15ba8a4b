"""``helmol energies MODEL STORE --out FOLDER``: a model of Fock matrices that reads energies from them."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import Device, JsonFile, Seed, Strict, Verbose
from helmol.cli.session import session

ROWS = (
    ("molecules", "n_molecules"),
    ("mean absolute error / meV", "energy_mae_meV"),
    ("per atom / meV", "energy_mae_meV_per_atom"),
    ("root mean square / meV", "energy_rmse_meV"),
)


def energies(
    model: Annotated[
        Path, typer.Argument(help="Run folder, model folder, or a name that 'helmol models' shows.")
    ],
    store: Annotated[Path, typer.Argument(help="Store (.h5) with energies at the model's level.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New model folder.")],
    way: Annotated[
        str,
        typer.Option(
            "--way",
            help="density: the energy of the predicted density; matrix: that of the matrix to second order, "
            "cheaper and less exact.",
        ),
    ] = "density",
    number: Annotated[
        int | None, typer.Option("--number", "-n", min=3, help="Energies to learn, drawn; default: all.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Split to learn. Default: train, else all but the test split."),
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", help="Split to compare with. Default: test, if there is one.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Learn from few energies what is missing in those of predicted Fock matrices."""
    with session("energies", json_file=json_file, verbose=verbose) as s:
        from helmol.predict import learn_energies

        result = learn_energies(
            model, store, out=out, way=way, split=split, test=test, number=number, seed=seed,  # type: ignore[arg-type]
            device=device, strict=strict,
        )  # fmt: skip
        s.say(
            f"{out}: {result['n_labels']} energies learnt, {result['left_out_mae_meV']:.3g} meV on molecules "
            "left out of the fit"
        )
        if (table := result["test"]) is not None:
            rows = [[name, table[key]] for name, key in ROWS]
            s.table("test", ["", "energy"], rows)
        s.result(result)
        s.next(f"helmol predict {out} MOLECULES.xyz")
