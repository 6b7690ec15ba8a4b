"""Options that several verbs share, as annotated types (typer alone is imported here)."""

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder or file for the results.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Precision = Annotated[
    str,
    typer.Option("--precision", help="Of matrix products: fp32, tf32, tf32x3, bf16x3, bf16 (fast on CUDA)."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of every random choice.")]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the result to this file, machine-readable.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the configuration: key.sub=value (repeatable)."),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="End at the first item that cannot be used, instead of skipping it."),
]


def results_folder(run: Path, word: str) -> Path:
    """Return the folder for results about a model: inside its own, or NAME-word in this one."""
    return run / word if run.exists() else Path(f"{run.name}-{word}")


def part(shard: str | None) -> tuple[int, int] | None:
    """Read ``i/n``.

    Raises:
        InputError: it is something else.
    """
    if shard is None:
        return None
    first, slash, second = shard.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal()):
        from helmol.errors import InputError

        raise InputError(f"cannot read --shard {shard!r}: expected i/n, such as 1/10")
    return int(first), int(second)


def words(values: list[str] | None) -> list[str]:
    """Return the words of an option that can be repeated and whose values can be lists with commas."""
    return [word.strip() for value in values or [] for word in value.split(",") if word.strip()]
