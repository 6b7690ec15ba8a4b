"""``helmol export MODEL --out FOLDER``: a model to keep or to give away."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Verbose
from helmol.cli.session import session


def export(
    model: Annotated[Path, typer.Argument(help="A run, a model folder, or the name of a model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder.")],
    licence: Annotated[
        str | None, typer.Option("--licence", "--license", help="Of the model: mit, cc-by-4.0, ...")
    ] = None,
    push: Annotated[
        str | None, typer.Option("--push", help="Put it on the Hugging Face hub too: hf://OWNER/NAME.")
    ] = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Write weights, description and card of a model as a folder that every verb takes."""
    with session("export", json_file=json_file, verbose=verbose) as s:
        from helmol import hub
        from helmol.errors import InputError
        from helmol.model import export_model

        name = None if push is None else hub.hub_name(push)
        if push is not None and name is None:
            raise InputError(f"--push {push!r} is no name on the hub: expected {hub.PREFIX}OWNER/NAME")
        result = export_model(model, out, licence=licence)
        s.say(
            f"{out}: {result['parameters']:,} parameters, {result['bytes'] / 1e6:.1f} MB, {result['level']}"
        )
        if name is not None:
            result["url"] = hub.push(out, name)
            s.say(f"{name}: {result['url']}")
        s.result(result)
        s.next(f"helmol predict {name or out} MOLECULES.xyz")
