"""``helmol evaluate RUN STORE``: the error table of a model, beside that of cheap guesses."""

from pathlib import Path
from typing import Annotated, Any

import typer

from helmol.cli.options import Device, JsonFile, Out, Precision, Strict, Verbose, results_folder
from helmol.cli.session import Session, session


def evaluate(
    run: Annotated[
        Path, typer.Argument(help="Run folder, model folder, or a name that 'helmol models' shows.")
    ],
    store: Annotated[list[Path], typer.Argument(help="Stores with labels (.h5): files, folders, patterns.")],
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
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Compare a model with labels: Fock matrix, orbitals, density, dipole, energy, forces; with baselines."""
    with session("evaluate", json_file=json_file, verbose=verbose) as s:
        from helmol.evaluate import METRICS
        from helmol.evaluate.run import evaluate_store
        from helmol.predict import TrainedModel

        trained = TrainedModel.load(run, device=device, precision=precision)
        folder = out or results_folder(run, "evaluation")
        result = evaluate_store(
            trained.model, store, split=split, seen=_seen(run), out=folder, max_edges=max_edges,
            energy_from_h=energy_from_h, precisions=precisions, strict=strict,
        )  # fmt: skip
        show(s, result)
        if "precisions" in result:
            title = f"precisions of matrix products, {min(precisions, result['n_molecules'])} molecules"
            rows = result["precisions"].items()
            columns = [m for m in METRICS.values() if all(m.key in row for _, row in rows)]
            head = ["", *[metric.heading for metric in columns]]
            s.table(title, head, [[n, *[row[metric.key] for metric in columns]] for n, row in rows])
        s.say(f"report.md, plots and evaluation.json in {folder}")
        s.result(result)
        s.next(f"helmol predict {run} {store[0]} --out predictions")


def _seen(run: Path) -> set[str]:
    """Return the ids that a run was trained or chosen on; none for a bare model folder."""
    from helmol.train.folder import SPLIT, trained_on

    if not (run / SPLIT).is_file():
        return set()
    return {id for ids in trained_on(run).values() for id in ids}


def show(s: Session, result: dict[str, Any]) -> None:
    """Print the table of a model beside its baselines, and what should be said about it."""
    from helmol.evaluate import metrics, report

    title = (
        f"{result['split']} of {result['store']}, {result['n_molecules']} molecules "
        f"({result['n_skipped']} skipped), {report.learnt(result)}"
    )
    s.table(title, *report.error_columns(result))
    for reason in sorted(set(result["missing"].values())):
        s.say(f"left out (-): {reason}")
    for metric in metrics.METRICS.values():
        if result.get(f"{metric.key}_ci95") is not None:
            low, high = result[f"{metric.key}_ci95"]
            s.say(f"95 % interval of {metric.heading} over molecules: {low:.3g} to {high:.3g}")
    head, rows = report.published_columns(result)
    if rows:
        s.table(f"published on {result['set']}", head[:-1], [row[:-1] for row in rows])
    for line in result["remarks"]:
        s.say(line)
