"""What every verb does around its one call: logging, one-line errors, results, the next command."""

from __future__ import annotations

import errno
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import typer

from helmol.errors import ElsewhereError, HelmolError, InputError, StoppedError
from helmol.letters import Lines, shown
from helmol.repeats import filtered

log = logging.getLogger("helmol.cli")

LEFT_OUT = {"ase": "ASE", "pyscf": "PySCF"}
"""Packages that a machine for training may lack."""

SKIPPED = 3
"""Exit code of a verb that did its work, but not on every item."""
STOPPED = 75
"""Exit code after SIGTERM or SIGUSR1, when all is saved: EX_TEMPFAIL of ``sysexits.h``, *try again*."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
MOST_SHOWN = 30
"""Rows of the table of what was skipped; all of them are in ``--json``."""

LONGEST = 2000
"""Characters of the one line at most."""
LONGEST_TRACEBACK = 100_000


class Session:
    """Collect what a verb has to say at its end."""

    def __init__(self, json_file: Path | None) -> None:
        self._json_file = json_file
        self.exit_code = 0

    def say(self, text: str) -> None:
        """Print a line for people."""
        typer.echo(shown(text))

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, left: bool = False
    ) -> None:
        """Print a table; floats are shown with four significant digits.

        Args:
            title: above it.
            columns: names.
            rows: cells.
            left: whether all columns are set to the left, as text; else all but the first to the right.
        """
        from rich.console import Console
        from rich.table import Table

        table = Table(title=shown(title), title_justify="left")
        for k, column in enumerate(columns):
            table.add_column(column, justify="left" if left or k == 0 else "right")
        for row in rows:
            table.add_row(*[f"{cell:.4g}" if isinstance(cell, float) else shown(str(cell)) for cell in row])
        Console(width=None if sys.stdout.isatty() else 120).print(table)

    def result(self, data: dict[str, Any]) -> None:
        """Write the machine-readable result where ``--json`` wants it, and show what was skipped.

        With something under ``skipped`` (:class:`helmol.skipped.Skipped`) the verb ends with exit code 3.
        """
        if self._json_file is not None:
            from helmol.files import write_json

            write_json(self._json_file, data)
        if data.get("n_skipped"):
            self._show_skipped(data["skipped"])
            self.exit_code = SKIPPED

    def _show_skipped(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Print the table of what was skipped."""
        columns = ["item", "file", "row", "reason"]
        rows = [
            ["-" if entry[name] is None else entry[name] for name in columns]
            for entry in entries[:MOST_SHOWN]
        ]
        self.table(f"{len(entries)} skipped", columns, rows, left=True)
        if len(entries) > MOST_SHOWN:
            self.say(f"and {len(entries) - MOST_SHOWN} more: --json FILE names all of them")

    def next(self, command: str) -> None:
        """Print the next useful command."""
        self.say(f"next: {command}")


@contextmanager
def session(
    verb: str, *, json_file: Path | None = None, verbose: bool = False, log_file: Path | None = None
) -> Iterator[Session]:
    """Run a verb: configure logging, turn errors into one line and an exit code.

    Exit codes: 1 for an error (``HelmolError``, a full disk, a fault of helmol), 3 where the work is done but
    something was skipped, 75 where a signal has stopped a training that can go on, 130 for Ctrl-C. Of several
    processes one says why they end.
    The traceback goes to ``log_file``, or to a file in the temporary folder that the line names.
    """
    logs = _configure_logging(verbose)
    try:
        if json_file is not None and json_file.is_dir():
            raise InputError(f"--json {json_file} is a folder: give a file")
        started = Session(json_file)
        yield started
    except KeyboardInterrupt:
        typer.echo(f"helmol {verb}: interrupted; what was finished is kept", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except ElsewhereError as error:
        raise typer.Exit(exit_code(error.__cause__)) from None
    except Exception as error:
        logs.close()
        raise typer.Exit(fail(f"helmol {verb}", error, log_file)) from None
    finally:
        logs.close()
    if started.exit_code:
        raise typer.Exit(started.exit_code)


def fail(program: str, error: Exception, log_file: Path | None = None) -> int:
    """Say in one line what went wrong, keep the traceback, and return the exit code."""
    where = _write_traceback(log_file)
    package = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, HelmolError):
        text = str(error)
    elif isinstance(error, ModuleNotFoundError) and package in LEFT_OUT:
        text = f"this needs {LEFT_OUT[package]}, which is not installed here: pip install {package}"
    else:
        text = f"{_reason(error)} (traceback: {where})"
    text = shown(" ".join(text.split()))
    typer.echo(f"{program}: {text if len(text) <= LONGEST else text[:LONGEST] + '…'}", err=True)
    return exit_code(error)


def exit_code(error: BaseException | None) -> int:
    """Return the exit code of a verb that ends with an exception."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return STOPPED if isinstance(error, StoppedError) else 1


def _reason(error: Exception) -> str:
    """Return what to say about an error that is not helmol's own."""
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return "no space left on the disk"
        name = "" if error.filename is None else f"{error.filename}: "
        return f"{name}{error.strerror or error}"
    if isinstance(error, MemoryError):
        return "there is not enough memory for this: smaller batches (--max-edges), fewer workers"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _configure_logging(verbose: bool) -> ExitStack:
    """Send log lines of helmol to standard error, and the warnings of libraries as such lines.

    Returns:
        What to close at the end: then it is said how often warnings came that were shown once.
    """
    root = logging.getLogger("helmol")
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    # A second verb in one process may have another sys.stderr; the first one may be closed by now.
    for old in [h for h in root.handlers if type(h) is logging.StreamHandler]:
        root.removeHandler(old)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines("%(message)s"))
    root.addHandler(handler)
    logs = ExitStack()
    if not verbose:
        logs.enter_context(filtered(handler))
    logs.callback(setattr, warnings, "showwarning", warnings.showwarning)
    warnings.showwarning = _log_warning
    return logs


def _log_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Log a library's warning in one line, instead of two with a line of its code."""
    log.warning("%s: %s", category.__name__, " ".join(str(message).split()))


def _write_traceback(log_file: Path | None) -> Path | None:
    """Append the current traceback to the log; a disk that is full does not hide the first error."""
    try:
        # One file per user: in a folder that all can write to, somebody else's cannot be appended to.
        path = log_file or Path(tempfile.gettempdir()) / f"helmol-error-{os.getuid()}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o600), "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(traceback.format_exc()[-LONGEST_TRACEBACK:])
    except OSError:
        return None
    return path
