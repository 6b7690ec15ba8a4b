"""The closed-form part: what symmetry it has, what it explains, how it is kept."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from helmol.basis import BasisSet, ElementBasis
from helmol.errors import InputError
from helmol.graph import collate, prepare
from helmol.model import ModelConfig, build, fit_statistics, load_model, predict_fock, save_model
from helmol.system import Molecule
from helmol.target import Domain
from helmol.target.linear import SIZES, LinearPart, fit_linear
from helmol.target.surroundings import Functions, Surroundings
from toy_store import LEVEL, TINY

SPD = BasisSet("spd", {1: ElementBasis((0, 1), 0, "h"), 6: ElementBasis((0, 0, 1, 2), 0, "c"),
                       8: ElementBasis((0, 0, 1, 2), 0, "o")})  # fmt: skip
CUTOFF = 20.0


def random_items(n, rng):
    """Formaldehyde-like molecules with random symmetric matrices: every map is used, none is special."""
    items = []
    for _ in range(n):
        numbers = np.array([6, 8, 1, 1])
        positions = np.array([[0, 0, 0], [2.3, 0, 0], [-1, 1.8, 0.2], [-1, -1.8, 0.1]])
        molecule = Molecule(numbers, positions + 0.2 * rng.normal(size=positions.shape))
        size = SPD.offsets(numbers)[-1]
        matrix = rng.normal(size=(size, size))
        items.append(prepare(molecule, SPD, cutoff=CUTOFF, matrix=matrix + matrix.T))
    return items


@pytest.fixture(scope="module")
def network():
    """A network whose own output is zero, with a part fitted to random matrices: the part alone is seen."""
    rng = np.random.default_rng(1)
    items = random_items(6, rng)
    network = build(ModelConfig(**TINY, cutoff=CUTOFF), Domain(LEVEL, SPD, "fock", (0,), (0,)),
                    dtype=torch.float64)  # fmt: skip
    fit_statistics(network, items)
    for parameter in [*network.fock_head.weights, network.fock_head.bias]:
        parameter.data.zero_()
    del network.fock_target.parts["means"]
    # A fit would reject maps of noise; here all are wanted, of any value that is consistent.
    functions = Functions(surroundings=3, second=2, second_lmax=2, neighbour=2, product=1, distance=3)
    rows = {}
    for item in items:
        batch = collate([item])
        surroundings = Surroundings(batch, (1, 6, 8), functions, lmax=4, cutoff=CUTOFF)
        for bucket in batch.buckets:
            for label, features, targets in surroundings.samples(bucket):
                rows.setdefault(label, []).append((features, targets))
    maps = {}
    for label, some in rows.items():
        x, y = (torch.cat(values) for values in zip(*some, strict=True))
        ridge = x.T @ x + 1e-3 * torch.eye(x.shape[1], dtype=x.dtype)
        maps[label] = torch.linalg.solve(ridge, x.T @ y).contiguous()
    network.fock_target.parts["linear"] = LinearPart.of_maps((1, 6, 8), 4, CUTOFF, functions, maps)
    return network


def predict(network, molecule):
    return predict_fock(network, [molecule], [{}])[0]


def turned(matrix, shells, turn):
    """The matrix after the molecule was turned, by the rotation of every shell."""
    from helmol.basis import wigner_d

    blocks = [wigner_d(l, turn) for l in shells]
    size = sum(len(b) for b in blocks)
    whole, start = np.zeros((size, size)), 0
    for block in blocks:
        whole[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return whole @ matrix @ whole.T


@pytest.mark.parametrize("mirror", [False, True])
def test_part_turns_with_the_molecule(network, mirror):
    molecule = random_items(1, np.random.default_rng(5))[0].molecule
    turn = Rotation.random(random_state=2).as_matrix()
    before = predict(network, molecule)
    shells = [l for z in molecule.numbers for l in SPD.elements[int(z)].shells]
    if mirror:
        after = predict(network, replace(molecule, positions=-molecule.positions))
        signs = np.concatenate([[(-1.0) ** l] * (2 * l + 1) for l in shells])
        expected = before * np.outer(signs, signs)
    else:
        after = predict(network, replace(molecule, positions=molecule.positions @ turn.T))
        expected = turned(before, shells, turn)
    size = np.abs(before).max()
    assert size > 0.1
    np.testing.assert_allclose(after, expected, atol=1e-9 * size)
    wrong = turned(before, shells, turn.T) if not mirror else before
    assert np.abs(after - wrong).max() > 1e-2 * size


def test_part_does_not_depend_on_the_order_of_atoms(network):
    molecule = random_items(1, np.random.default_rng(5))[0].molecule
    order = np.array([3, 1, 0, 2])
    moved = Molecule(molecule.numbers[order], molecule.positions[order])
    offsets = SPD.offsets(molecule.numbers)
    places = np.concatenate([np.arange(offsets[k], offsets[k + 1]) for k in order])
    before = predict(network, molecule)
    np.testing.assert_allclose(
        predict(network, moved), before[np.ix_(places, places)], atol=1e-7 * np.abs(before).max()
    )


def test_part_of_two_far_molecules_is_the_sum(network):
    one, two = (random_items(2, np.random.default_rng(5))[k].molecule for k in (0, 1))
    both = Molecule(
        np.concatenate([one.numbers, two.numbers]), np.concatenate([one.positions, two.positions + 60.0])
    )
    n = SPD.offsets(one.numbers)[-1]
    matrix = predict(network, both)
    np.testing.assert_allclose(matrix[:n, :n], predict(network, one), atol=1e-10)
    assert np.abs(matrix[:n, n:]).max() == 0


def test_a_lone_atom_has_the_constant_alone(network):
    matrix = predict(network, Molecule(np.array([8]), np.zeros((1, 3)), spin=0))
    table = np.linalg.eigvalsh(matrix)
    assert np.isfinite(matrix).all()
    # Only scalars are left: the levels of p and d shells are degenerate.
    assert len(np.unique(table.round(9))) <= 4


def test_result_does_not_depend_on_how_many_edges_are_in_memory(network, monkeypatch):
    molecule = random_items(1, np.random.default_rng(5))[0].molecule
    before = predict(network, molecule)
    monkeypatch.setattr("helmol.target.surroundings.EDGES_AT_A_TIME", 3)
    np.testing.assert_allclose(predict(network, molecule), before, atol=1e-11 * np.abs(before).max())


def scalar_items(n, rng):
    """Bent molecules with s shells only, whose elements are smooth functions of the three distances."""
    basis = BasisSet("s", {1: ElementBasis((0,), 0, "h"), 8: ElementBasis((0, 0), 0, "o")})
    items = []
    for _ in range(n):
        positions = np.array([[0, 0, 0], [1.8, 0, 0], [-0.45, 1.75, 0]]) + 0.1 * rng.normal(size=(3, 3))
        distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        atoms = np.array([0, 0, 1, 2])
        matrix = np.exp(-distance)[np.ix_(atoms, atoms)] * (1 + 0.1 * np.exp(-distance).sum())
        molecule = Molecule(np.array([8, 1, 1]), positions)
        items.append(prepare(molecule, basis, cutoff=CUTOFF, matrix=matrix))
    return items


def test_smooth_targets_are_explained_and_the_rest_is_what_is_left():
    items = scalar_items(60, np.random.default_rng(3))
    part, left = fit_linear(items[:50], lmax=1, cutoff=CUTOFF)
    squares = np.zeros(2)
    for item in items[50:]:
        rest, whole = part.subtract(item), collate([item])
        for old, new, explained in zip(whole.buckets, collate([rest]).buckets, part(whole), strict=True):
            torch.testing.assert_close(new.target + explained, old.target)
            squares += [float(bucket.target.square().sum()) for bucket in (old, new)]
    assert squares[1] < 1e-6 * squares[0]
    assert 0.3 < left / np.sqrt(squares[1] / squares[0]) < 3


def test_what_cannot_be_explained_is_said_to_be_left():
    rng = np.random.default_rng(8)
    items = [
        replace(
            item,
            buckets={k: replace(b, target=rng.normal(size=b.target.shape)) for k, b in item.buckets.items()},
        )
        for item in scalar_items(40, rng)
    ]
    _, left = fit_linear(items, lmax=1, cutoff=CUTOFF)
    assert 0.9 < left <= 1


def test_part_is_saved_with_the_model(network, tmp_path):
    molecule = random_items(1, np.random.default_rng(5))[0].molecule
    save_model(tmp_path, network)
    again = load_model(tmp_path)
    before, after = (model.fock_target.parts["linear"] for model in (network, again))
    assert after.description() == before.description()
    assert torch.equal(after.maps, before.maps)
    np.testing.assert_allclose(predict(again, molecule), predict(network, molecule), rtol=1e-10)


def test_numbers_of_one_part_fit_another_whatever_the_order_of_its_maps(network):
    part = network.fock_target.parts["linear"]
    maps = {label: part.map_of(label) for label in reversed(part.shapes)}
    again = LinearPart.of_maps(part.elements, 4, CUTOFF, part.functions, maps)
    assert torch.equal(again.maps, part.maps)
    description = part.description()
    description["maps"] = dict(reversed(description["maps"].items()))
    blank = LinearPart.blank(description, network.domain, network.fock_target.sizes)
    blank.load_state_dict(part.state_dict())
    assert all(torch.equal(blank.map_of(label), part.map_of(label)) for label in part.shapes)


def test_labels_are_needed_and_rare_maps_are_left_out():
    molecule = random_items(1, np.random.default_rng(0))[0].molecule
    with pytest.raises(InputError, match="target"):
        fit_linear([prepare(molecule, SPD, cutoff=CUTOFF)], lmax=4, cutoff=CUTOFF)
    part, left = fit_linear(random_items(1, np.random.default_rng(0)), lmax=4, cutoff=CUTOFF)
    assert (part.shapes, left) == ({}, 1.0)
    assert SIZES["small"] == Functions()
