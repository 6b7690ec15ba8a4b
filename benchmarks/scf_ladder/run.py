"""Converge the molecules of a file at a level of theory and write down what each took.

    python benchmarks/scf_ladder/run.py benchmarks/scf_ladder/after.json

Runs one after the other in one process; with OMP_NUM_THREADS=1 the CPU times are those of one core. Run at
another version of the package to compare.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

from helmol import dft, structures
from helmol.errors import ConvergenceError

HERE = Path(__file__).parent


def main() -> None:
    """Write the results, molecule by molecule; what is in the file already is kept."""
    warnings.simplefilter("ignore")
    out = Path(sys.argv[1])
    rows = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    known = {row["id"] for row in rows}
    level = dft.LevelConfig.model_validate({"preset": "fast", "method": "rks"})
    for structure in structures.each(HERE / "molecules.extxyz"):
        if structure.id not in known:
            rows.append(row_of(structure, level))
            out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n", encoding="utf-8")


def row_of(structure: structures.Structure, level: dft.LevelConfig) -> dict[str, object]:
    """Return what the labels of a structure took, or why there are none."""
    begin = time.process_time()
    row: dict[str, object] = {"id": structure.id, "formula": structure.molecule.formula}
    try:
        sample, _ = dft.run(structure.molecule, level, id=structure.id, references=())
        row |= {"energy_Eh": round(sample.energy, 8), "cycles": sample.provenance["n_cycles"]}
        row["steps"] = sample.provenance.get("scf_steps", ["diis"])
    except ConvergenceError as error:
        row["reason"] = str(error)
    return {**row, "cpu_s": round(time.process_time() - begin, 2)}


if __name__ == "__main__":
    main()
