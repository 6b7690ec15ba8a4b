"""A model of Fock matrices reads energies from them, and learns what is missing from few labels."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from typer.testing import CliRunner

import helmol
from helmol.ase import HelmolCalculator
from helmol.cli.main import app
from helmol.errors import ConfigError, DomainError, InputError
from helmol.predict import MatrixEnergy, learn_energies
from helmol.predict.matrix_energy import Reading, features, fit_matrix_energy
from helmol.store import Store
from helmol.system import Matrices, Molecule, Sample
from helmol.units import EV_PER_HARTREE

HCN = Molecule([1, 6, 7], [[0, 0, 0.1], [0, 0.2, 2.1], [0.1, 0, 4.3]])
HNC = Molecule([1, 7, 6], [[0, 0, 0.1], [0, 0.2, 2.0], [0.1, 0, 4.2]])
AMMONIA = Molecule([7, 1, 1, 1], [[0, 0, 0.2], [1.8, 0, -0.5], [-0.9, 1.6, -0.5], [-0.9, -1.6, -0.5]])
METHANE = Molecule(
    [6, 1, 1, 1, 1], np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]) * 1.2
)
CYANOGEN = Molecule([7, 6, 6, 7], [[0, 0, 0], [0, 0, 2.2], [0, 0.1, 4.8], [0, 0, 7.0]])
WATER = Molecule([8, 1, 1], [[0, 0, 0.2], [0, 1.43, -0.9], [0, -1.43, -0.9]])
LEARNT = (HCN, HNC, AMMONIA, METHANE, CYANOGEN)


def reading(rng, numbers, energy=-1.0):
    """Return numbers that no molecule has."""
    n = len(numbers)
    orders = rng.uniform(0, 2, (n, n))
    np.fill_diagonal(orders, 0)
    molecule = Molecule(np.array(numbers), rng.normal(size=(n, 3)) * 9, spin=sum(numbers) % 2)
    return Reading(molecule, energy, rng.normal(size=n), (orders + orders.T) / 2)


def planted(one, weights, per_element, elements):
    counts = [np.sum(one.molecule.numbers == z) for z in elements]
    return one.energy + counts @ per_element + features(one, elements) @ weights


@pytest.fixture(scope="module")
def organic():
    return helmol.load("organic")


@pytest.fixture(scope="module")
def energies(organic):
    """Return the energies of E₀ and constants of the elements, as labels that the fit must find."""
    constants = {1: 0.01, 6: -0.02, 7: 0.03}
    return [
        one.energy + sum(constants[z] for z in one.molecule.numbers.tolist())
        for one in organic.readings(LEARNT, "matrix")
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory, organic, energies):
    path = tmp_path_factory.mktemp("labels") / "labels.h5"
    empty = Matrices(np.zeros((0, 0)))
    with Store.create(path, level=organic.domain.level, basis=organic.domain.basis) as data:
        data.append(
            [
                Sample(f"m{k}", m, empty, energy=e)
                for k, (m, e) in enumerate(zip(LEARNT, energies, strict=True))
            ]
        )
        bare = Matrices(np.eye(int(organic.domain.basis.offsets(HCN.numbers)[-1])))
        data.append([Sample("water", WATER, empty, energy=-76.0), Sample("bare", HCN, bare)])
        data.set_splits({"train": ["m0", "m1", "m2", "m3"], "test": ["m4"], "strange": ["water", "bare"]})
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, store):
    out = tmp_path_factory.mktemp("model") / "with-energies"
    result = learn_energies("organic", store, out=out, way="matrix")
    assert result["n_labels"] == 4
    assert result["n_skipped"] == 0
    # The constants were expected to be 50 mEh and are 10 to 30: a ridge leaves a little.
    assert result["test"]["energy_mae_meV"] < 5
    return out


def test_a_planted_linear_target_is_found(rng):
    elements = (1, 6, 8)
    readings = [reading(rng, rng.choice(elements, size=6).tolist()) for _ in range(120)]
    n = len(features(readings[0], elements))
    weights, constants = 0.01 * rng.normal(size=n), np.array([0.02, -0.03, 0.05])
    labels = [planted(one, weights, constants, elements) for one in readings]
    fitted = fit_matrix_energy(readings[:100], labels[:100], way="density", model="")
    errors = [fitted.energy(one) - label for one, label in zip(readings, labels, strict=True)]
    assert np.abs(errors).max() < 2e-4
    # Noise is not fitted: what is left out says how large it is.
    noisy = np.array(labels[:100]) + rng.normal(size=100) * 0.01
    fitted = fit_matrix_energy(readings[:100], noisy.tolist(), way="density", model="")
    assert 0.004 < fitted.left_out < 0.03


def test_features_are_sums_whatever_the_order_of_the_atoms(rng):
    elements = (1, 6, 8)
    one, other = reading(rng, [1, 6, 8, 6]), reading(rng, [8, 1, 1])
    order = rng.permutation(4)
    numbers, positions = one.molecule.numbers[order], one.molecule.positions[order]
    turned = replace(
        one,
        molecule=Molecule(numbers, positions, spin=one.molecule.spin),
        charges=one.charges[order],
        bond_orders=one.bond_orders[np.ix_(order, order)],
    )
    np.testing.assert_allclose(features(turned, elements), features(one, elements), atol=1e-12)
    orders = np.zeros((7, 7))
    orders[:4, :4], orders[4:, 4:] = one.bond_orders, other.bond_orders
    numbers = np.concatenate([one.molecule.numbers, other.molecule.numbers])
    positions = np.concatenate([one.molecule.positions, other.molecule.positions + 100])
    both = Reading(
        Molecule(numbers, positions, spin=int(numbers.sum()) % 2),
        0.0,
        np.concatenate([one.charges, other.charges]),
        orders,
    )
    np.testing.assert_allclose(
        features(both, elements), features(one, elements) + features(other, elements), atol=1e-12
    )


@pytest.mark.parametrize("way", ["density", "matrix"])
def test_energies_turn_and_add_up(organic, way):
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    mirrored = Molecule(AMMONIA.numbers[::-1], -AMMONIA.positions[::-1] @ rotation.T)
    far = Molecule(
        np.concatenate([AMMONIA.numbers, HCN.numbers]),
        np.concatenate([AMMONIA.positions, HCN.positions + np.array([0, 0, 90.0])]),
    )
    here, there, hcn, both = organic.readings([AMMONIA, mirrored, HCN, far], way)
    # The points of grids do not turn.
    assert there.energy == pytest.approx(here.energy, abs=5e-4)
    np.testing.assert_allclose(there.charges[::-1], here.charges, atol=2e-4)
    assert both.energy == pytest.approx(here.energy + hcn.energy, abs=1e-4)


def test_a_saved_model_gives_the_same_energies_everywhere(folder, energies, tmp_path):
    model = helmol.load(folder)
    assert model.has_energy
    assert not model.has_forces
    found = model.energies(list(LEARNT), forces=False)
    np.testing.assert_allclose([one.energy for one in found], energies, atol=5e-4)
    assert model.energies(HCN, forces=False).energy == pytest.approx(found[0].energy, abs=1e-7)
    atoms = Atoms(HCN.numbers, HCN.positions_ang, calculator=HelmolCalculator(model))
    assert atoms.get_potential_energy() == pytest.approx(EV_PER_HARTREE * found[0].energy, abs=1e-4)
    assert "forces" not in atoms.calc.implemented_properties
    helmol.model.export_model(folder, tmp_path / "given")
    assert helmol.load(tmp_path / "given").matrix_energy.n_labels == 4


def test_forces_and_unknown_elements_are_refused(folder, organic):
    model = helmol.load(folder)
    with pytest.raises(DomainError, match="have no forces: ask for energies only"):
        model.energies(HCN)
    with pytest.raises(DomainError, match="no energy with O was among the 4"):
        model.energies(WATER, forces=False)
    with pytest.raises(ConfigError, match="'helmol energies'"):
        organic.energies(HCN, forces=False)


def test_what_cannot_be_used_is_named(store, tmp_path):
    result = learn_energies("organic", store, out=tmp_path / "a", way="matrix", number=3, test="strange")
    reasons = {entry["item"]: entry["reason"] for entry in result["skipped"]}
    assert "no energy with O" in reasons["water"]
    assert "has no energy" in reasons["bare"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"way": "guess"}, "expected density or matrix"),
        ({"split": "no"}, "no split 'no'"),
        ({"number": 9}, "9 energies wanted, 4 can be drawn"),
        ({"split": "all", "test": "test"}, "both learnt and tested"),
    ],
)
def test_bad_requests_are_one_line(store, tmp_path, keys, message):
    with pytest.raises(InputError, match=message):
        learn_energies("organic", store, out=tmp_path / "a", **keys)
    assert not (tmp_path / "a").exists()


def test_a_file_that_is_damaged_or_of_another_model_is_refused(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    MatrixEnergy.load(copy).save(copy)
    helmol.load(copy)
    replace(MatrixEnergy.load(copy), model="another").save(copy)
    with pytest.raises(InputError, match="is of another model"):
        helmol.load(copy)
    data = json.loads((folder / "energy.json").read_text())
    data["per_element_Eh"][0] += 1e-3
    (copy / "energy.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="has changed since it was written"):
        helmol.load(copy)


def test_the_verbs(store, tmp_path):
    out, written = tmp_path / "model", tmp_path / "result.json"
    arguments = [
        "energies",
        "organic",
        str(store),
        "--out",
        str(out),
        "--way",
        "matrix",
        "--json",
        str(written),
    ]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert json.loads(written.read_text())["test"]["n_molecules"] == 1
    (tmp_path / "hcn.xyz").write_text("3\n\nH 0 0 0\nC 0 0 1.07\nN 0 0 2.22\n")
    done = CliRunner().invoke(
        app, ["predict", str(out), str(tmp_path / "hcn.xyz"), "--out", str(tmp_path / "predictions")]
    )
    assert done.exit_code == 0, done.output
    assert "HCN" in (tmp_path / "predictions" / "energies.csv").read_text().replace("CHN", "HCN")
