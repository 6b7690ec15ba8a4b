"""Which earlier results are taken again, and which stores are refused; no electronic structure needed."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from helmol.basis import BasisSet, ElementBasis
from helmol.errors import DomainError, InputError
from helmol.evaluate.run import evaluate_store
from helmol.model import ModelConfig, build
from helmol.predict import TrainedModel
from helmol.predict.files import Run, predict_file
from helmol.predict.kept import NpzFolder
from helmol.predict.prediction import make_prediction
from helmol.skipped import Skips
from helmol.store import Store
from helmol.system import Molecule
from helmol.target import Domain
from toy_store import BASIS, LEVEL, TINY, make_store, toy_samples


def network(level=LEVEL, charges=(0,)):
    return build(ModelConfig(**TINY), Domain(level, BASIS, "fock-minus-minao", charges, (0,)))


@pytest.fixture
def result(tmp_path):
    """A sample and the file of its prediction."""
    sample, file = toy_samples(1)[0], tmp_path / "w.npz"
    made = make_prediction(
        sample.matrices.fock, sample.molecule, basis=BASIS, overlap=sample.matrices.overlap, id="w"
    )
    made.save(file, model="abc")
    return sample.molecule, file


def usable(molecule, file, fingerprint="abc", residual=False):
    kept = NpzFolder(file.parent, model=fingerprint, compress=False)
    run = Run(SimpleNamespace(fingerprint=fingerprint), file.parent, kept, Skips(), residual=residual)
    return run.usable(molecule, file.stem) is not None


def test_a_result_is_of_one_model_geometry_charge_and_spin(result):
    molecule, file = result
    assert usable(molecule, file)
    assert not usable(molecule, file, residual=True)
    assert not usable(molecule, file, "another model")
    assert not usable(replace(molecule, positions=molecule.positions + 1e-9), file)
    assert not usable(replace(molecule, charge=2), file)
    assert not usable(replace(molecule, spin=2), file)
    assert not usable(molecule, file.with_name("nothing.npz"))


def test_results_of_before_are_made_again_and_other_files_left_alone(result):
    molecule, file = result
    with np.load(file) as data:
        arrays = dict(data)
    np.savez(file, **{key: value for key, value in arrays.items() if key not in ("charge", "spin")})
    assert not usable(molecule, file)
    np.savez(file, fock=arrays["fock"])
    with pytest.raises(InputError, match="no result of 'helmol predict'"):
        usable(molecule, file)
    file.write_bytes(b"PK, or not")
    with pytest.raises(InputError, match="no result of 'helmol predict'"):
        usable(molecule, file)


def test_the_module_has_its_name_of_before():
    trained = TrainedModel(network())
    with pytest.warns(DeprecationWarning, match=r"called TrainedModel\.model"):
        assert trained.network is trained.model
    assert trained.has_fock
    assert not trained.has_energy


def test_a_fingerprint_tells_models_apart_that_predict_differently():
    def other_unit(model):
        model.model.fock_target.scale.elements.of(8).add_(1e-3)

    def other_target(model):
        model.model.domain = replace(model.domain, target="fock")

    def other_weight(model):
        with torch.no_grad():
            next(iter(model.model.parameters())).add_(1e-3)

    prints = {TrainedModel(network()).fingerprint}
    assert TrainedModel(network()).fingerprint in prints
    for change in (other_unit, other_target, other_weight):
        model = TrainedModel(network())
        change(model)
        prints.add(model.fingerprint)
    assert len(prints) == 4


def test_a_store_of_another_functional_is_refused(tmp_path):
    """Its reference matrices are of that functional: a prediction would add to the wrong one."""
    other = type(LEVEL)(**{**LEVEL.to_json(), "xc": "pbe0", "xc_resolved": "0.25*HF"})
    path = make_store(tmp_path / "pbe0.h5", toy_samples(1), level=other)
    with pytest.raises(DomainError, match="the data are 'pbe0'"):
        predict_file(TrainedModel(network()), path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_elements_of_other_molecules_of_a_store_do_not_matter(tmp_path):
    basis = BasisSet(BASIS.name, {**BASIS.elements, 9: ElementBasis((0, 1), 0, "f")})
    waters = toy_samples(2)
    fluorine = replace(
        toy_samples(1, numbers=(1,), charge=-1)[0],
        id="f",
        molecule=Molecule(np.array([9]), np.zeros((1, 3)), -1),
    )
    with Store.create(tmp_path / "mixed.h5", level=LEVEL, basis=basis) as store:
        store.append([*waters, fluorine])
        store.set_splits({"test": [s.id for s in waters]})
    table = evaluate_store(network(), tmp_path / "mixed.h5", out=tmp_path / "e")
    assert table["n_molecules"] == 2
    both = evaluate_store(network(charges=(0, -1)), tmp_path / "mixed.h5", split="all", out=tmp_path / "e")
    (entry,) = both["skipped"]
    assert (entry["item"], entry["file"], entry["row"]) == ("f", str(tmp_path / "mixed.h5"), 2)
    assert entry["reason"].startswith("the model has not learnt F (it knows H, O)")
    # Whoever is left makes the same table.
    assert both["h_mae_uEh"] == pytest.approx(table["h_mae_uEh"], rel=1e-6)
    with pytest.raises(DomainError, match=r"mixed\.h5, row 2, 'f': the model has not learnt F"):
        evaluate_store(
            network(charges=(0, -1)), tmp_path / "mixed.h5", split="all", out=tmp_path / "e", strict=True
        )
