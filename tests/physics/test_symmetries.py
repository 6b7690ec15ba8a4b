"""Identities that a Fock matrix obeys and so must its prediction, each with a fault that breaks it."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from physics_tools import SHELLS, make_network, random_molecule, turn
from scipy.spatial.transform import Rotation

from helmol.graph import collate, frames
from helmol.model import hamiltonian_loss, predict_fock
from helmol.system import Molecule

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}


def predict(network, molecule):
    return predict_fock(network, [molecule], [{}])[0]


def rotation_error(network, molecule, rotation, shift=0.0):
    """Largest deviation from F(Rr) = D F(r) Dᵀ, relative to the largest element."""
    fock = predict(network, molecule)
    moved = Molecule(
        molecule.numbers, molecule.positions @ rotation.T + shift, molecule.charge, molecule.spin
    )
    expected = turn(fock, rotation, network.domain.basis.shells(molecule.numbers))
    return np.abs(predict(network, moved) - expected).max() / np.abs(fock).max()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000))
def test_random_proper_rotations_and_translations(network, seed):
    molecule = random_molecule(np.random.default_rng(seed))
    rotation = Rotation.random(random_state=seed).as_matrix()
    assert rotation_error(network, molecule, rotation, shift=10.0) < TOLERANCE[network.dtype]


LINEAR = [[0.0, 0.0, 0.0], [0.0, 0.0, 2.2], [0.0, 0.0, -2.2], [0.0, 0.0, 4.3]]


@pytest.mark.parametrize("axis", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)])
@pytest.mark.parametrize("tilt", [0.0, 1e-9, 1e-6, 3e-4])
def test_linear_molecules_on_and_beside_every_axis(network, axis, tilt):
    start = np.array([[6, 8, 8, 1]])[0]
    tilted, _ = Rotation.align_vectors([np.array(axis) + tilt * np.array([0.3, -0.5, 0.8])], [[0, 0, 1]])
    turned = Rotation.random(random_state=1).as_matrix()
    molecule = Molecule(start, np.array(LINEAR) @ tilted.as_matrix().T, charge=1)
    assert rotation_error(network, molecule, turned) < TOLERANCE[network.dtype]


def test_a_wrong_frame_near_the_pole_is_caught(network, monkeypatch):
    """An angle taken by acos in single precision is the classic fault; 1e-3 rad is its size."""
    right = frames.frames_of_directions

    def wrong(unit, lmax):
        return right(unit + 1e-3 * (unit[:, 2:] > 0.9), lmax)

    molecule = Molecule([6, 8, 8, 1], np.array(LINEAR), charge=1)
    monkeypatch.setattr(frames, "frames_of_directions", wrong)
    assert rotation_error(network, molecule, Rotation.random(random_state=1).as_matrix()) > 10 * TOLERANCE[
        network.dtype
    ]  # fmt: skip


def test_hermitian_to_the_last_bit(network, rng):
    fock = predict(network, random_molecule(rng))
    assert (fock == fock.T).all()
    assert np.abs(fock).max() > 0.1


def permutation_error(network, rng):
    molecule = random_molecule(rng, (6, 1, 8, 6, 16, 6, 1))
    basis, order = network.domain.basis, rng.permutation(molecule.n_atoms)
    offsets = basis.offsets(molecule.numbers)
    orbitals = np.concatenate([np.arange(offsets[a], offsets[a + 1]) for a in order])
    permuted = Molecule(molecule.numbers[order], molecule.positions[order], molecule.charge)
    fock = predict(network, molecule)
    return np.abs(predict(network, permuted) - fock[np.ix_(orbitals, orbitals)]).max() / np.abs(fock).max()


def test_renaming_the_atoms_renames_the_orbitals(network, rng):
    assert permutation_error(network, rng) < TOLERANCE[network.dtype]


def test_a_pair_read_in_one_direction_only_is_caught(network, rng, monkeypatch):
    for key, entries in network.fock_head.exchange.items():
        monkeypatch.setitem(
            network.fock_head.exchange, key, [(order, torch.zeros_like(sign)) for order, sign in entries]
        )
    assert permutation_error(network, rng) > 100 * TOLERANCE[network.dtype]


def test_a_batch_predicts_what_single_molecules_do(network, rng):
    molecules = [random_molecule(rng), random_molecule(rng, (1,)), random_molecule(rng, (8, 1, 1))]
    together = predict_fock(network, molecules, [{}] * 3)
    apart = predict_fock(network, molecules, [{}] * 3, max_edges=1)
    for one, other, molecule in zip(together, apart, molecules, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE[network.dtype] * np.abs(one).max())
        assert len(one) == network.domain.basis.offsets(molecule.numbers)[-1]


def test_two_far_molecules_predict_as_two_separate_ones(network, rng):
    first, second = random_molecule(rng, (8, 1, 1)), random_molecule(rng, (6, 8, 16))
    both = Molecule(
        np.concatenate([first.numbers, second.numbers]),
        np.concatenate([first.positions, second.positions + np.array([60.0, 0, 0])]),
    )
    fock = predict(network, both)
    n = network.domain.basis.offsets(first.numbers)[-1]
    scale = TOLERANCE[network.dtype] * np.abs(fock).max()
    np.testing.assert_allclose(fock[:n, :n], predict(network, first), atol=scale)
    np.testing.assert_allclose(fock[n:, n:], predict(network, second), atol=scale)
    assert (fock[:n, n:] == 0).all()


@pytest.mark.parametrize("distance", [56.7, 27.0])
def test_single_atoms_and_far_pairs(network, distance):
    """One atom has no edges; two atoms 30 Å apart are two single atoms."""
    atom = predict(network, Molecule([8], np.zeros((1, 3))))
    # A lone atom is spherical: its matrix commutes with every rotation.
    rotation = Rotation.random(random_state=2).as_matrix()
    spherical = turn(atom, rotation, network.domain.basis.shells([8]))
    np.testing.assert_allclose(spherical, atom, atol=TOLERANCE[network.dtype] * np.abs(atom).max())
    pair = Molecule([8, 8], np.array([[0.0, 0, 0], [0, distance, 0]]))
    fock = predict(network, pair)
    assert np.isfinite(fock).all()
    assert rotation_error(network, pair, rotation) < TOLERANCE[network.dtype]
    if distance > network.config.cutoff:
        np.testing.assert_allclose(fock[:14, :14], atom, atol=TOLERANCE[network.dtype] * np.abs(atom).max())


def test_the_prediction_is_smooth_at_the_cutoff():
    network = make_network(torch.float64, cutoff=6.0)

    def at(distance):
        return predict(network, Molecule([8, 8], np.array([[0.0, 0, 0], [0, 0, distance]])))

    inside, outside = at(6.0 - 1e-5), at(6.0 + 1e-5)
    assert np.abs(inside - outside).max() < 1e-9
    # Without the envelope the same step jumps.
    network = make_network(torch.float64, cutoff=6.0, envelope=False)
    assert np.abs(at(6.0 - 1e-5) - at(6.0 + 1e-5)).max() > 1e-4


def test_charge_and_spin_reach_the_prediction(network, rng):
    molecule = random_molecule(rng, (8, 1, 1))
    neutral = predict(network, molecule)
    triplet = predict(network, Molecule(molecule.numbers, molecule.positions, 0, 2))
    cation = predict(network, Molecule(molecule.numbers, molecule.positions, 1, 1))
    for other in (triplet, cation):
        assert np.abs(neutral - other).max() > 1e-3


def test_g_shells_and_alpha_beta_pairs():
    network = make_network(torch.float64, shells={1: (0, 1), 26: (0, 1, 2, 3, 4)}, method="uks")
    molecule = random_molecule(np.random.default_rng(0), (26, 1, 26))
    fock = predict(network, molecule)
    assert fock.shape[0] == 2
    assert np.abs(fock[0] - fock[1]).max() > 1e-3
    assert rotation_error_spins(network, molecule) < 1e-11


def rotation_error_spins(network, molecule):
    rotation = Rotation.random(random_state=9).as_matrix()
    moved = Molecule(molecule.numbers, molecule.positions @ rotation.T, molecule.charge, molecule.spin)
    shells = network.domain.basis.shells(molecule.numbers)
    pairs = zip(predict(network, molecule), predict(network, moved), strict=True)
    return max(np.abs(turn(a, rotation, shells) - b).max() / np.abs(a).max() for a, b in pairs)


def test_every_weight_is_used():
    network = make_network(torch.float64)
    molecule = random_molecule(np.random.default_rng(0), tuple(SHELLS) * 2)
    output = network(collate([network.prepare(molecule)])).fock
    sum(part.square().sum() for part in output.normalised).backward()
    unused = [name for name, weight in network.named_parameters() if weight.grad is None]
    assert unused == []


def test_a_basis_of_s_shells_only():
    network = make_network(torch.float64, shells={1: (0,), 2: (0, 0)})
    molecule = Molecule([1, 2, 1], np.array([[0.0, 0, 0], [0, 0, 2.0], [0, 2.0, 0]]))
    assert rotation_error(network, molecule, Rotation.random(random_state=4).as_matrix()) < 1e-11


@pytest.mark.parametrize(
    "settings",
    [
        {"mmax": 2},
        {"message_cutoff": 4.0},
        {"radial": "edge"},
        {"radial": "edge", "edge_norm": "post", "gate": "tanh"},
    ],
)
def test_every_switch_keeps_the_symmetry(settings, rng):
    network = make_network(torch.float64, **settings)
    molecule = random_molecule(rng)
    assert rotation_error(network, molecule, Rotation.random(random_state=5).as_matrix()) < 1e-11
    assert permutation_error(network, rng) < 1e-11


def outputs_and_gradients(network, batch, **settings):
    network.zero_grad()
    output = network(batch, **settings).fock
    loss = hamiltonian_loss(output, batch)
    loss.backward()
    return [*output.normalised, loss, *[w.grad.clone() for w in network.parameters() if w.grad is not None]]


@pytest.mark.parametrize(
    "settings", [{"pairs_at_once": 4}, {"checkpoint": True}, {"pairs_at_once": 7, "checkpoint": True}]
)
def test_chunks_and_checkpoints_change_nothing(settings, rng):
    network = make_network(torch.float64, message_cutoff=6.0)
    items = []
    for numbers in [(6, 1, 8, 1, 6, 16), (8, 1, 1), (1,)]:
        molecule = random_molecule(rng, numbers)
        nao = network.domain.basis.offsets(molecule.numbers)[-1]
        items.append(network.prepare(molecule, np.eye(nao)))
    batch = collate(items)
    for plain, other in zip(
        outputs_and_gradients(network, batch), outputs_and_gradients(network, batch, **settings), strict=True
    ):
        torch.testing.assert_close(other, plain, atol=1e-12, rtol=1e-9)
