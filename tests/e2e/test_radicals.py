"""Unrestricted labels from PySCF through training to predictions and SCF starts."""

from dataclasses import replace

import numpy as np
import pytest
from pyscf import gto
from scipy.spatial.transform import Rotation

from helmol import dft
from helmol.basis import BasisSet, wigner_d
from helmol.errors import ConfigError, DomainError, StoreError
from helmol.evaluate import errors
from helmol.evaluate.run import evaluate_store
from helmol.model import load_model
from helmol.predict import TrainedModel
from helmol.pyscf import attach, compare_starts, write_molden
from helmol.store import Store
from helmol.system import Molecule
from helmol.train import TrainConfig, run

LEVEL = dft.LevelConfig(xc="pbe", basis="sto-3g", method="uks", grid_level=1)
N_TRAIN, N_VAL, N_TEST = 20, 4, 6


def bent(k: int) -> Molecule:
    """Return NH₂, H₂O⁺ or H₂O by turns; bent, so that the singly occupied orbital is a function of place."""
    rng = np.random.default_rng(k)
    number, charge, spin = [(7, 0, 1), (8, 1, 1), (8, 0, 0)][k % 3]
    positions = np.array([[0, 0, 0], [0, 0.80, 0.62], [0, -0.80, 0.62]]) + 0.05 * rng.normal(size=(3, 3))
    turned = positions @ Rotation.random(random_state=k).as_matrix().T
    return Molecule.from_angstrom([number, 1, 1], turned, charge=charge, spin=spin)


@pytest.fixture(scope="module")
def radicals(tmp_path_factory):
    """A store of radicals, cations and closed shells at one unrestricted level, and a model of it."""
    place = tmp_path_factory.mktemp("radicals")
    samples = [dft.run(bent(k), LEVEL, id=f"m{k:02d}")[0] for k in range(N_TRAIN + N_VAL + N_TEST)]
    basis = dft.basis_set(LEVEL, {1, 7, 8})
    with Store.create(place / "r.h5", level=dft.level_of_theory(LEVEL, method="uks"), basis=basis) as store:
        store.append(samples)
        ids = [s.id for s in samples]
        store.set_splits(
            {"train": ids[:N_TRAIN], "val": ids[N_TRAIN : N_TRAIN + N_VAL], "test": ids[N_TRAIN + N_VAL :]}
        )
    config = TrainConfig(
        data=place / "r.h5", preset="nano", max_steps=100, warmup_steps=20, validate_every=50,
        checkpoint_every=100, edges_per_batch=60, n_threads=1,
    )  # fmt: skip
    result = run(config, out=place / "run")
    return place, samples, result, TrainedModel.load(place / "run", device="cpu")


def test_errors_fall_well_below_the_cheap_guess(radicals):
    place, _, result, model = radicals
    assert result["best"]["h_mae_alpha_uEh"] > 0
    table = evaluate_store(model.model, place / "r.h5", out=place / "evaluation")
    guess = table["baselines"]["minao-lite"]
    assert table["n_molecules"] == N_TEST
    for key in ("h_mae_uEh", "h_mae_alpha_uEh", "h_mae_beta_uEh", "h_mae_spin_uEh", "eps_occ_beta_mae_uEh"):
        assert table[key] < 0.2 * guess[key], key


def test_swapped_spins_are_seen(radicals):
    """The planted fault: a prediction with alpha and beta exchanged."""
    _, samples, _, model = radicals
    chosen = [s for s in samples if s.molecule.spin][-4:]
    basis = model.domain.basis
    right = [s.matrices.fock for s in chosen]
    assert errors(chosen, right, basis)["h_mae_alpha_uEh"] == 0
    wrong = errors(chosen, [fock[::-1] for fock in right], basis)
    predicted = [model.predict(s).fock for s in chosen]
    assert all(fock.shape[0] == 2 for fock in predicted)
    assert wrong["h_mae_alpha_uEh"] > 5000
    assert wrong["h_mae_beta_uEh"] == pytest.approx(wrong["h_mae_alpha_uEh"])
    assert wrong["h_mae_spin_uEh"] == pytest.approx(2 * wrong["h_mae_alpha_uEh"])


def test_a_prediction_has_the_form_of_an_unrestricted_scf(radicals):
    _, samples, _, model = radicals
    sample = next(s for s in reversed(samples) if s.molecule.spin)
    mole = dft.build_mole(sample.molecule, LEVEL)
    mf = dft.mean_field(mole, LEVEL)
    mf.kernel()
    found = model.predict(mole)
    for name in ("mo_energy", "mo_coeff", "mo_occ"):
        assert getattr(found, name).shape == np.asarray(getattr(mf, name)).shape
    assert found.density.shape == mf.make_rdm1().shape
    np.testing.assert_array_equal(found.mo_occ.sum(axis=1), mole.nelec)
    np.testing.assert_allclose(found.fock, mf.get_fock(), atol=0.05)
    assert np.einsum("sij,ji->s", found.density, mf.get_ovlp()) == pytest.approx(np.array(mole.nelec))
    assert found.charges.sum() == pytest.approx(sample.molecule.charge)
    assert found.gap == pytest.approx(
        mf.mo_energy[mf.mo_occ == 0].min() - mf.mo_energy[mf.mo_occ > 0].max(), abs=0.02
    )


def test_turned_and_renamed_molecules(radicals):
    _, samples, _, model = radicals
    molecule = next(s.molecule for s in reversed(samples) if s.molecule.spin)
    double, shells = model.in_precision("float64"), model.domain.basis.shells(molecule.numbers)
    rotation = Rotation.random(random_state=3).as_matrix()
    turn = np.zeros((sum(2 * l + 1 for l in shells),) * 2)
    start = 0
    for l in shells:
        turn[start : start + 2 * l + 1, start : start + 2 * l + 1] = wigner_d(l, rotation)
        start += 2 * l + 1
    fock = predicted_change(double, molecule)
    moved = predicted_change(double, replace(molecule, positions=molecule.positions @ rotation.T))
    np.testing.assert_allclose(moved, turn @ fock @ turn.T, atol=1e-10)
    order = [1, 0, 2]
    renamed = Molecule(molecule.numbers[order], molecule.positions[order], molecule.charge, molecule.spin)
    offsets = model.domain.basis.offsets(molecule.numbers)
    place = np.concatenate([np.arange(offsets[a], offsets[a + 1]) for a in order])
    other = predicted_change(double, renamed)
    np.testing.assert_allclose(other, fock[:, place][:, :, place], atol=1e-10)


def predicted_change(model: TrainedModel, molecule: Molecule) -> np.ndarray:
    """Return what the model adds to its reference, house order."""
    from helmol.model import predict_fock

    nao = int(model.domain.basis.offsets(molecule.numbers)[-1])
    return predict_fock(model.model, [molecule], [{"minao-lite": np.zeros((2, nao, nao))}])[0]


def test_charge_and_spin_tell_molecules_of_one_shape_apart(radicals):
    model = radicals[3]
    water = bent(2)
    cation = Molecule(water.numbers, water.positions, 1, 1)
    neutral, charged = (predicted_change(model, m) for m in (water, cation))
    assert np.abs(neutral[0] - neutral[1]).max() < 0.2 * np.abs(charged[0] - charged[1]).max()
    with pytest.raises(DomainError, match="2S = 2"):
        model.predict(Molecule(water.numbers, water.positions, 0, 2))


def test_a_charge_and_a_spin_that_never_came_together_are_refused(radicals):
    place, _, _, model = radicals
    # Cations were radicals, closed shells neutral.
    nitrenium = replace(bent(0), charge=1, spin=0)
    with pytest.raises(DomainError, match="spin 2S = 0, but not together"):
        model.predict(nitrenium)
    assert load_model(place / "run/checkpoints/best").domain.states == ((0, 0), (0, 1), (1, 1))


def test_scf_starts_from_the_model(radicals, tmp_path):
    _, _, _, model = radicals
    radical = bent(N_TRAIN + N_VAL + 3)
    assert radical.spin == 1
    result = compare_starts(radical, model)
    assert result["same_state"]
    assert not result["fell_back"], result["reason"]
    assert result["model"]["cycles"] < result["minao"]["cycles"]
    restricted = attach(dft.mean_field(dft.build_mole(bent(2), LEVEL), _restricted()), model)
    restricted.kernel()
    # A closed shell has the density of both spins.
    assert restricted.helmol_info.used, restricted.helmol_info.reason
    assert restricted.converged
    prediction = model.predict(radical)
    write_molden(prediction, tmp_path / "r.molden", level=model.domain.level)
    from pyscf.tools import molden

    _, energy, _, occ, *_ = molden.load(str(tmp_path / "r.molden"))
    np.testing.assert_allclose(np.asarray(energy), prediction.mo_energy, atol=1e-6)
    np.testing.assert_allclose(np.asarray(occ), prediction.mo_occ)


def _restricted() -> dft.LevelConfig:
    return LEVEL.model_copy(update={"method": "rks"})


def test_restricted_rows_are_refused_in_one_line(radicals, tmp_path):
    place, _, _, model = radicals
    water, basis = dft.run(bent(2), _restricted(), id="water")
    with Store.open(place / "r.h5", "a") as store, pytest.raises(StoreError, match="restricted sample"):
        store.append([water])
    level = dft.level_of_theory(_restricted(), method="rks")
    with Store.create(tmp_path / "w.h5", level=level, basis=basis) as store:
        store.append([replace(water, id=f"w{k}") for k in range(4)])
    with pytest.raises(DomainError, match="the data are rks, the model learnt uks"):
        evaluate_store(model.model, tmp_path / "w.h5", split="all", out=tmp_path / "e")
    config = TrainConfig(data=tmp_path / "w.h5", train=2, val=2, init=place / "run", max_steps=1)
    with pytest.raises(ConfigError, match="the data are rks"):
        run(config, out=tmp_path / "again")


@pytest.mark.parametrize(("symbol", "name"), [("N", "cc-pvqz"), ("Ti", "def2-qzvp")])
def test_g_shells_of_real_bases(symbol, name, rng):
    import torch

    from helmol.model import ModelConfig, build, fit_statistics, predict_fock
    from helmol.target import Domain

    mole = gto.M(atom=f"{symbol} 0 0 0; H 0.3 0.4 1.6", basis=name, spin=None, verbose=0)
    molecule, basis = dft.molecule_from_mole(mole), BasisSet.from_mole(mole, name)
    assert basis.lmax == 4
    domain = Domain(
        dft.level_of_theory(LEVEL, method="uks"), basis, "fock", (molecule.charge,), (molecule.spin,)
    )
    network = build(
        ModelConfig(channels=4, n_layers=1, radial_channels=8, n_radial=16), domain, dtype=torch.float64
    )
    assert network.backbone.lmax == 8
    nao = int(mole.nao)
    noise = rng.normal(size=(2, nao, nao))
    fit_statistics(network, [network.prepare(molecule, noise + noise.swapaxes(1, 2))])
    rotation = Rotation.random(random_state=7).as_matrix()
    turned = replace(molecule, positions=molecule.positions @ rotation.T)
    one, other = predict_fock(network, [molecule, turned], [{}, {}])
    from scipy.linalg import block_diag

    matrix = block_diag(*[wigner_d(l, rotation) for l in basis.shells(molecule.numbers)])
    assert one.shape == (2, nao, nao)
    assert (one == one.swapaxes(1, 2)).all()
    np.testing.assert_allclose(other, matrix @ one @ matrix.T, atol=1e-10 * np.abs(one).max())
