"""Matrices as input: turned, renamed and cut into parts they give the same prediction, and they are used."""

import numpy as np
import pytest
import torch
from physics_tools import LEVEL, SHELLS, made_up_basis, random_molecule, turn
from scipy.spatial.transform import Rotation

from helmol.errors import ConfigError, InputError
from helmol.graph import collate
from helmol.model import Domain, ModelConfig, build, fit_statistics, load_model, predict_fock, save_model
from helmol.model.network import given_matrices
from helmol.system import LevelOfTheory, Molecule

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def random_matrices(rng, nao, n_spins=1):
    """Return a made-up H₀ and overlap."""
    h = rng.normal(size=(n_spins, nao, nao)).squeeze()
    s = rng.normal(size=(nao, nao))
    return {"minao": h + np.swapaxes(h, -1, -2), "overlap": s + s.T}


def reader(
    dtype=torch.float64, *, method="rks", inputs=("reference", "overlap"), target="fock-minus-minao", **more
):
    rng = np.random.default_rng(5)
    level = LevelOfTheory(**{**LEVEL.to_json(), "method": method})
    domain = Domain(level, made_up_basis(), target, (-1, 0, 1), (0, 1, 2))
    config = ModelConfig(channels=8, n_layers=2, radial_channels=16, inputs=inputs, **more)
    network = build(config, domain, seed=1, dtype=dtype)
    items = []
    for _ in range(2):
        molecule = random_molecule(rng, tuple(list(SHELLS) * 2))
        nao = domain.basis.offsets(molecule.numbers)[-1]
        known = random_matrices(rng, nao, domain.n_spins)
        items.append(network.prepare(molecule, known["minao"], given_matrices(network, known)))
    fit_statistics(network, items)
    return network


@pytest.fixture(scope="module", params=["float32", "float64"])
def network(request):
    return reader(getattr(torch, request.param))


def case(network, rng, numbers=(6, 1, 8, 6, 16, 6, 1)):
    molecule = random_molecule(rng, numbers)
    return molecule, random_matrices(rng, network.domain.basis.offsets(molecule.numbers)[-1])


def predict(network, molecule, known, **more):
    """Return what the network adds to H₀."""
    return predict_fock(network, [molecule], [known], **more)[0] - known["minao"]


def rotation_error(network, rng):
    molecule, known = case(network, rng)
    rotation, shells = (
        Rotation.random(random_state=3).as_matrix(),
        network.domain.basis.shells(molecule.numbers),
    )
    moved = Molecule(molecule.numbers, molecule.positions @ rotation.T, molecule.charge)
    turned = {name: turn(matrix, rotation, shells) for name, matrix in known.items()}
    fock = predict(network, molecule, known)
    return np.abs(predict(network, moved, turned) - turn(fock, rotation, shells)).max() / np.abs(fock).max()


def permutation_error(network, rng):
    molecule, known = case(network, rng)
    offsets, order = network.domain.basis.offsets(molecule.numbers), rng.permutation(molecule.n_atoms)
    orbitals = np.concatenate([np.arange(offsets[a], offsets[a + 1]) for a in order])
    permuted = Molecule(molecule.numbers[order], molecule.positions[order], molecule.charge)
    renamed = {name: matrix[np.ix_(orbitals, orbitals)] for name, matrix in known.items()}
    fock = predict(network, molecule, known)
    return (
        np.abs(predict(network, permuted, renamed) - fock[np.ix_(orbitals, orbitals)]).max()
        / np.abs(fock).max()
    )


def test_rotations_and_permutations(network, rng):
    assert rotation_error(network, rng) < TOLERANCE[network.dtype]
    assert permutation_error(network, rng) < TOLERANCE[network.dtype]


def test_a_block_that_is_not_transposed_or_not_turned_is_caught(network, rng, monkeypatch):
    from helmol.model.backbone import inputs

    given = network.backbone.given
    with monkeypatch.context() as patch:
        for key, entries in given.exchange.items():
            patch.setitem(given.exchange, key, [(order, sign.abs()) for order, sign in entries])
        assert permutation_error(network, rng) > 100 * TOLERANCE[network.dtype]
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "rotate_pairs", lambda values, *arguments, **more: values)
        assert rotation_error(network, rng) > 100 * TOLERANCE[network.dtype]


def test_every_block_and_every_map_is_used(rng):
    network = reader()
    molecule, known = case(network, rng, (6, 1, 8, 6, 16, 16, 1, 8))
    offsets = network.domain.basis.offsets(molecule.numbers)
    before = predict(network, molecule, known)
    for name in ("minao", "overlap"):
        for a, b in ((0, 0), (0, 3), (1, 4)):
            changed = {key: matrix.copy() for key, matrix in known.items()}
            changed[name][offsets[a], offsets[b]] += 0.1
            changed[name][offsets[b], offsets[a]] = changed[name][offsets[a], offsets[b]]
            assert np.abs(predict(network, molecule, changed) - before).max() > 1e-6
    batch = collate([network.prepare(molecule, given=given_matrices(network, known))])
    sum(part.square().sum() for part in network(batch).normalised).backward()
    for name, weight in network.backbone.given.named_parameters():
        assert not weight.numel() or weight.grad.abs().max() > 0, name


def test_parts_and_checkpoints_change_nothing(rng):
    network = reader()
    molecule, known = case(network, rng)
    whole = predict(network, molecule, known)
    np.testing.assert_allclose(predict(network, molecule, known, max_edges=6), whole, atol=1e-12)
    batch = collate([network.prepare(molecule, given=given_matrices(network, known))])
    gradients = []
    for checkpoint in (False, True):
        network.zero_grad()
        sum(part.square().sum() for part in network(batch, checkpoint=checkpoint).normalised).backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_alpha_and_beta(rng):
    network = reader(method="uks")
    molecule = random_molecule(rng, (8, 1, 1))
    known = random_matrices(rng, network.domain.basis.offsets(molecule.numbers)[-1], 2)
    assert given_matrices(network, known).shape[0] == 3
    assert predict(network, molecule, known).shape == known["minao"].shape


def test_a_model_folder_keeps_it(tmp_path, rng):
    network = reader(torch.float32)
    save_model(tmp_path / "model", network)
    molecule, known = case(network, rng)
    again = load_model(tmp_path / "model")
    np.testing.assert_array_equal(predict(again, molecule, known), predict(network, molecule, known))


def test_what_is_missing_is_named(rng):
    network = reader()
    molecule, known = case(network, rng)
    with pytest.raises(InputError, match="overlap"):
        predict_fock(network, [molecule], [{"minao": known["minao"]}])
    with pytest.raises(InputError, match="as input"):
        network(collate([network.prepare(molecule)]))
    with pytest.raises(ConfigError, match="no reference"):
        reader(target="fock")
    with pytest.raises(ConfigError, match="Fock matrices alone"):
        reader(energy={"readout": "linear"})
