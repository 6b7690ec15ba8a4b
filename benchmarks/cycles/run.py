"""Compare PySCF's own cycles with the cheap ones, from minao and from the model that comes with helmol.

    OMP_NUM_THREADS=1 python benchmarks/cycles/run.py benchmarks/cycles/results.json

One molecule after the other in one process, its starts in turn; what is in the file already is kept. At the
end it prints the table of the documentation: medians of CPU time in units of that of PySCF's own cycles.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import yaml

import helmol
from helmol import dft, structures
from helmol.files import write_json
from helmol.pyscf import accelerate, attach

# isort: split
from pyscf import dft as pyscf_dft

HERE = Path(__file__).parent
STARTS = ("minao", "model", "minao, cheap", "model, cheap")
MODEL = "organic"


def main() -> None:
    """Write the results, SCF by SCF, and print the table."""
    out = Path(sys.argv[1])
    rows: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    cases = yaml.safe_load((HERE / "cycles.yaml").read_text(encoding="utf-8"))["cases"]
    found = [frame for frame in structures.each(HERE / "molecules.extxyz")]
    model = helmol.load(MODEL)
    # What is loaded once is nobody's time.
    model.predict(found[0].molecule)
    measure(found[0].molecule, {"xc": "pbe", "basis": "sto-3g", "density_fit": True}, "minao, cheap", model)
    for name, case in cases.items():
        radical = case.get("radical", False)
        for frame in [f for f in found if bool(f.molecule.spin) == radical][: case["molecules"]]:
            for start in STARTS:
                known = {(row["case"], row["molecule"], row["start"]) for row in rows}
                if (name, frame.id, start) in known or not possible(case, start):
                    continue
                row = {"case": name, "molecule": frame.id, "start": start}
                rows.append(row | measure(frame.molecule, case, start, model))
                write_json(out, rows)
    sys.stdout.write(table(rows) + "\n")


def possible(case: dict[str, Any], start: str) -> bool:
    """Return whether the model has something to say: it knows closed shells, of any functional and basis."""
    return "model" not in start or not case.get("radical")


def measure(molecule: Any, case: dict[str, Any], start: str, model: Any) -> dict[str, Any]:
    """Run one SCF with PySCF's own settings and return what it took."""
    level = dft.LevelConfig(xc=case["xc"], basis=case["basis"])
    mole = dft.build_mole(molecule, level)
    # By name, so that PySCF finds its auxiliary basis.
    mole.basis = case["basis"]
    mf = (pyscf_dft.UKS if mole.spin else pyscf_dft.RKS)(mole, xc=case["xc"])
    mf.verbose, mf.chkfile = 0, None
    if case["density_fit"]:
        mf = mf.density_fit()
    if "cheap" in start:
        accelerate(mf)
    if "model" in start:
        attach(mf, model)
    begin, cpu = time.perf_counter(), time.process_time()
    mf.kernel()
    row = {
        "cpu_s": round(time.process_time() - cpu, 2), "wall_s": round(time.perf_counter() - begin, 2),
        "energy_Eh": round(float(mf.e_tot), 10), "converged": bool(mf.converged), "cycles": int(mf.cycles),
        "functions": int(mole.nao),
    }  # fmt: skip
    if "model" in start:
        row |= {"start_used": mf.helmol_info.used, "moved": mf.helmol_info.moved}
    if "cheap" in start:
        info = mf.helmol_cycles
        row |= {"cheap": info.used, "reason": info.reason, "evaluations": info.fine_evaluations}
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Return medians over molecules as a table in Markdown."""
    lines = ["| case | molecules | " + " | ".join(STARTS) + " | evaluations | energy off / Eh |"]
    lines.append("|---|---:|" + "---:|" * (len(STARTS) + 2))
    for case in dict.fromkeys(row["case"] for row in rows):
        of = {(row["molecule"], row["start"]): row for row in rows if row["case"] == case}
        molecules = [m for m, start in of if start == "minao"]
        cells = []
        for start in STARTS:
            ratios = [of[m, start]["cpu_s"] / of[m, "minao"]["cpu_s"] for m in molecules if (m, start) in of]
            cells.append(f"{statistics.median(ratios):.2f}" if ratios else "")
        cheap = [row for (_, start), row in of.items() if "cheap" in start]
        evaluations = sorted({row["evaluations"] for row in cheap})
        off = max(abs(row["energy_Eh"] - of[row["molecule"], "minao"]["energy_Eh"]) for row in cheap)
        cells += ["–".join(map(str, dict.fromkeys([evaluations[0], evaluations[-1]]))), f"{off:.0e}"]
        lines.append(f"| {case} | {len(molecules)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
