"""Count what the guard of a learnt start costs and saves, over SCFs of many kinds and spoilt models.

    OMP_NUM_THREADS=1 python benchmarks/harm/run.py benchmarks/harm/results.json

Per SCF of ``harm.yaml``: PySCF's own, from its own guess, and that of ``helmol.pyscf.attach``; Fock builds of
both to the last hidden one. What is in the file already is kept. At the end it prints the table of
``README.md`` and draws ``figure.png`` beside the file.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cases import Case, cases, model_of

import helmol
from helmol import markdown
from helmol.dft.mixin import Mixin
from helmol.files import write_json
from helmol.predict import TrainedModel
from helmol.pyscf import attach
from helmol.pyscf.start import reference_builds

MODEL = "organic"
SAME_ENERGY = 1e-6
"""Two SCFs end in the same energy within this, Eh: PySCF's tolerance is 1e-9."""
HARM = 1.05
"""A start that is used takes at most this multiple of the builds of PySCF's own."""


class Counting(Mixin):
    """Mix-in for SCF classes that counts Fock builds."""

    __name_mixin__ = "Counting"
    builds = 0

    def get_veff(self, *args: Any, **kwargs: Any) -> Any:
        """Build the potential and count it."""
        self.builds += 1
        return super().get_veff(*args, **kwargs)


def main() -> None:
    """Write the results, SCF by SCF, print the table and draw the picture."""
    logging.getLogger("helmol").setLevel(logging.ERROR)
    out = Path(sys.argv[1])
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    rows = {(row["group"], row["name"]): row for row in found}
    organic = helmol.load(MODEL)
    plain: dict[Any, dict[str, Any]] = {}
    done = []
    for case in cases():
        row = rows.setdefault((case.group, case.name), {"group": case.group, "name": case.name})
        # Several models start the same SCF.
        own = row.get("minao") or plain.get(case.scf) or measure(case, None)
        row["minao"] = plain[case.scf] = own
        if "attach" not in row:
            row["attach"] = measure(case, model_of(case, organic))
            write_json(out, list(rows.values()))
        done.append(row)
    sys.stdout.write(table(done) + "\n\n" + verdict(done) + "\n")
    draw(done, out.with_name("figure.png"))


def measure(case: Case, model: TrainedModel | None) -> dict[str, Any]:
    """Run one SCF and return what it took."""
    mf = case.mean_field(Counting)
    if model is not None:
        attach(mf, model)
    mf.kernel()
    row = {"builds": mf.builds, "energy_Eh": round(float(mf.e_tot), 9), "converged": bool(mf.converged)}
    if model is None:
        return row
    info = mf.helmol_info
    row["builds"] += reference_builds(model) if info.hidden_fock_builds else 0
    return row | {
        "used": info.used, "moved": info.moved, "moved_fallback": info.moved_fallback, "reason": info.reason,
    }  # fmt: skip


def is_harmed(row: dict[str, Any]) -> bool:
    """Return whether the start that was used took more builds than it may, or a refused one more than one."""
    own, learnt = row["minao"]["builds"], row["attach"]["builds"]
    return learnt > HARM * own if row["attach"]["used"] else learnt > own + 1


def is_higher(row: dict[str, Any]) -> bool:
    """Return whether the SCF ended in a higher energy than PySCF's own, or not at all where that did."""
    own, learnt = row["minao"], row["attach"]
    if not own["converged"]:
        return False
    return not learnt["converged"] or learnt["energy_Eh"] > own["energy_Eh"] + SAME_ENERGY


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return builds against PySCF's own, by group."""
    lines = [_line(group, [r for r in rows if r["group"] == group]) for group in _groups(rows)]
    lines.append(_line("all", rows))
    head = ["", "SCFs", "used", "builds, used", "worst, used", "builds, refused", "worst, refused", "higher"]
    return markdown.table(head, lines)


def _groups(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["group"] for row in rows))


def _line(name: str, rows: Sequence[dict[str, Any]]) -> list[object]:
    cells: list[object] = [name, len(rows), sum(row["attach"]["used"] for row in rows)]
    for used in (True, False):
        pairs = [(r["attach"]["builds"], r["minao"]["builds"]) for r in rows if r["attach"]["used"] is used]
        ratio = statistics.median(learnt / own for learnt, own in pairs) if pairs else None
        cells += ["" if ratio is None else f"{ratio:.2f}"]
        cells += [f"{max(learnt - own for learnt, own in pairs):+d}" if pairs else ""]
    return [*cells, sum(is_higher(row) for row in rows)]


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Name all SCFs that were harmed."""
    total = [sum(row[start]["builds"] for row in rows) for start in ("minao", "attach")]
    lines = [f"{len(rows)} SCFs, builds {total[0]} from minao, {total[1]} with the model"]
    for row in rows:
        if is_harmed(row) or is_higher(row):
            own, learnt = row["minao"], row["attach"]
            lines.append(
                f"{row['group']}: {row['name']}: {'used' if learnt['used'] else 'refused'}, "
                f"{learnt['builds']} builds against {own['builds']}, energy "
                f"{learnt['energy_Eh'] - own['energy_Eh']:+.2e} Eh, "
                f"converged {own['converged']} and {learnt['converged']}"
            )
    return "\n".join(lines)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw how many SCFs took how many builds more or less than PySCF's own."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.2), layout="constrained")
    differences = {
        used: [r["attach"]["builds"] - r["minao"]["builds"] for r in rows if r["attach"]["used"] is used]
        for used in (True, False)
    }
    every = differences[True] + differences[False]
    bins = [x - 0.5 for x in range(min(every), max(every) + 2)]
    axes.hist(
        [differences[True], differences[False]], bins, stacked=True,
        label=["start used", "start refused"], color=["tab:blue", "tab:orange"], rwidth=0.85,
    )  # fmt: skip
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlabel="Fock builds, all counted, beyond those from minao", ylabel="SCFs")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
