"""Measure what a prediction costs against the size of a molecule: H₀, network, orbitals, in CPU seconds.

    OMP_NUM_THREADS=1 python benchmarks/speed/prediction.py organic --out benchmarks/speed/prediction.json

The molecules are ethanol and the peptides Ace-(Ala)ₙ-NMe (12 + 10 n atoms, one conformer each, needs RDKit).
Every number is the median over repeats, in one process on one thread; the first prediction is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import helmol
from helmol import dft, properties, structures
from helmol.files import write_json
from helmol.model import predict_fock


def cpu(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the median CPU time of some work, s, and what it gives."""
    times, found = [], None
    for _ in range(repeats):
        begin = time.process_time()
        found = work()
        times.append(time.process_time() - begin)
    return statistics.median(times), found


def measure(smiles: str, model: Any, basis: str, repeats: int) -> dict[str, Any]:
    """Return the parts of one prediction."""
    config = structures.ConformersConfig(n_conformers=1, n_embedded=1)
    (structure,) = structures.conformers(smiles, config, seed=0)
    molecule, level = (
        structure.molecule,
        dft.level_from(model.domain.level).model_copy(update={"basis": basis}),
    )
    mole = dft.build_mole(molecule, level)
    names = model.needed_references
    found: dict[str, Any] = {"smiles": smiles, "n_atoms": molecule.n_atoms, "n_ao": int(mole.nao)}
    found["h0_s"], references = cpu(lambda: dft.reference_focks(mole, level, names), repeats)
    if basis != model.domain.level.basis:
        return found
    found["overlap_s"], overlap = cpu(lambda: dft.overlap(mole), repeats)
    given = {**references, "overlap": overlap}
    found["network_s"], (fock,) = cpu(lambda: predict_fock(model.model, [molecule], [given]), repeats)
    found["orbitals_s"], _ = cpu(lambda: properties.orbitals(np.asarray(fock), overlap), repeats)
    found["predict_s"], _ = cpu(lambda: model.predict(molecule), repeats)
    return found


def main() -> None:
    """Measure all sizes and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--residues", type=int, nargs="+", default=[1, 2, 4, 9])
    parser.add_argument("--bases", nargs="+", default=["def2-svp", "def2-tzvpd"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    model = helmol.load(asked.model)
    smiles = ["CCO", *("CC(=O)" + "N[C@@H](C)C(=O)" * n + "NC" for n in asked.residues)]
    model.predict(structures.conformers("CCO", structures.ConformersConfig(), seed=0)[0].molecule)
    rows = []
    for basis in asked.bases:
        for text in smiles:
            rows.append({"basis": basis, **measure(text, model, basis, asked.repeats)})
            sys.stdout.write(f"{rows[-1]}\n")
    large = [row for row in rows if row["basis"] == asked.bases[0] and row["n_atoms"] > 20]
    slope = np.polyfit(np.log([r["n_atoms"] for r in large]), np.log([r["predict_s"] for r in large]), 1)[0]
    write_json(asked.out, {"model": asked.model, "rows": rows, "growth": float(slope)})
    sys.stdout.write(f"predict grows as N^{slope:.2f}\n")


if __name__ == "__main__":
    main()
