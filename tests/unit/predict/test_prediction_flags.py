"""A vanishing or negative gap, and a density far from its first step, are said wherever they are shown."""

import csv

import numpy as np
import pytest

from helmol.basis import BasisSet, ElementBasis
from helmol.model import ModelConfig, build
from helmol.predict import TrainedModel, make_prediction
from helmol.predict.files import predict_file
from helmol.predict.prediction import Prediction, all_flags
from helmol.properties import FAR_SHARE, SMALL_GAP, density_flag, gap_flag
from helmol.system import Molecule
from helmol.target import Domain
from toy_store import BASIS, LEVEL, TINY, make_store, toy_samples

HYDROGENS = BasisSet("h", {1: ElementBasis((0, 0), 0, "h")})


def of_levels(levels, *, spin=0, charge=0):
    """Return the prediction of a diagonal Fock matrix, or of two for an open shell, for H2."""
    molecule = Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1.4]]), charge, spin)
    fock = np.diag(levels) if np.ndim(levels) == 1 else np.stack([np.diag(one) for one in levels])
    return make_prediction(fock, molecule, basis=HYDROGENS, overlap=np.eye(4), id="h2")


def test_gaps():
    assert gap_flag(SMALL_GAP) is None
    assert gap_flag(float("nan")) is None
    assert gap_flag(None) is None
    assert gap_flag(0.0) == "small gap of 0.0000 Eh: another state may lie lower"
    assert of_levels([-1.0, -0.5, 0.0, 1.0]).flags == ()
    assert of_levels([-1.0, -0.995, 0.0, 1.0]).flags == (gap_flag(0.005),)
    negative = of_levels([[-1.0, -0.3, 0.0, 1.0], [-0.5, -0.4, 0.0, 1.0]], spin=2)
    assert negative.gap == pytest.approx(-0.2)  # alpha -0.3 is filled, beta -0.5 is not
    assert negative.flags == ("negative gap of -0.2000 Eh: another state may lie lower",)
    assert "FLAG: negative gap" in repr(negative)


def test_densities():
    assert density_flag(None, 10.0) is None
    assert density_flag(10 * FAR_SHARE, 10.0) is None
    assert "moves 0.5 of 10 electrons (5.0%)" in density_flag(0.5, 10.0)
    assert density_flag(float("nan"), 10.0) is not None
    assert all_flags(1.0, 0.5, 10.0) == (density_flag(0.5, 10.0),)


def test_they_are_in_the_file(tmp_path):
    of_levels([-1.0, -0.995, 0.0, 1.0]).save(tmp_path / "h2.npz")
    with np.load(tmp_path / "h2.npz") as data:
        assert data["flags"].tolist() == [gap_flag(0.005)]
    assert Prediction.load(tmp_path / "h2.npz").flags == (gap_flag(0.005),)


def test_they_are_in_the_table_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr("helmol.properties.flags.SMALL_GAP", 10.0)
    model = TrainedModel(build(ModelConfig(**TINY), Domain(LEVEL, BASIS, "fock-minus-minao", (0,), (0,))))
    store = make_store(tmp_path / "toy.h5", toy_samples(3))
    monkeypatch.setitem(__import__("sys").modules, "helmol.dft", None)  # the toy basis is not PySCF's
    monkeypatch.delattr("helmol.dft", raising=False)
    result = predict_file(model, store, out=tmp_path / "p")
    assert (result["n_flagged"], result["n_others"]) == (3, 0)
    with (tmp_path / "p/summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(row["flags"].startswith("small gap of ") for row in rows)
    # Energies of an earlier call, by another model, do not stay beside these; its matrices are counted.
    for name in ("energies.csv", "energies.extxyz"):
        (tmp_path / "p" / name).write_text("of before")
    of_levels([-1.0, -0.5, 0.0, 1.0]).save(tmp_path / "p/h2.npz", model="another")
    result = predict_file(model, store, out=tmp_path / "p")
    assert (result["n_kept"], result["n_others"]) == (3, 1)
    assert not list((tmp_path / "p").glob("energies*"))


@pytest.mark.parametrize("one_file", [False, True])
def test_elements_that_the_model_has_not_seen_together(tmp_path, monkeypatch, one_file):
    domain = Domain(LEVEL, BASIS, "fock-minus-minao", (0,), (0,), (), ((99, 99),))
    model = TrainedModel(build(ModelConfig(**TINY), domain))
    samples = toy_samples(2)
    store = make_store(tmp_path / "toy.h5", samples)
    monkeypatch.setitem(__import__("sys").modules, "helmol.dft", None)
    monkeypatch.delattr("helmol.dft", raising=False)
    pairs = domain.new_pairs(samples[0].molecule)
    (prediction, _) = model.predict(samples)
    assert prediction.new_pairs == pairs
    said = f"the model has not seen {', '.join(pairs)} in one molecule"
    assert prediction.flags[-1] == said
    for _ in range(2):  # the second time from the files
        result = predict_file(model, store, out=tmp_path / "p", one_file=one_file)
        assert result["molecules"][0]["flags"].endswith(said)
        assert result["n_flagged"] == 2
