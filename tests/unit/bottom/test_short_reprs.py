"""The repr of what a user holds says what it is, in a line."""

from dataclasses import replace

import numpy as np
import pytest

from helmol.basis import BasisSet, ElementBasis
from helmol.brief import word
from helmol.graph import collate
from helmol.model import ModelConfig, PredictedEnergy, build
from helmol.predict import EnsembleEnergy, TrainedModel, make_prediction
from helmol.store import Store
from helmol.target import Domain
from toy_store import BASIS, LEVEL, TINY, make_store, toy_samples


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """Objects of every kind by name."""
    sample = toy_samples(1)[0]
    domain = Domain(LEVEL, BASIS, "fock-minus-minao", (0,), (0,))
    model = build(ModelConfig(**TINY), domain)
    prediction = make_prediction(
        sample.matrices.fock, sample.molecule, basis=BASIS, overlap=sample.matrices.overlap, id="w"
    )
    item = model.prepare(sample.molecule, matrix=sample.matrices.fock)
    batch = collate([item] * 20)
    forces = np.zeros((3, 3))
    store = Store.open(make_store(tmp_path_factory.mktemp("repr") / "toy.h5"))
    yield {
        "molecule": sample.molecule, "sample": sample, "matrices": sample.matrices, "basis": BASIS,
        "domain": domain, "model": model, "trained": TrainedModel(model), "prediction": prediction,
        "item": item, "batch": batch, "bucket": batch.buckets[0], "store": store,
        "output": model(batch, ("fock",)).fock, "energy": PredictedEnergy(-1.5, forces),
        "ensemble": EnsembleEnergy(-1.5, forces, 0.1, forces),
    }  # fmt: skip
    store.close()


def test_all_are_short(held):
    for name, thing in held.items():
        assert len(repr(thing)) < 350, name
        assert "\n" not in repr(thing), name


def test_what_they_say(held):
    assert repr(held["molecule"]) == "Molecule(H2O, charge=0, spin=0)"
    assert repr(held["basis"]) == "BasisSet('toy', H O)"
    assert "fock=float64[13, 13]" in repr(held["matrices"])
    assert repr(held["energy"]) == "PredictedEnergy(energy=-1.5, forces=float64[3, 3])"
    gap = held["prediction"].gap
    assert f"Prediction('w', Molecule(H2O, charge=0, spin=0), nao=13, gap={gap:.4g} Eh" in repr(
        held["prediction"]
    )
    parameters = f"{held['model'].n_parameters:,} parameters"
    for thing in (held["model"], held["trained"]):
        assert f"Fock matrices as fock-minus-minao, RKS PBE/toy, H O; {parameters}" in repr(thing)
    assert "24 samples, RKS PBE/toy, H O; no splits; mode 'r'" in repr(held["store"])


def test_a_closed_store_has_a_repr(tmp_path):
    store = Store.open(make_store(tmp_path / "toy.h5", toy_samples(1)))
    store.close()
    assert repr(store).endswith("no splits; closed)")


def test_of_many_elements_the_first_and_the_last_are_named():
    basis = BasisSet("all", {z: ElementBasis((0,), 0, "x") for z in range(1, 84)})
    assert repr(basis) == "BasisSet('all', 83 elements H to Bi)"


def test_words():
    assert word(np.float64(0.25)) == "0.25"
    assert word([1, 2]) == "[1, 2]"
    assert word(list(range(99))) == "[99 entries]"
    assert word({"minao": np.zeros((2, 2))}) == "{minao: float64[2, 2]}"
    assert len(word("x" * 10_000)) == 120
    sample = toy_samples(1)[0]
    assert repr(replace(sample, provenance={str(k): k for k in range(50)})).endswith(
        "provenance={50 entries})"
    )
