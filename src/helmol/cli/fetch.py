"""``helmol fetch hf://OWNER/NAME``: a model from the Hugging Face hub."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Verbose
from helmol.cli.session import session


def fetch(
    name: Annotated[str, typer.Argument(help="hf://OWNER/NAME, or with @REVISION.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Copy it into this new folder (default: the hub's cache)."),
    ] = None,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Fetch a model, or its newest version, from the Hugging Face hub."""
    with session("fetch", json_file=json_file, verbose=verbose) as s:
        from helmol import hub
        from helmol.errors import InputError
        from helmol.model import copy_model, describe_model

        wanted = hub.hub_name(name)
        if wanted is None:
            raise InputError(f"{name!r} is no name on the hub: expected {hub.PREFIX}OWNER/NAME")
        folder = hub.fetch(wanted)
        if out is not None:
            copy_model(folder, out)
            folder = out
        _, domain, _ = describe_model(folder)
        s.say(f"{wanted}: {domain.level.label} in {folder}")
        s.result({"name": str(wanted), "folder": str(folder), "level": domain.level.label})
        s.next(f"helmol predict {out or wanted} MOLECULES.xyz")
