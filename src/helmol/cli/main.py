"""The entry point: every verb is imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import Annotated

import typer

VERBS: dict[str, str] = {
    "doctor": "Check this installation: versions, device, three self-tests.",
    "demo": "Go the whole way on water in minutes: labels, training, evaluation, an SCF start.",
    "generate": "Label structures with DFT and keep them in a store.",
    "inspect": "Describe a store: what is in it and whether it is sound.",
    "train": "Train a Hamiltonian model.",
    "evaluate": "Measure a model's errors on a store, beside those of cheap guesses.",
    "predict": "Predict Fock matrices and what follows from them.",
    "guess": "Start an SCF from a model and compare it with other starts.",
}


def make_app(verb: str | None) -> typer.Typer:
    """Build the command line with the options of one verb; of the others only names and help.

    Args:
        verb: the verb that will run, or ``None`` for the overview.
    """
    app = typer.Typer(
        add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
    )
    app.callback()(root)
    for name, text in VERBS.items():
        if name == verb:
            app.command(name=name)(getattr(importlib.import_module(f"helmol.cli.{name}"), name))
        else:
            app.command(name=name, help=text)(_not_called)
    return app


def _not_called() -> None:
    """Stand for a verb that this call does not run."""


def _print_version(value: bool) -> None:
    if value:
        from helmol import __version__

        typer.echo(f"helmol {__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learn the electronic structure of molecules: data, HELM network, predictions for PySCF and ASE."""


def main() -> None:
    """Run the command line."""
    verb = next((word for word in sys.argv[1:] if word in VERBS), None)
    make_app(verb)(prog_name="helmol")


if __name__ == "__main__":
    main()
