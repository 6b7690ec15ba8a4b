"""``helmol guess RUN MOL``: what an SCF gains by starting from the model."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import Device, JsonFile, Out, Verbose
from helmol.cli.session import session


def guess(
    run: Annotated[
        Path, typer.Argument(help="Run folder, model folder, or a name that 'helmol models' shows.")
    ],
    molecule: Annotated[Path, typer.Argument(help="Structure file (xyz, extxyz, ...).")],
    starts: Annotated[
        str,
        typer.Option(
            "--starts",
            help="Comma-separated: minao, model, atom, huckel, vsap; minao-cheap, model-cheap (cheap cycles)",
        ),
    ] = "minao,model",
    index: Annotated[int, typer.Option("--index", help="Frame of the file, from 0.")] = 0,
    out: Out = None,
    device: Device = "auto",
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Run one SCF per start at the model's level: cycles, Fock builds, wall time, same final state."""
    with session("guess", json_file=json_file, verbose=verbose) as s:
        from helmol import structures
        from helmol.errors import InputError
        from helmol.evaluate import plots
        from helmol.evaluate.remarks import no_gain
        from helmol.files import write_json
        from helmol.predict import TrainedModel
        from helmol.pyscf import CHEAP, compare_starts

        model = TrainedModel.load(run, device=device)
        found = list(structures.each(molecule))
        if not -len(found) <= index < len(found):
            raise InputError(f"{molecule} has {len(found)} structures, no index {index} (they count from 0)")
        frame = found[index]
        if isinstance(frame, InputError):
            raise frame  # another frame that is no molecule does not matter
        chosen = frame.molecule
        model.domain.check(chosen)
        names = [name.strip() for name in starts.split(",") if name.strip()]
        result = compare_starts(chosen, model, starts=names)
        folder, picture = out or Path("guess"), "scf_convergence.png"
        runs = {name: result[name] for name in names}
        result["remarks"] = no_gain({n: run for n, run in runs.items() if n not in CHEAP})
        (folder / picture).unlink(missing_ok=True)  # never one of now beside one of before
        write_json(folder / "guess.json", result)
        title = f"{chosen.formula}, {model.domain.level.label}"
        title += "; the model's start was not used" if result["fell_back"] else ""
        plots.scf_convergence(runs, folder / picture, title=title)
        columns = ["cycles", "fock_builds", "seconds", "energy_Eh", "converged"]
        rows = [[n, *[f"{r[c]:.9f}" if c == "energy_Eh" else r[c] for c in columns]] for n, r in runs.items()]
        s.table(title, ["start", *columns], rows)
        same = "yes" if result["same_state"] else "NO"
        s.say(f"same state: {same}, energies within {result['energy_spread_Eh']:.1e} Eh")
        if result["fell_back"]:
            s.say(f"the model was not used: {result['reason']}")
        for line in result["remarks"]:
            s.say(line)
        s.say(f"plot and guess.json in {folder}")
        s.result(result)
        s.next(f"helmol predict {run} {molecule} --residual")
