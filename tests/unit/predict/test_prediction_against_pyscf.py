"""With a perfect network every field of a prediction equals PySCF's; planted faults are caught."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import ase
import numpy as np
import pytest
import torch
from pyscf import gto

import helmol.model
from helmol import dft
from helmol.basis import BasisSet, to_house
from helmol.errors import DomainError, InputError
from helmol.model import ModelConfig, build, fit_statistics
from helmol.predict import Prediction, TrainedModel, make_prediction
from helmol.system import Matrices, Molecule, Sample
from helmol.target import Domain
from helmol.units import DEBYE_PER_AU

LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp", grid_level=1, conv_tol=1e-11)
WATER = Molecule.from_angstrom([8, 1, 1], [[0.1, 0.2, -0.3], [0.8, 0.5, 0.1], [-0.6, 0.7, 0.3]])
# Iodine has an effective core potential.
IODOMETHANE = Molecule.from_angstrom(
    [6, 53, 1, 1, 1], [[0, 0, 0.1], [0.2, 0, 2.2], [1.0, 0, -0.3], [-0.5, 0.9, -0.3], [-0.5, -0.9, -0.3]]
)


def _model(basis: BasisSet, *, charges: tuple[int, ...] = (0,)) -> TrainedModel:
    level = dft.level_of_theory(LEVEL, method="rks")
    domain = Domain(level, basis, "fock", charges, (0,))
    return TrainedModel(SimpleNamespace(domain=domain, needed_references=()))


class Truth:
    """A converged PySCF run, and a model that knows its answer."""

    def __init__(self, molecule: Molecule) -> None:
        self.molecule = molecule
        self.mole = dft.build_mole(molecule, LEVEL)
        self.mf = dft.mean_field(self.mole, LEVEL)
        self.mf.kernel()
        self.fock = np.asarray(self.mf.get_fock())
        self.mf.mo_energy, self.mf.mo_coeff = self.mf.eig(self.fock, self.mf.get_ovlp())
        self.mf.mo_occ = self.mf.get_occ(self.mf.mo_energy, self.mf.mo_coeff)
        self.shells = dft.house_shells(self.mole)
        self.house = to_house(self.fock, self.shells, "pyscf")
        self.basis = BasisSet.from_mole(self.mole, "def2-svp")
        self.model = _model(self.basis)


@pytest.fixture(scope="module")
def water() -> Truth:
    return Truth(WATER)


@pytest.fixture(scope="module")
def iodomethane() -> Truth:
    return Truth(IODOMETHANE)


@pytest.fixture(params=["water", "iodomethane"])
def truth(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Truth:
    found = request.getfixturevalue(request.param)
    monkeypatch.setattr(
        helmol.model, "predict_fock", lambda network, molecules, *_, **__: [found.house] * len(molecules)
    )
    return found


def _differences(found: Prediction, truth: Truth) -> dict[str, float]:
    mf = truth.mf
    density = mf.make_rdm1(mf.mo_coeff, mf.mo_occ)
    overlap = mf.get_ovlp()
    reference = {
        "fock": truth.fock,
        "overlap": overlap,
        "mo_energy": mf.mo_energy,
        "mo_occ": mf.mo_occ,
        "density": density,
        "dipole": mf.dip_moment(dm=density, unit="AU", verbose=0) * DEBYE_PER_AU,
        "charges": mf.mulliken_pop(dm=density, verbose=0)[1],
    }
    result = {name: float(np.abs(getattr(found, name) - value).max()) for name, value in reference.items()}
    # The sign of an orbital is free: compare |CᵀSC'| of orbitals, degenerate ones as spaces.
    projector = found.mo_coeff @ np.diag(found.mo_occ) @ found.mo_coeff.T
    result["mo_coeff"] = float(np.abs(projector - density).max())
    result["equation"] = float(
        np.abs(truth.fock @ found.mo_coeff - overlap @ found.mo_coeff * found.mo_energy).max()
    )
    return result


@pytest.mark.parametrize("kind", ["mole", "molecule", "atoms", "sample", "list"])
def test_every_field_equals_pyscf(truth: Truth, kind: str) -> None:
    molecule = truth.molecule
    atoms = ase.Atoms(molecule.numbers, molecule.positions_ang)
    sample = Sample("s", molecule, Matrices(truth.house, dft.overlap(truth.mole)))
    inputs = {
        "mole": truth.mole,
        "molecule": molecule,
        "atoms": atoms,
        "sample": sample,
        "list": [truth.mole] * 2,
    }
    found = truth.model.predict(inputs[kind])
    if kind == "list":
        assert len(found) == 2
        found = found[1]
    for name, difference in _differences(found, truth).items():
        assert difference < 1e-8, name
    n = truth.mole.nelectron // 2
    assert found.gap == pytest.approx(truth.mf.mo_energy[n] - truth.mf.mo_energy[n - 1], abs=1e-9)


def test_matrices_that_the_network_reads_are_made_from_the_geometry(water: Truth) -> None:
    """A network of random weights says the same of a molecule and of a sample that holds the matrices."""
    level = dft.level_of_theory(LEVEL, method="rks")
    domain = Domain(level, water.basis, "fock-minus-minao-step", (0,), (0,))
    config = ModelConfig(
        channels=8, n_layers=1, radial_channels=8, inputs=("reference", "change", "density", "overlap")
    )
    model = TrainedModel(build(config, domain, dtype=torch.float64))
    assert model.needed_references == ("minao-step", "minao")
    references = dft.reference_focks(water.mole, LEVEL, model.needed_references)
    sample = Sample("s", WATER, Matrices(water.house, dft.overlap(water.mole), references))
    given = model.model.input_matrices(WATER, sample.matrices.known)
    network_fit(model, given)
    from_sample = model.predict(sample)
    np.testing.assert_allclose(model.predict(WATER).fock, from_sample.fock, atol=1e-12)
    changed = {**references, "minao": references["minao"] + 0.01 * water.house}
    other = Sample("s", WATER, Matrices(water.house, dft.overlap(water.mole), changed))
    assert np.abs(model.predict(other).fock - from_sample.fock).max() > 1e-6


def network_fit(model: TrainedModel, read: np.ndarray) -> None:
    """Set statistics, without which all that a network reads is multiplied by zero."""
    fit_statistics(model.model, [model.model.prepare(WATER, read[0], read)])


def test_residual_is_asked_for_and_small_at_convergence(truth: Truth) -> None:
    assert truth.model.predict(truth.mole).residual is None
    assert truth.model.predict(truth.mole, residual=True).residual < 1e-4


FAULTS = ["pyscf order not undone", "core electrons counted", "sign of an integral"]


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught(iodomethane: Truth, fault: str) -> None:
    truth, basis = iodomethane, iodomethane.basis
    fock, overlap, integrals = truth.house, dft.overlap(truth.mole), dft.dipole_integrals(truth.mole)
    if fault == FAULTS[0]:
        fock = truth.fock
    elif fault == FAULTS[2]:
        integrals = -integrals
    found = make_prediction(fock, truth.molecule, basis=basis, overlap=overlap, dipole_integrals=integrals)
    if fault == FAULTS[1]:
        # What a Mulliken charge without the core correction would be.
        found = SimpleNamespace(**{**vars(found), "charges": found.charges + np.array([0, 28, 0, 0, 0])})
    assert max(_differences(found, truth).values()) > 1e-2


def test_open_shell_equals_pyscf() -> None:
    radical = Molecule.from_angstrom([8, 1], [[0, 0.1, 0], [0.2, 0, 0.97]], spin=1)
    mole = dft.build_mole(radical, LEVEL)
    mf = dft.mean_field(mole, LEVEL)
    mf.kernel()
    fock = np.asarray(mf.get_fock())
    house, basis = to_house(fock, dft.house_shells(mole), "pyscf"), BasisSet.from_mole(mole, "def2-svp")
    integrals = dft.dipole_integrals(mole)
    found = make_prediction(
        house, radical, basis=basis, overlap=dft.overlap(mole), dipole_integrals=integrals
    )
    mf.mo_energy, mf.mo_coeff = mf.eig(fock, mf.get_ovlp())
    density = mf.make_rdm1(mf.mo_coeff, mf.get_occ(mf.mo_energy, mf.mo_coeff))
    assert np.array_equal(found.fock, fock)
    assert np.abs(found.mo_energy - mf.mo_energy).max() < 1e-8
    assert np.abs(found.density - density).max() < 1e-8
    dipole = mf.dip_moment(dm=density, unit="AU", verbose=0) * DEBYE_PER_AU
    assert found.dipole == pytest.approx(dipole, abs=1e-8)
    assert found.charges == pytest.approx(mf.mulliken_pop(dm=density, verbose=0)[1], abs=1e-8)


def test_own_order_of_a_mole_with_general_contractions() -> None:
    # cc-pVDZ is generally contracted: several contractions share one PySCF shell.
    level = LEVEL.model_copy(update={"basis": "cc-pvdz", "xc": "hf"})
    mole = dft.build_mole(WATER, level)
    mf = dft.mean_field(mole, level)
    fock = np.asarray(mf.get_fock(dm=mf.get_init_guess(mole, "minao")))
    basis = BasisSet.from_mole(mole, "cc-pvdz")
    house = to_house(fock, dft.house_shells(mole), "pyscf")
    found = make_prediction(house, WATER, basis=basis, overlap=dft.overlap(mole))
    assert np.array_equal(found.fock, fock)
    assert np.abs(found.overlap - mf.get_ovlp()).max() < 1e-14
    assert found.dipole is None


def test_outside_the_domain_is_refused(truth: Truth) -> None:
    mole = gto.M(atom="O 0 0 0; H 0.9 0.3 0; H -0.9 0.3 0", basis="sto-3g", verbose=0)
    with pytest.raises(DomainError, match=r"not learnt O|basis|hash"):
        truth.model.predict(mole)
    with pytest.raises(DomainError, match="not learnt He"):
        truth.model.predict(Molecule.from_angstrom([2], [[0, 0, 0]]))
    charged = Molecule(truth.molecule.numbers, truth.molecule.positions, charge=2)
    with pytest.raises(DomainError, match="charge 2"):
        truth.model.predict(charged)
    with pytest.raises(InputError, match="cannot predict a str"):
        truth.model.predict("water.xyz")


def test_charge_and_multiplicity_of_atoms(truth: Truth) -> None:
    atoms = ase.Atoms(truth.molecule.numbers, truth.molecule.positions_ang, info={"charge": 0, "spin": 1})
    assert truth.model.predict(atoms).molecule.spin == 0
    atoms.info.update(charge=1, spin=2)
    with pytest.raises(DomainError, match="charge 1"):
        truth.model.predict(atoms)
    atoms.info.update(charge=0, spin=3)
    with pytest.raises(DomainError, match="2S = 2"):
        truth.model.predict(atoms)
    atoms.info["spin"] = 0
    with pytest.raises(InputError, match="multiplicity"):
        truth.model.predict(atoms)


def test_no_model_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model in"):
        TrainedModel.load(tmp_path)


def test_saved_file_holds_pyscf_order(truth: Truth, tmp_path: Path) -> None:
    truth.model.predict(truth.mole).save(tmp_path / "m.npz", model="abc")
    with np.load(tmp_path / "m.npz") as data:
        assert set(data) == {
            "flags", "numbers", "positions", "fock", "overlap", "density", "mo_energy", "mo_coeff", "mo_occ",
            "dipole", "charges", "charge", "spin", "model", "basis", "level",
        }  # fmt: skip
        assert np.array_equal(data["positions"], truth.molecule.positions)
        assert np.abs(data["fock"] - truth.fock).max() == 0
