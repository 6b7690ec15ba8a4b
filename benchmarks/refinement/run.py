"""Measure what Newton steps make of predictions: errors of energy and forces against builds, beside an SCF's.

    OMP_NUM_THREADS=1 python benchmarks/refinement/run.py benchmarks/refinement/results.json

The molecules are those of ``molecules.extxyz`` (of ASE's collection g2, each coordinate moved by 0.05 Å at
random) and of ``benchmarks/cycles`` (QM9); `organic` has seen none of them. For each one SCF from minao gives
the truth and, cycle by cycle, the errors of DIIS; one from the model the same. What is in the file is kept.
At the end: medians, and how often the estimated error covers the true one.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import helmol
from helmol import dft, markdown, structures
from helmol.files import write_json
from helmol.units import EV_PER_HARTREE

HERE = Path(__file__).parent
MOLECULES = (HERE / "molecules.extxyz", HERE.parent / "cycles" / "molecules.extxyz")
MODEL = "organic"
PLANS = ((0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (2, 2))
"""Steps and rounds."""
MEV = 1000 * EV_PER_HARTREE
FORCE = MEV / 0.529177210903


def main() -> None:
    """Write the results, molecule by molecule, and print the table."""
    out = Path(sys.argv[1])
    rows: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    model = helmol.load(MODEL)
    for frame in (frame for path in MOLECULES for frame in structures.each(path)):
        if frame.molecule.spin or frame.id in {row["molecule"] for row in rows}:
            continue
        rows.append({"molecule": frame.id, **measure(frame.molecule, model)})
        write_json(out, rows)
    sys.stdout.write(table(rows) + "\n")


def measure(molecule: Any, model: Any) -> dict[str, Any]:
    """Return the errors for one molecule, meV and meV/Å, and CPU seconds."""
    level = dft.level_from(model.domain.level).model_copy(update={"conv_tol": 1e-10})
    mole = dft.build_mole(molecule, level)
    prediction = model.predict(mole)
    energies: dict[str, list[float]] = {}
    found: dict[str, Any] = {}
    for start, density in (("minao", None), ("model", prediction.density)):
        mf, energies[start] = dft.mean_field(mole, level), []
        mf.callback = lambda step, to=energies[start]: to.append(float(step["e_tot"]))
        begin = time.process_time()
        mf.kernel(dm0=density)
        found[f"scf_{start}_s"], found[f"scf_{start}_cycles"] = time.process_time() - begin, int(mf.cycles)
    truth, forces = float(mf.e_tot), -mf.nuc_grad_method().set(verbose=0).kernel()
    for start, path in energies.items():
        found[f"diis_{start}_meV"] = [MEV * (energy - truth) for energy in path]
    found["plans"] = []
    for steps, rounds in PLANS:
        begin = time.process_time()
        refined = dft.refine(mole, level, prediction.fock, steps=steps, rounds=rounds)
        seconds = time.process_time() - begin
        error = dft.forces_of(mole, level, refined) - forces
        found["plans"].append({
            "steps": steps, "rounds": rounds, "seconds": seconds,
            "energy_meV": MEV * (refined.energy - truth),
            "remaining_meV": MEV * refined.remaining, "gained_meV": MEV * refined.gained,
            "error_meV": MEV * refined.error,
            "force_meV_per_angstrom": FORCE * float(np.abs(error).mean()),
        })  # fmt: skip
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Return medians over the molecules, and of how many the estimated error covers the true one."""
    lines = []
    for k, (steps, rounds) in enumerate(PLANS):
        plans = [row["plans"][k] for row in rows]
        share = [plan["seconds"] / row["scf_minao_s"] for plan, row in zip(plans, rows, strict=True)]
        known = [plan for plan in plans if rounds == 1 or "error_meV" in plan]
        errors = [(plan["energy_meV"], estimate(plan)) for plan in known]
        covered = [abs(error) <= bar for error, bar in errors]
        lines.append(
            [
                f"{steps} steps, {rounds} round{'s' * (rounds > 1)}",
                statistics.median(abs(plan["energy_meV"]) for plan in plans),
                max(abs(plan["energy_meV"]) for plan in plans),
                statistics.median(bar for _, bar in errors),
                f"{sum(covered)} of {len(covered)}",
                statistics.median(plan["force_meV_per_angstrom"] for plan in plans),
                statistics.median(share),
            ]
        )
    head = ["", "energy / meV", "largest", "bar / meV", "covered", "forces / meV/Å", "CPU time / SCF"]
    return markdown.table(head, lines)


def estimate(plan: dict[str, Any]) -> float:
    """Return the estimated error in meV: of one round by today's constants, of two as it was found."""
    if plan["rounds"] > 1:
        return float(plan["error_meV"])
    remaining, gained = plan["remaining_meV"] / MEV, plan["gained_meV"] / MEV
    return MEV * dft.energy_error(remaining, gained)


if __name__ == "__main__":
    main()
