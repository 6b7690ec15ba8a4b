"""``helmol embed RUN STORE``: a picture of a network's atoms, and how well environments are separated."""

import os
from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import Device, JsonFile, Out, Seed, Strict, Verbose, results_folder
from helmol.cli.session import session

COLUMNS = ("n_atoms", "n_environments", "purity", "chance", "silhouette")


def embed(
    run: Annotated[
        Path, typer.Argument(help="Run folder, model folder, or a name that 'helmol models' shows.")
    ],
    store: Annotated[
        list[Path],
        typer.Argument(help="Stores (.h5) or structures (xyz, extxyz, ...): files, folders, patterns."),
    ],
    compare: Annotated[
        list[Path] | None,
        typer.Option(
            "--compare", help="Another run to draw below, e.g. one without pre-training (repeatable)."
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="pca, or umap (helmol[embed]).")] = "pca",
    split: Annotated[
        str, typer.Option("--split", help="Split of a store; 'all' for the whole store.")
    ] = "all",
    neighbours: Annotated[int, typer.Option("--neighbours", min=1, help="k of the purity.")] = 10,
    out: Out = None,
    device: Device = "auto",
    seed: Seed = 0,
    strict: Strict = False,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Draw atom features by element and by environment, and score how well they separate environments."""
    with session("embed", json_file=json_file, verbose=verbose) as s:
        from helmol.embed.run import embed_runs
        from helmol.letters import text_of
        from helmol.predict import TrainedModel

        folder = out or results_folder(run, "embedding")
        models = {}
        for path in [run, *(compare or [])]:
            name = text_of(Path(os.path.realpath(path)).name)
            name = text_of(path) if name in models else name
            models[name] = TrainedModel.load(path, device=device).model
        result = embed_runs(
            models,
            store,
            method=method,
            split=split,
            neighbours=neighbours,
            seed=seed,
            out=folder,
            strict=strict,
        )
        rows = [
            [
                name,
                element,
                *("-" if entry[k] is None else entry[k] for k in COLUMNS),
            ]
            for name, part in result["models"].items()
            for element, entry in part["by_element"].items()
        ]
        columns = ["model", "element", "atoms", "environments", "k-NN purity", "chance", "silhouette"]
        title = (
            f"{result['n_atoms']} atoms of {result['n_molecules']} molecules ({result['n_skipped']} skipped)"
        )
        if rows:
            s.table(title, columns, rows)
        else:
            s.say(f"{title}: no element is in two environments, so there is nothing to separate")
        s.say(f"figure {result['figure']}, coordinates {result['coordinates']}")
        s.result(result)
        s.next(f"helmol evaluate {run} {store[0]}")
