"""How good the energy is that a predicted Fock matrix implies: one energy evaluation per molecule.

The density of the predicted matrix's lowest orbitals goes once into the functional of the data (one Fock
build, at the data's own grid and fitting; needs PySCF). The same Fock build gives a second-order correction
for nothing (:class:`helmol.dft.FockEnergy`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from helmol import properties
from helmol.arrays import Array
from helmol.errors import InputError
from helmol.evaluate.metrics import interval
from helmol.progress import Progress
from helmol.system import LevelOfTheory, Sample
from helmol.units import EV_PER_HARTREE


def energies_from_fock(
    samples: Sequence[Sample], predicted: Mapping[str, Sequence[Array]], level: LevelOfTheory
) -> dict[str, dict[str, Any]]:
    """Return the error table of the energies that Fock matrices imply.

    Args:
        samples: labelled molecules with energies.
        predicted: by name one Fock matrix per molecule, house order, Eh.
        level: level of theory of the labels.

    Returns:
        By name :data:`helmol.evaluate.FROM_FOCK_METRICS`, ``energy_from_h_n_molecules``, and 95 % intervals
        over molecules of the two mean absolute errors (``..._ci95``); ``energy_from_h_flags``: molecules
        (``id``, ``text``) whose density is far from its first SCF step.

    Raises:
        InputError: a sample has no energy, PySCF is missing, or the numbers of matrices differ.
    """
    try:
        from helmol import dft
    except ImportError as error:
        raise InputError(
            "energies from Fock matrices need PySCF for one Fock build: pip install pyscf"
        ) from error
    config = dft.level_from(level)
    errors: dict[str, list[tuple[float, float]]] = {name: [] for name in predicted}
    flags: dict[str, list[dict[str, str]]] = {name: [] for name in predicted}
    for name, matrices in predicted.items():
        if len(matrices) != len(samples):
            raise InputError(f"{len(matrices)} matrices {name!r} for {len(samples)} molecules")
    with Progress("Energies from Fock matrices", total=len(samples), unit="molecules") as bar:
        for k, sample in enumerate(samples):
            if sample.energy is None:
                raise InputError(f"sample {sample.id!r} has no energy to compare with")
            mole = dft.build_mole(sample.molecule, config)
            for name, matrices in predicted.items():
                found = dft.energy_of_fock(mole, config, matrices[k])
                errors[name].append((found.energy - sample.energy, found.corrected - sample.energy))
                flag = properties.density_flag(found.moved, float(mole.nelectron))
                flags[name] += [] if flag is None else [{"id": sample.id, "text": flag}]
            bar.advance()
    return {
        name: {**_summary(np.array(pairs)), "energy_from_h_flags": flags[name]}
        for name, pairs in errors.items()
    }


def _summary(errors: Array) -> dict[str, Any]:
    """Return the table of errors ``[n_molecules, 2]`` in Eh, plain and corrected."""
    plain, corrected = (1000 * EV_PER_HARTREE * errors).T
    return {
        "energy_from_h_n_molecules": len(errors),
        "energy_from_h_mae_meV": float(np.abs(plain).mean()),
        "energy_from_h_corrected_mae_meV": float(np.abs(corrected).mean()),
        "energy_from_h_bias_meV": float(plain.mean()),
        "energy_from_h_corrected_bias_meV": float(corrected.mean()),
        "energy_from_h_mae_meV_ci95": interval(list(np.abs(plain))),
        "energy_from_h_corrected_mae_meV_ci95": interval(list(np.abs(corrected))),
    }
