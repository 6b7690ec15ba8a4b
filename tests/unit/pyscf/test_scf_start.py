"""An SCF started from a model: fewer cycles if the model is good, no harm if it is bad."""

from __future__ import annotations

import logging
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from pyscf import dft as pyscf_dft
from pyscf import gto

import helmol.model
from helmol import dft
from helmol.basis import BasisSet, to_house
from helmol.dft import two_grids
from helmol.errors import DomainError, InputError
from helmol.predict import TrainedModel
from helmol.pyscf import accelerate, attach, compare_starts, write_molden
from helmol.system import Molecule
from helmol.target import Domain, needed_references

LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp", grid_level=1, conv_tol=1e-10)
WATER = Molecule.from_angstrom([8, 1, 1], [[0.1, 0.2, -0.3], [0.8, 0.5, 0.1], [-0.6, 0.7, 0.3]])


def _scf(mole: gto.Mole, **settings: object) -> pyscf_dft.rks.RKS:
    mf = dft.mean_field(mole, LEVEL)
    return mf.set(**settings)


@pytest.fixture(scope="module")
def mole() -> gto.Mole:
    return dft.build_mole(WATER, LEVEL)


@pytest.fixture(scope="module")
def converged(mole: gto.Mole) -> pyscf_dft.rks.RKS:
    mf = _scf(mole)
    mf.kernel()
    return mf


@pytest.fixture(scope="module")
def house(converged: pyscf_dft.rks.RKS) -> np.ndarray:
    return to_house(np.asarray(converged.get_fock()), dft.house_shells(converged.mol), "pyscf")


def _model(mole: gto.Mole, target: str = "fock") -> TrainedModel:
    level = dft.level_of_theory(LEVEL, method="rks")
    domain = Domain(level, BasisSet.from_mole(mole, "def2-svp"), target, (0,), (0,))
    return TrainedModel(SimpleNamespace(domain=domain, needed_references=needed_references(target)))


def _answer(monkeypatch: pytest.MonkeyPatch, matrix: np.ndarray) -> list[int]:
    """Let every network answer with ``matrix``; the list grows by the molecules asked."""
    asked: list[int] = []

    def predict_fock(
        network: object, molecules: list[Molecule], *_: object, **__: object
    ) -> list[np.ndarray]:
        asked.append(len(molecules))
        return [matrix] * len(molecules)

    monkeypatch.setattr(helmol.model, "predict_fock", predict_fock)
    return asked


@pytest.mark.parametrize("fitted", [False, True])
def test_good_model_saves_cycles_and_ends_in_the_same_energy(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch, fitted: bool
) -> None:
    _answer(monkeypatch, house)
    plain, mf = (_scf(mole) for _ in range(2))
    if fitted:
        plain, mf = plain.density_fit(), mf.density_fit()
    plain.kernel()
    assert attach(mf, _model(mole)) is mf
    mf.kernel()
    assert mf.helmol_info.used
    assert mf.helmol_info.hidden_fock_builds == 0
    assert mf.cycles <= plain.cycles - 3
    assert mf.e_tot == pytest.approx(plain.e_tot, abs=1e-8)


def test_the_build_of_the_guard_is_not_paid_twice(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer(monkeypatch, house)
    result = compare_starts(WATER, _model(mole), starts=["minao", "model"])
    for start in ("minao", "model"):
        # One build per cycle, one for the start, one in PySCF's final check.
        assert result[start]["fock_builds"] == result[start]["cycles"] + 2
        assert len(result[start]["history"]) >= result[start]["cycles"]
    assert result["same_state"]
    assert result["fell_back"] is False
    assert result["model"]["cycles"] < result["minao"]["cycles"]


def test_hidden_build_of_a_delta_model_is_counted(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer(monkeypatch, house)
    result = compare_starts(WATER, _model(mole, "fock-minus-minao"), starts=["model"])
    assert result["model"]["fock_builds"] == result["model"]["cycles"] + 3
    assert result["model"]["hidden_fock_builds"] == 1


def _bad(house: np.ndarray, kind: str) -> np.ndarray:
    random = np.random.default_rng(0).normal(size=house.shape)
    return {
        "noise": house + 0.5 * (random + random.T),
        "wrong sign": -house,
        "not finite": np.full_like(house, np.nan),
        "too small": np.eye(3),
    }[kind]


@pytest.mark.parametrize("kind", ["noise", "wrong sign", "not finite", "too small"])
def test_bad_model_does_no_harm(
    mole: gto.Mole,
    house: np.ndarray,
    converged: pyscf_dft.rks.RKS,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    _answer(monkeypatch, _bad(house, kind))
    mf = attach(_scf(mole), _model(mole))
    with caplog.at_level(logging.WARNING, "helmol"):
        mf.kernel()
    assert not mf.helmol_info.used
    assert "not from the model" in caplog.text
    assert mf.cycles == converged.cycles
    assert mf.e_tot == pytest.approx(converged.e_tot, abs=1e-9)
    strict = attach(_scf(mole), _model(mole), fallback=False)
    with pytest.raises((DomainError, InputError)):
        strict.kernel()


def test_outside_the_domain_falls_back(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = _answer(monkeypatch, house)
    model = _model(mole)
    triplet = gto.M(atom=mole.atom, unit="Bohr", basis="def2-svp", spin=2, verbose=0)
    sulfur = gto.M(atom="S 0 0 0; H 0 0 1.34; H 1.34 0 0", basis="def2-svp", verbose=0)
    for mf, reason in (
        (pyscf_dft.UKS(triplet, xc="pbe"), "spin"),
        (pyscf_dft.RKS(sulfur, xc="pbe"), "the model has not learnt S"),
        (pyscf_dft.GKS(mole, xc="pbe"), "GKS is not supported: only molecular RKS, UKS, ROKS and their HF"),
    ):
        attach(_without_file(mf.set(max_cycle=1)), model).kernel()
        assert reason in mf.helmol_info.reason
        assert mf.helmol_info.start == "minao"
        assert not mf.helmol_info.used
    assert asked == []
    assert caplog.text.count("not from the model") == 3


def _without_file(mf: pyscf_dft.rks.RKS) -> pyscf_dft.rks.RKS:
    """Drop PySCF's temporary checkpoint, whose late closing is a warning."""
    mf._chkfile.close()
    return mf.set(chkfile=None)


def test_a_scanner_asks_the_model_and_takes_a_given_density(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _answer(monkeypatch, house)
    scanner = attach(_scf(mole), _model(mole)).as_scanner()
    first = scanner(mole)
    moved = mole.set_geom_(mole.atom_coords() + np.diag([0, 0, 0.01]), unit="Bohr", inplace=False)
    second = scanner(moved)
    assert len(asked) == 2
    assert first != second
    # A density that is given explicitly is taken.
    scanner(mole, dm0=scanner.make_rdm1())
    assert len(asked) == 2


def test_wrong_arguments_are_refused(mole: gto.Mole) -> None:
    with pytest.raises(InputError, match="expected an SCF"):
        attach(mole, _model(mole))
    with pytest.raises(InputError, match="unknown start 'minoa'"):
        compare_starts(WATER, _model(mole), starts=["minoa"])
    with pytest.raises(InputError, match="no start to compare"):
        compare_starts(WATER, _model(mole), starts=[])


def test_molden_file_is_read_back(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    from pyscf.tools import molden

    _answer(monkeypatch, house)
    model = _model(mole)
    prediction = model.predict(mole)
    write_molden(prediction, tmp_path / "w.molden", level=model.domain.level)
    read, energy, coeff, occ, *_ = molden.load(str(tmp_path / "w.molden"))
    assert read.natm == 3
    assert np.abs(energy - prediction.mo_energy).max() < 1e-5
    assert occ.sum() == 10
    assert np.abs(np.abs(coeff) - np.abs(prediction.mo_coeff)).max() < 1e-4


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_cheap_cycles_start_from_the_model_under_its_guard(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    """In either order: the start is used, refused and given up as ever, and the guard costs no fine build."""

    def both() -> pyscf_dft.rks.RKS:
        mf = _scf(mole, grids=pyscf_dft.gen_grid.Grids(mole).set(level=2))
        for step in order:
            mf = (accelerate, lambda mf: attach(mf, _model(mole)))[step](mf)
        return mf

    plain = _scf(mole, grids=pyscf_dft.gen_grid.Grids(mole).set(level=2))
    plain.kernel()
    unaided = accelerate(_scf(mole, grids=pyscf_dft.gen_grid.Grids(mole).set(level=2)))
    unaided.kernel()
    _answer(monkeypatch, house)
    mf = both()
    assert mf.kernel() == pytest.approx(plain.e_tot, abs=1e-8)
    assert mf.helmol_info.used
    assert mf.helmol_cycles.used
    assert mf.cycles < unaided.cycles
    again = pickle.loads(pickle.dumps(mf))
    again.mo_coeff = None
    assert again.kernel() == pytest.approx(plain.e_tot, abs=1e-8)
    assert (again.helmol_info.used, again.helmol_cycles.used) == (True, True)
    mf.kernel()
    assert "had a density or orbitals" in mf.helmol_info.reason
    scanner = both().as_scanner()
    scanner(mole)
    assert (scanner.helmol_info.used, scanner.helmol_cycles.used) == (True, True)

    bare = mf.undo_accelerate()
    bare.mo_coeff = None
    bare.kernel()
    assert bare.helmol_info.used

    _answer(monkeypatch, _bad(house, "wrong sign"))
    refused = both()
    assert refused.kernel() == pytest.approx(plain.e_tot, abs=1e-8)
    assert not refused.helmol_info.used
    assert refused.helmol_cycles.used
    assert refused.cycles == unaided.cycles
    strict = both()
    strict._helmol_fallback = False
    with pytest.raises(DomainError):
        strict.kernel()
    assert "first step moves" in strict.helmol_info.reason


def test_a_start_is_remembered_where_the_cheap_cycles_end_early(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer(monkeypatch, house)
    monkeypatch.setattr(two_grids.Corrected, "correct", lambda *_: None)
    mf = accelerate(attach(_scf(mole, grids=pyscf_dft.gen_grid.Grids(mole).set(level=2)), _model(mole)))
    mf.kernel()
    assert not mf.helmol_cycles.used
    assert mf.helmol_info.used


def test_starts_are_compared_with_cheap_cycles_too(
    mole: gto.Mole, house: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    _answer(monkeypatch, house)
    # The grid of the model's level is hardly finer than the coarse one.
    monkeypatch.setattr("helmol.dft.cycles.COARSE_PAYS", 1.0)
    result = compare_starts(WATER, _model(mole), starts=["minao", "minao-cheap", "model-cheap"])
    assert result["same_state"]
    assert result["fell_back"] is False
    assert result["model-cheap"]["cycles"] < result["minao-cheap"]["cycles"]
    for start in ("minao-cheap", "model-cheap"):
        assert result[start]["fock_builds"] < result["minao"]["fock_builds"]
        assert len(result[start]["history"]) == result[start]["cycles"] + result[start]["fock_builds"]
