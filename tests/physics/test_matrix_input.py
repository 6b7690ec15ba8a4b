"""Matrices as input: turned, renamed and cut into parts they give the same prediction, and they are used."""

import numpy as np
import pytest
import torch
from physics_tools import LEVEL, SHELLS, made_up_basis, random_molecule, turn
from scipy.spatial.transform import Rotation

from helmol.errors import ConfigError, InputError
from helmol.graph import collate
from helmol.graph.blocks import split_degrees, table_of
from helmol.graph.layout import rows_of_degree
from helmol.model import ModelConfig, build, fit_statistics, load_model, predict_fock, save_model
from helmol.system import LevelOfTheory, Molecule
from helmol.target import Domain
from helmol.target.matrix import smeared_density

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11}
TARGET = "fock-minus-minao-step"
ALL = ("reference", "change", "density", "overlap")


def random_matrices(rng, nao, n_spins=1):
    """Return made-up references and overlap."""
    before, h = rng.normal(size=(2, n_spins, nao, nao)).squeeze(axis=1 if n_spins == 1 else ())
    s = rng.normal(size=(nao, nao))
    references = {"minao": before, "minao-step": h}
    return {
        **{name: matrix + np.swapaxes(matrix, -1, -2) for name, matrix in references.items()},
        "overlap": s @ s.T / nao + np.eye(nao),
    }


def reader(dtype=torch.float64, *, method="rks", inputs=ALL, target=TARGET, **more):
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
        items.append(network.prepare(molecule, known["minao"], network.input_matrices(molecule, known)))
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
    return predict_fock(network, [molecule], [known], **more)[0] - known["minao-step"]


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
    from helmol.model import matrix_input

    reads = network.matrix_input
    with monkeypatch.context() as patch:
        for key, entries in reads.exchange.items():
            patch.setitem(reads.exchange, key, [(order, sign.abs()) for order, sign in entries])
        assert permutation_error(network, rng) > 100 * TOLERANCE[network.dtype]
    with monkeypatch.context() as patch:
        patch.setattr(matrix_input, "rotate_pairs", lambda values, *arguments, **more: values)
        assert rotation_error(network, rng) > 100 * TOLERANCE[network.dtype]


def plain_edges(reads, batch, geometry):
    """What the blocks add to the edges, block kind by block kind and degree by degree."""
    n_pairs, rows = geometry.n_pairs, rows_of_degree(reads.lmax)
    total = torch.zeros(2 * n_pairs, (reads.lmax + 1) ** 2, reads.channels, dtype=torch.float64)
    for bucket in batch.buckets:
        if len(bucket.key) == 1:
            continue
        maps, index = reads.cut([bucket.key]), bucket.index
        values = bucket.inputs * reads.known.inverse_of(bucket.key)
        values = values * geometry.envelope[index % n_pairs][:, None, None]
        opposite = (index + n_pairs) % (2 * n_pairs)
        for l, part in enumerate(split_degrees(values, table_of(bucket.key))):
            part = geometry.rotate_irreps(l, part, index, to_edge=True)
            flip = geometry.flip[l * l : (l + 1) ** 2, None]
            total[index[:, None], rows[l]] += part @ maps.of(l, bucket.key)
            total[opposite[:, None], rows[l]] += (part * flip) @ maps.transposed(l, bucket.key)
    return geometry.held(total)


@pytest.mark.parametrize("unnatural", [0, 3])
@pytest.mark.parametrize("method", ["rks", "uks"])
def test_edges_and_gradients_are_those_of_the_plain_sum(rng, unnatural, method):
    network = reader(unnatural=unnatural, method=method)
    reads, (molecule, _) = network.matrix_input, case(network, rng)
    nao = network.domain.basis.offsets(molecule.numbers)[-1]
    known = random_matrices(rng, nao, network.domain.n_spins)
    batch = collate([network.prepare(molecule, inputs=network.input_matrices(molecule, known))])
    geometry = network(batch).nodes.geometry
    weights = [weight for weight in reads.parameters() if weight.numel()]
    found, plain = (
        reads.edges(batch.buckets, geometry, 0, geometry.n_pairs),
        plain_edges(reads, batch, geometry),
    )
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12 * plain.abs().max().item())
    probe = torch.randn_like(plain)
    for a, b in zip(
        *(torch.autograd.grad((x * probe).sum(), weights, allow_unused=True) for x in (found, plain)),
        strict=True,
    ):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * max(1.0, b.abs().max().item()))


def test_every_block_and_every_map_is_used(rng):
    network = reader()
    molecule, known = case(network, rng, (6, 1, 8, 6, 16, 16, 1, 8))
    offsets = network.domain.basis.offsets(molecule.numbers)
    before = predict(network, molecule, known)
    for name in ("minao", "minao-step", "overlap"):
        for a, b in ((0, 0), (0, 3), (1, 4)):
            changed = {key: matrix.copy() for key, matrix in known.items()}
            changed[name][offsets[a], offsets[b]] += 0.1
            changed[name][offsets[b], offsets[a]] = changed[name][offsets[a], offsets[b]]
            assert np.abs(predict(network, molecule, changed) - before).max() > 1e-6
    batch = collate([network.prepare(molecule, inputs=network.input_matrices(molecule, known))])
    sum(part.square().sum() for part in network(batch).fock.normalised).backward()
    for name, weight in network.matrix_input.named_parameters():
        assert not weight.numel() or weight.grad.abs().max() > 0, name


def test_parts_and_checkpoints_change_nothing(rng):
    network = reader()
    molecule, known = case(network, rng)
    whole = predict(network, molecule, known)
    np.testing.assert_allclose(predict(network, molecule, known, max_edges=6), whole, atol=1e-12)
    batch = collate([network.prepare(molecule, inputs=network.input_matrices(molecule, known))])
    gradients = []
    for checkpoint in (False, True):
        network.zero_grad()
        sum(part.square().sum() for part in network(batch, checkpoint=checkpoint).fock.normalised).backward()
        gradients.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_alpha_and_beta(rng):
    network = reader(method="uks")
    molecule = random_molecule(rng, (8, 1, 1))
    known = random_matrices(rng, network.domain.basis.offsets(molecule.numbers)[-1], 2)
    assert network.input_matrices(molecule, known).shape[0] == 7
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
        predict_fock(network, [molecule], [{name: known[name] for name in ("minao", "minao-step")}])
    with pytest.raises(InputError, match="needs the reference matrix 'minao';"):
        predict_fock(network, [molecule], [{name: known[name] for name in ("overlap", "minao-step")}])
    with pytest.raises(InputError, match="as input"):
        network(collate([network.prepare(molecule)]))
    with pytest.raises(ConfigError, match="no reference for 'reference'"):
        reader(target="fock")
    with pytest.raises(ConfigError, match="take fock-minus-minao-step"):
        reader(target="fock-minus-minao")
    with pytest.raises(ConfigError, match="Fock matrices alone"):
        reader(heads={"fock": {}, "energy": {"readout": "linear"}})


def test_each_matrix_that_is_read_is_what_it_is_called(rng):
    network = reader()
    molecule, known = case(network, rng)
    read = dict(zip(ALL, network.input_matrices(molecule, known), strict=True))
    np.testing.assert_array_equal(read["reference"], known["minao-step"])
    np.testing.assert_array_equal(read["change"], known["minao-step"] - known["minao"])
    np.testing.assert_array_equal(read["overlap"], known["overlap"])
    electrons = network.domain.basis.n_electrons(molecule.numbers, molecule.charge)
    assert np.sum(read["density"] * known["overlap"]) == pytest.approx(electrons, rel=1e-12)


def test_density_with_a_gap_is_that_of_the_lowest_orbitals(rng):
    energies = np.array([-2.0, -1.0, -0.5, 0.4, 0.9])
    orthogonal = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    s = rng.normal(size=(5, 5))
    root = s @ s.T / 5 + np.eye(5)
    inverse = np.linalg.inv(root)
    coefficients = inverse @ orthogonal
    fock = root @ orthogonal @ np.diag(energies) @ orthogonal.T @ root
    wanted = 2 * coefficients[:, :3] @ coefficients[:, :3].T
    np.testing.assert_allclose(smeared_density(fock, root @ root, 6), wanted, atol=1e-10)
    one_more = smeared_density(np.stack([fock, fock]), root @ root, 7, spin=1)
    np.testing.assert_allclose(one_more[1], wanted / 2, atol=1e-10)
    np.testing.assert_allclose(one_more[0], coefficients[:, :4] @ coefficients[:, :4].T, atol=1e-10)


@pytest.mark.parametrize("split", [0.0, 1e-9, -1e-9])
def test_electrons_of_a_degenerate_level_are_shared(rng, split):
    """Sharp occupations would jump between two matrices as the level splits this way or that."""
    fock = np.diag([-1.0, -0.3, -0.3 + split, 0.5])
    np.testing.assert_allclose(smeared_density(fock, np.eye(4), 4), np.diag([2.0, 1, 1, 0]), atol=1e-6)
    assert not smeared_density(np.stack([fock, fock]), np.eye(4), 1, spin=1)[1].any()
