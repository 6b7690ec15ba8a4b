"""What every verb does around its one call: logging, one-line errors, results, the next command."""

from __future__ import annotations

import errno
import logging
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from helmol.errors import HelmolError

LEFT_OUT = {"ase": "ASE", "pyscf": "PySCF"}
"""Packages that a machine for training may lack."""


class Session:
    """Collect what a verb has to say at its end."""

    def __init__(self, json_file: Path | None) -> None:
        self._json_file = json_file

    def say(self, text: str) -> None:
        """Print a line for people."""
        typer.echo(text)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table; floats are shown with four significant digits."""
        from rich.console import Console
        from rich.table import Table

        table = Table(title=title, title_justify="left")
        for k, column in enumerate(columns):
            table.add_column(column, justify="left" if k == 0 else "right")
        for row in rows:
            table.add_row(*[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row])
        Console(width=None if sys.stdout.isatty() else 120).print(table)

    def result(self, data: dict[str, Any]) -> None:
        """Write the machine-readable result where ``--json`` wants it."""
        if self._json_file is not None:
            from helmol.files import write_json

            write_json(self._json_file, data)

    def next(self, command: str) -> None:
        """Print the next useful command."""
        typer.echo(f"next: {command}")


@contextmanager
def session(
    verb: str, *, json_file: Path | None = None, verbose: bool = False, log_file: Path | None = None
) -> Iterator[Session]:
    """Run a verb: configure logging, turn errors into one line and an exit code.

    Exit codes: 1 for an error (``HelmolError``, a full disk, a fault of helmol), 130 for Ctrl-C.
    The traceback goes to ``log_file``, or to a file in the temporary folder that the line names.
    """
    _configure_logging(verbose)
    try:
        yield Session(json_file)
    except KeyboardInterrupt:
        typer.echo(f"helmol {verb}: interrupted; what was finished is kept", err=True)
        raise typer.Exit(130) from None
    except HelmolError as error:
        _write_traceback(log_file)
        typer.echo(f"helmol {verb}: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        where = _write_traceback(log_file)
        reason = "no space left on the disk" if error.errno == errno.ENOSPC else str(error)
        typer.echo(f"helmol {verb}: {reason} (traceback: {where})", err=True)
        raise typer.Exit(1) from None
    except Exception as error:
        package = (getattr(error, "name", None) or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in LEFT_OUT:
            typer.echo(
                f"helmol {verb}: this needs {LEFT_OUT[package]}, which is not installed here: "
                f"pip install {package}",
                err=True,
            )
            raise typer.Exit(1) from None
        where = _write_traceback(log_file)
        summary = " ".join(str(error).split())[:300]
        typer.echo(
            f"helmol {verb}: unexpected {type(error).__name__}: {summary} (traceback: {where})", err=True
        )
        raise typer.Exit(1) from None


def _configure_logging(verbose: bool) -> None:
    """Send log lines of helmol to standard error."""
    root = logging.getLogger("helmol")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # A second verb in one process may have another sys.stderr; the first one may be closed by now.
    for old in [h for h in root.handlers if type(h) is logging.StreamHandler]:
        root.removeHandler(old)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(handler)


def _write_traceback(log_file: Path | None) -> Path | None:
    """Append the current traceback to the log; a disk that is full does not hide the first error."""
    path = log_file or Path(tempfile.gettempdir()) / "helmol-error.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(traceback.format_exc())
    except OSError:
        return None
    return path
