"""``helmol doctor``: versions, device, and self-tests of the physics on this machine."""

from typing import Annotated

import typer

from helmol.cli.options import JsonFile, Verbose
from helmol.cli.session import session


def doctor(
    tests: Annotated[
        bool,
        typer.Option("--tests/--no-tests", help="Run the self-tests, or only show versions."),
    ] = True,
    json_file: JsonFile = None,
    verbose: Verbose = False,
) -> None:
    """Show versions and device, and run the self-tests; exit code 1 if one fails."""
    with session("doctor", json_file=json_file, verbose=verbose) as s:
        from dataclasses import asdict

        from helmol.doctor import blas_advice, blas_kernels, machine, self_tests, versions
        from helmol.errors import HelmolError

        found = {"versions": versions(), "machine": machine()}
        s.table("versions", ["library", "version"], list(found["versions"].items()))
        s.table("machine", ["", ""], list(found["machine"].items()))
        if (advice := blas_advice(blas_kernels())) is not None:
            s.say(advice)
        checks = self_tests() if tests else []
        verdict = {True: "passed", False: "FAILED", None: "not available"}
        if checks:
            rows = [[c.name, verdict[c.passed], c.detail, f"{c.seconds:.1f} s"] for c in checks]
            s.table("self-tests", ["test", "result", "measured", "time"], rows)
        failed = [c.name for c in checks if c.passed is False]
        tested = {"self_tests": [asdict(c) for c in checks], "passed": not failed}
        s.result({**found, "blas_advice": advice, **tested})
        if failed:
            raise HelmolError(f"{len(failed)} of {len(checks)} self-tests failed: {', '.join(failed)}")
        s.next("helmol demo")
