"""What a model has to beat: cheap Fock matrices, made here for a few molecules where a store has none."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helmol.basis import BasisSet
from helmol.errors import HelmolError
from helmol.evaluate.fock import ErrorTable
from helmol.progress import Progress
from helmol.system import LevelOfTheory, Sample

CHEAP = "minao"
"""What is made: PySCF's usual start of an SCF."""

MOST = 20
"""Molecules for which it is made, one Fock build each; enough for a mean that is to be beaten by far."""

log = logging.getLogger("helmol.evaluate")


def spread(rows: Sequence[int], n: int = MOST) -> list[int]:
    """Return at most ``n`` of some rows, evenly spread and always the same."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int))
    return [rows[int(place)] for place in places]


def made_baseline(
    samples: Sequence[Sample], basis: BasisSet, level: LevelOfTheory, *, store: Path | str, total: int
) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the error table of cheap Fock matrices that are made now, and a sentence about them.

    Args:
        samples: labelled molecules without references.
        basis: shells of the elements.
        level: of the labels.
        store: where they are, for the command that adds the matrices to all.
        total: how many molecules the model is compared with.

    Returns:
        The table by name, empty if none can be made, and why or of how many molecules it is.
    """
    command = f"'helmol references {store} --add {CHEAP} --out NEW' adds it"
    try:
        from helmol import dft
    except ImportError:
        return {}, f"no cheap guess to compare with: the store has none, PySCF is not installed; {command}"
    table = ErrorTable(basis, level=level)
    try:
        config = dft.level_from(level)
        with Progress(f"Baseline {CHEAP}", total=len(samples), unit="molecules") as bar:
            for sample in samples:
                mole = dft.build_mole(sample.molecule, config)
                if BasisSet.from_mole(mole, basis.name) != basis.part(sample.molecule.numbers.tolist()):
                    return {}, (
                        "no cheap guess to compare with: the store has none, and PySCF has other functions "
                        f"under the name {basis.name!r}"
                    )
                table.add(sample, {CHEAP: dft.reference_fock(mole, config, CHEAP)})
                bar.advance()
    except HelmolError as error:
        return {}, f"no cheap guess to compare with: the store has none, and none can be made ({error})"
    some = "" if len(samples) == total else f" of {len(samples)} of {total} molecules, evenly spread"
    return {CHEAP: table.summary(CHEAP)}, f"{CHEAP}{some} was made now; {command} to all"
