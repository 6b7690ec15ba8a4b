"""``helmol generate SPEC``: structures, labelled with PySCF by a pool of processes, in a store."""

from pathlib import Path
from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Sets, Strict, Verbose, part
from helmol.cli.session import session


def generate(
    spec: Annotated[
        list[Path],
        typer.Argument(help="YAML spec, or structures (xyz, extxyz, ...): files, folders, patterns."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Store to make or continue.")] = Path("data.h5"),
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", help="Processes, one thread each; default one per core, or one with a GPU."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Overrides the spec's seed.")] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="i/n: the i-th of n parts, for job arrays; own --out each.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    device: Annotated[
        str | None, typer.Option("--device", help="auto, cpu or cuda: over the spec's engine.")
    ] = None,
    strict: Strict = False,
    json_file: JsonFile = None,
    sets: Sets = None,
    verbose: Verbose = False,
) -> None:
    """Make a store of Fock matrices: structures from files or recipes, labels from PySCF; resumable."""
    with session("generate", json_file=json_file, verbose=verbose) as s:
        from helmol.generate import read_spec, run

        engine = [] if device is None else [f"engine={_engine(device)}"]
        config = read_spec(spec, overrides=[*(sets or []), *engine])
        result = run(
            config, out=out, workers=workers, seed=seed, retry_failed=retry_failed, shard=part(shard),
            strict=strict,
        )  # fmt: skip
        s.say(
            f"{result['n_labelled']} of {result['n_structures']} molecules in {out} ({result['level']}), "
            f"{result['n_new']} of them new, {result['n_failed']} failed; {result['n_skipped']} skipped"
        )
        if result["n_failed"]:
            s.say(f"reasons in {out}.failed.jsonl; --retry-failed tries them again")
        if result["molecules_per_core_hour"]:
            s.say(
                f"{result['seconds']:.0f} s, {result['molecules_per_core_hour']:.0f} molecules per core-hour"
            )
        s.result(result)
        s.next(f"helmol inspect {out}")


def _engine(device: str) -> str:
    """Return what computes on a device, as a spec names it."""
    engines = {"auto": "auto", "cpu": "cpu", "cuda": "gpu"}
    if device not in engines:
        from helmol.errors import InputError

        raise InputError(f"--device {device}: labels are made on {', '.join(engines)}")
    return engines[device]
