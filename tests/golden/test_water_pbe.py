"""Labels of water against numbers that PySCF alone gave (``make_water_pbe.py``)."""

import json
from pathlib import Path

import numpy as np
import scipy.linalg

from helmol import dft
from helmol.dft import LevelConfig
from helmol.system import Molecule

GOLDEN = json.loads(Path(__file__).with_name("water_pbe.json").read_text())


def test_water() -> None:
    water = Molecule.from_angstrom([8, 1, 1], GOLDEN["positions_angstrom"])
    sample, basis = dft.run(water, LevelConfig(), id="water", references=("minao", "minao-lite"))
    energies = scipy.linalg.eigh(sample.matrices.fock, sample.matrices.overlap, eigvals_only=True)
    assert abs(sample.energy - GOLDEN["energy_Eh"]) < 1e-8
    assert np.abs(energies - GOLDEN["mo_energy_Eh"]).max() < 1e-6
    assert np.abs(sample.dipole - GOLDEN["dipole_au"]).max() < 1e-5
    assert basis.elements[8].shells == (0, 0, 0, 1, 1, 2)
    # The cheap start is 17 mEh away on average; a wrong density or functional is not.
    assert 0.015 < np.abs(sample.matrices.references["minao"] - sample.matrices.fock).mean() < 0.020
