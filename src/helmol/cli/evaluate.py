"""``helmol evaluate RUN STORE``: the error table of a model, beside that of cheap guesses."""

from pathlib import Path
from typing import Annotated, Any

import typer

from helmol.cli.options import Device, JsonFile, Out, Precision, Verbose
from helmol.cli.session import Session, session

UNITS = {
    "h_mae_uEh": "F, all elements / µEh",
    "h_mae_diagonal_uEh": "F, diagonal blocks / µEh",
    "h_mae_offdiagonal_uEh": "F, off-diagonal blocks / µEh",
    "h_mae_alpha_uEh": "F, alpha / µEh",
    "h_mae_beta_uEh": "F, beta / µEh",
    "h_mae_spin_uEh": "F, alpha minus beta / µEh",
    "eps_occ_mae_uEh": "occupied energies / µEh",
    "homo_mae_uEh": "HOMO / µEh",
    "lumo_mae_uEh": "LUMO / µEh",
    "gap_mae_uEh": "gap / µEh",
    "density_error": "density ‖ΔP‖",
    "density_error_per_electron": "density ‖ΔP‖ per electron",
    "dipole_mae_debye": "dipole / Debye",
    "psi_similarity": "orbital similarity |cos|",
    "psi_similarity_s": "orbital similarity, metric S",
    "energy_mae_meV": "energy / meV",
    "energy_mae_meV_per_atom": "energy per atom / meV",
    "force_mae_meV_per_angstrom": "force components / meV/Å",
    "energy_from_h_mae_meV": "energy of the predicted F / meV",
    "energy_from_h_corrected_mae_meV": "the same, second order / meV",
}
INTERVALS = {
    "h_mae_uEh_ci95": "F (µEh)",
    "energy_mae_meV_ci95": "the energy (meV)",
    "force_mae_meV_per_angstrom_ci95": "forces (meV/Å)",
}


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.")],
    store: Annotated[Path, typer.Argument(help="Store with labels (.h5).")],
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            help="Split to evaluate, or 'all'. Default: test, else the molecules the run has not seen.",
        ),
    ] = None,
    energy_from_h: Annotated[
        int,
        typer.Option(
            "--energy-from-h",
            metavar="N",
            min=0,
            help="Evaluate the energy of the predicted F for the first N molecules.",
        ),
    ] = 0,
    out: Out = None,
    precisions: Annotated[
        int,
        typer.Option(
            "--precisions",
            metavar="N",
            min=0,
            help="Compare all precisions of matrix products on N molecules.",
        ),
    ] = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    max_edges: Annotated[int, typer.Option("--max-edges", help="Atom pairs per batch.")] = 20000,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Compare a model with labels: Fock matrix, orbitals, density, dipole, energy, forces; with baselines."""
    with session("evaluate", json_file=json_file, verbose=verbose) as s:
        from helmol.evaluate.run import evaluate_store
        from helmol.predict import TrainedModel

        model = TrainedModel.load(run, device=device, precision=precision)
        folder = out or Path(run) / "evaluation"
        result = evaluate_store(
            model.network, store, split=split, seen=_seen(run), out=folder, max_edges=max_edges,
            energy_from_h=energy_from_h, precisions=precisions,
        )  # fmt: skip
        show(
            s,
            result,
            f"{result['split']} of {store}, {result['n_molecules']} molecules, target {result['target']}",
        )
        if "precisions" in result:
            title = f"precisions of matrix products, {min(precisions, result['n_molecules'])} molecules"
            columns = ["h_change_uEh", "h_change_max_uEh", "h_mae_uEh", "eps_occ_mae_uEh"]
            head = ["", "change of F / µEh", "largest / µEh", "error of F / µEh", "occupied energies / µEh"]
            s.table(title, head, [[n, *[row[c] for c in columns]] for n, row in result["precisions"].items()])
        s.say(f"plots and evaluation.json in {folder}")
        s.result(result)
        s.next(f"helmol predict {run} {store} --out predictions")


def _seen(run: Path) -> set[str]:
    """Return the ids that a run was trained or chosen on; none for a bare model folder."""
    path = run / "split.json"
    if not path.is_file():
        return set()
    from helmol.damage import read_json, understood

    split = read_json(path)
    with understood(str(path)):
        return {str(id) for role in ("train", "val") for id in split[role]}


def show(s: Session, result: dict[str, Any], title: str) -> None:
    """Print the table of a model beside its baselines."""
    columns = {"model": result, **result["baselines"]}
    rows = [
        [label, *["-" if part.get(key) is None else float(part[key]) for part in columns.values()]]
        for key, label in UNITS.items()
        if key in result
    ]
    s.table(title, ["mean error", *columns], rows)
    for reason in sorted(set(result["missing"].values())):
        s.say(f"left out (-): {reason}")
    for key, name in INTERVALS.items():
        if result.get(key) is not None:
            low, high = result[key]
            s.say(f"95 % interval of the error of {name} over molecules: {low:.3g} to {high:.3g}")
