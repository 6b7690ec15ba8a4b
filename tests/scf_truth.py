"""An SCF that has converged, and a model that knows its Fock matrix, or one near it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pyscf import dft as pyscf_dft

import helmol.model
from helmol import dft
from helmol.basis import BasisSet, to_house
from helmol.predict import TrainedModel
from helmol.system import Molecule
from helmol.target import Domain

LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp", grid_level=0, conv_tol=1e-9)
WATER = Molecule.from_angstrom([8, 1, 1], [[0.1, 0.2, -0.3], [0.8, 0.5, 0.1], [-0.6, 0.7, 0.3]])


class Truth:
    """A converged SCF and a model that knows its Fock matrix, or one near it."""

    def __init__(self, molecule: Molecule, level: dft.LevelConfig = LEVEL) -> None:
        self.level, self.mole = level, dft.build_mole(molecule, level)
        self.mf = dft.mean_field(self.mole, level)
        self.mf.kernel()
        self.fock = np.asarray(self.mf.get_fock())
        domain = Domain(
            dft.level_of_theory(LEVEL, method="rks"),
            BasisSet.from_mole(self.mole, "def2-svp"),
            "fock",
            (molecule.charge,),
            (0,),
        )
        self.model = TrainedModel(SimpleNamespace(domain=domain, needed_references=()))

    def scf(self, **settings: object) -> pyscf_dft.rks.RKS:
        return dft.mean_field(self.mole, self.level).set(**settings)

    def noisy(self, size: float) -> np.ndarray:
        """Return the Fock matrix with noise of this size (Eh) between orthonormal functions."""
        noise = np.random.default_rng(0).normal(size=self.fock.shape) * size
        root = np.linalg.cholesky(self.mf.get_ovlp())
        return self.fock + root @ (noise + noise.T) @ root.T / 2


def answer(monkeypatch: pytest.MonkeyPatch, truth: Truth, fock: np.ndarray) -> None:
    house = to_house(fock, dft.house_shells(truth.mole), "pyscf")
    monkeypatch.setattr(
        helmol.model, "predict_fock", lambda _, molecules, *__, **___: [house] * len(molecules)
    )
