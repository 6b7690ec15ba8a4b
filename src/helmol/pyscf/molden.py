"""Orbitals of a prediction as a Molden file."""

from __future__ import annotations

from pathlib import Path

from pyscf.tools import molden

from helmol import dft
from helmol.files import replacing
from helmol.predict import Prediction
from helmol.system import LevelOfTheory


def write_molden(prediction: Prediction, path: Path, *, level: LevelOfTheory | None = None) -> None:
    """Write the orbitals of a prediction as a Molden file, atomically.

    Args:
        prediction: restricted or unrestricted.
        path: file to write.
        level: level of theory of the model, for the basis; by default that of the prediction.

    Raises:
        InputError: neither says a level.
    """
    if level is None:
        mole = prediction.mole
    else:
        mole = dft.build_mole(prediction.molecule, dft.level_from(level))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        molden.header(mole, file)
        if prediction.mo_energy.ndim == 1:
            molden.orbital_coeff(
                mole, file, prediction.mo_coeff, ene=prediction.mo_energy, occ=prediction.mo_occ
            )
            return
        orbitals = zip(prediction.mo_coeff, prediction.mo_energy, prediction.mo_occ, strict=True)
        for spin, (mo_coeff, mo_energy, mo_occ) in zip(("Alpha", "Beta"), orbitals, strict=True):
            molden.orbital_coeff(mole, file, mo_coeff, spin=spin, ene=mo_energy, occ=mo_occ)
