"""The command ``helmol``: its verbs, and what happens to a command line that is wrong."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from helmol.cli.bench import bench
from helmol.cli.convert import convert
from helmol.cli.demo import demo
from helmol.cli.doctor import doctor
from helmol.cli.embed import embed
from helmol.cli.energies import energies
from helmol.cli.estimate import estimate
from helmol.cli.evaluate import evaluate
from helmol.cli.export import export
from helmol.cli.fetch import fetch
from helmol.cli.generate import generate
from helmol.cli.guess import guess
from helmol.cli.import_ import import_
from helmol.cli.inspect import inspect
from helmol.cli.merge import merge
from helmol.cli.models import models
from helmol.cli.predict import predict
from helmol.cli.references import references
from helmol.cli.session import fail
from helmol.cli.split import split
from helmol.cli.sweep import sweep
from helmol.cli.train import train
from helmol.letters import shown

VERBS = (
    doctor,
    demo,
    models,
    fetch,
    export,
    generate,
    import_,
    references,
    convert,
    merge,
    split,
    inspect,
    train,
    sweep,
    energies,
    evaluate,
    predict,
    guess,
    embed,
    estimate,
    bench,
)

app = typer.Typer(
    name="helmol",
    help="Learn the electronic structure of molecules: data, training, predictions, SCF starts.",
    epilog="Start with 'helmol doctor', then 'helmol demo'.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
NAMES = {verb.__name__.rstrip("_"): verb for verb in VERBS}
"""Verbs by what the user types; ``import`` is a keyword of Python, its function has an underscore."""

for name, verb in NAMES.items():
    app.command(name)(verb)


def _show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        from helmol import __version__

        typer.echo(f"helmol {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Learn the electronic structure of molecules: data, training, predictions, SCF starts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 only on success; an error is one line on standard error.

    Exit codes: 1 for what went wrong while running (see :mod:`helmol.cli.session`), 2 for a command
    line that cannot be understood, 3 where the work is done but something was skipped, 130 for Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal without µ and Å, and file names that are no text, get escapes instead of an error.
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if (message := _unknown_verb(words)) is not None:
        typer.echo(shown(f"helmol: {message}"), err=True)
        sys.exit(2)
    try:
        code = typer.main.get_command(app).main(words, prog_name="helmol", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        typer.echo("helmol: interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:
        verb_name = f" {words[0]}" if not words[0].startswith("-") else ""
        # typer's own errors, whose base class it does not export, can say what they are about.
        if not hasattr(error, "format_message"):
            sys.exit(fail(f"helmol{verb_name}", error))
        text = shown(" ".join(error.format_message().split()))
        typer.echo(f"helmol{verb_name}: {text} (see helmol{verb_name} --help)", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def _unknown_verb(arguments: Sequence[str]) -> str | None:
    """Return what to say about a first word that is no verb, ``None`` if it is one."""
    names = list(NAMES)
    word = next((argument for argument in arguments if not argument.startswith("-")), None)
    if word is None or word in names:
        return None
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"verbs are {', '.join(names)}"
    return f"there is no verb {word!r}; {hint}"


if __name__ == "__main__":
    main()
