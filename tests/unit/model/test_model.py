"""Loss, statistics, domain and model files."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from physics_tools import SHELLS, make_network, random_molecule

from helmol.basis import BasisSet, ElementBasis, diagonal_table
from helmol.digests import write_description
from helmol.errors import ConfigError, DomainError, InputError
from helmol.graph import collate
from helmol.graph.blocks import rotate_pairs
from helmol.model import fit_statistics, hamiltonian_loss, load_model, predict_fock, save_model
from helmol.model.losses.fock import HUBER_DELTA
from helmol.system import Matrices, Molecule, Sample
from helmol.target import reference_matrix, target_matrix


@pytest.fixture(scope="module")
def network():
    return make_network(torch.float64)


def labelled(network, rng, numbers=(6, 1, 8, 16, 8)):
    molecule = random_molecule(rng, numbers)
    nao = network.domain.basis.offsets(molecule.numbers)[-1]
    matrix = rng.normal(size=(nao, nao))
    matrix = matrix + matrix.T
    return molecule, matrix, collate([network.fock_target.subtract(network.prepare(molecule, matrix))])


def perfect_output(network, batch):
    """The normalised irreps that stand for the batch's own targets."""
    output = network(batch).fock
    outputs = []
    for bucket, scale in zip(batch.buckets, output.scale, strict=True):
        normalised = bucket.target / scale
        if len(bucket.key) == 2:
            normalised = rotate_pairs(normalised, bucket.key, bucket.index, output.geometry, to_edge=True)
        outputs.append(normalised)
    return dataclasses.replace(output, normalised=outputs)


def dense(network, batch):
    return network.fock_target.dense(perfect_output(network, batch), batch)[0][0]


def test_blocks_of_a_matrix_come_back_as_the_matrix(network, rng):
    _, matrix, batch = labelled(network, rng)
    np.testing.assert_allclose(dense(network, batch), matrix, atol=1e-12)


@pytest.mark.parametrize("weights", ["elements", "scales"])
@pytest.mark.parametrize("kind", ["rmse+mse", "rmse", "mse", "mae", "rmse+mae", "huber"])
def test_loss_is_zero_at_the_target_and_falls_towards_it(network, rng, kind, weights):
    _, _, batch = labelled(network, rng)
    right = perfect_output(network, batch)
    assert hamiltonian_loss(right, batch, kind=kind, weights=weights) < 2e-8
    output = network(batch).fock
    parts = [part.detach().requires_grad_() for part in output.normalised]
    varied = dataclasses.replace(output, normalised=parts)
    loss = hamiltonian_loss(varied, batch, kind=kind, weights=weights)
    loss.backward()
    assert all(part.grad.abs().max() > 0 for part in parts)
    half = [0.5 * (a.detach() + b) for a, b in zip(parts, right.normalised, strict=True)]
    nearer = dataclasses.replace(output, normalised=half)
    assert hamiltonian_loss(nearer, batch, kind=kind, weights=weights) < loss


def test_loss_is_the_mean_square_error_of_the_matrix(network, rng):
    molecule, matrix, batch = labelled(network, rng)
    loss = hamiltonian_loss(network(batch).fock, batch, kind="mse")
    error = predict_fock(network, [molecule], [{}])[0] - matrix
    assert loss.item() == pytest.approx(
        np.square(error).mean() / float(network.fock_target.scale.unit) ** 2, rel=1e-9
    )


def test_huber_is_the_square_for_small_errors_and_the_norm_for_large_ones(network, rng):
    """Errors of a thousandth the size give ``mse``, of ten thousand times the size 2δ times ``mae``."""
    _, _, batch = labelled(network, rng)
    right, output = perfect_output(network, batch), network(batch).fock

    def loss(share, kind):
        parts = [a + share * (b - a) for a, b in zip(right.normalised, output.normalised, strict=True)]
        return hamiltonian_loss(dataclasses.replace(output, normalised=parts), batch, kind=kind).item()

    assert loss(1e-3, "huber") == pytest.approx(loss(1e-3, "mse"), rel=1e-2)
    assert loss(1e4, "huber") == pytest.approx(2 * HUBER_DELTA * loss(1e4, "mae"), rel=1e-2)
    assert loss(1.0, "rmse+mae") == pytest.approx(loss(1.0, "rmse") + loss(1.0, "mae"))


def test_unknown_loss_and_missing_targets_are_refused(network, rng):
    molecule, _, batch = labelled(network, rng)
    with pytest.raises(ConfigError, match="unknown loss 'cosine'"):
        hamiltonian_loss(network(batch).fock, batch, kind="cosine")
    with pytest.raises(ConfigError, match="unknown weights 'blocks'"):
        hamiltonian_loss(network(batch).fock, batch, weights="blocks")
    bare = collate([network.prepare(molecule)])
    with pytest.raises(InputError, match="targets"):
        hamiltonian_loss(network(bare).fock, bare)


def test_statistics_centre_only_scalars_of_diagonal_blocks(network):
    means = network.fock_target.parts["means"].elements
    for number in network.domain.basis.elements:
        mean = means.of(number)
        n_scalars = diagonal_table(SHELLS[number]).counts[0]
        assert (mean[:, n_scalars:] == 0).all()
        assert mean[:, :n_scalars].abs().max() > 0
    assert (network.fock_target.scale.elements.values > 0).all()


@pytest.mark.parametrize(("centring", "scaling"), [(True, False), (False, True), (False, False)])
def test_without_centring_or_scaling_blocks_still_come_back(rng, centring, scaling):
    """The statistics differ as asked, and what they are does not change which matrix a target stands for."""
    network = make_network(torch.float64)
    _, matrix, batch = labelled(network, rng)
    item = network.prepare(batch.molecules[0], matrix)
    batch = collate(fit_statistics(network, [item], centring=centring, scaling=scaling))
    known, scale = network.fock_target.parts, network.fock_target.scale
    assert ("means" in known and bool(known["means"].elements.values.any())) == centring
    seen = [scale.elements.of(n) for n in set(batch.molecules[0].numbers.tolist())]
    seen += [scale.of_pair(bucket.key) for bucket in batch.buckets if len(bucket.key) == 2]
    spread = torch.cat([some.flatten() for some in seen]).unique()
    assert (len(spread) > 1) == scaling
    if not scaling:
        assert spread.item() == scale.unit.item()
    np.testing.assert_allclose(dense(network, batch), matrix, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_folder_gives_the_same_numbers(tmp_path, rng, dtype):
    network = make_network(dtype)
    save_model(tmp_path / "model", network, extra={"note": 1})
    again = load_model(tmp_path / "model")
    molecule = random_molecule(rng)
    one, other = (predict_fock(n, [molecule], [{}])[0] for n in (network, again))
    assert (one == other).all()
    assert again.domain == network.domain
    assert again.config == network.config
    assert {p.name for p in (tmp_path / "model").iterdir()} == {"model.safetensors", "model.json"}


def test_half_the_room_costs_three_digits_of_a_weight(tmp_path, rng):
    network = make_network(torch.float32)
    for name in ("whole", "half"):
        save_model(tmp_path / name, network, half=name == "half")
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    again = load_model(tmp_path / "half")
    assert again.dtype == torch.float32
    molecule = random_molecule(rng)
    one, other = (predict_fock(n, [molecule], [{}])[0] for n in (network, again))
    assert 0 < np.abs(one - other).max() < 2e-3 * np.abs(one).max()
    with torch.no_grad():
        next(p for p in network.parameters() if p.dtype == torch.float32).fill_(1e5)
    with pytest.raises(InputError, match="too large to be kept"):
        save_model(tmp_path / "huge", network, half=True)
    assert not (tmp_path / "huge" / "model.json").exists()


def test_damaged_and_missing_models_are_refused(tmp_path, network):
    with pytest.raises(InputError, match=r"model\.json cannot be read: No such file"):
        load_model(tmp_path / "nothing")
    folder = tmp_path / "model"
    save_model(folder, network)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_model(folder)
    (folder / "model.safetensors").write_bytes(weights)
    data = json.loads((folder / "model.json").read_text())
    other = {**data, "model": {**data["model"], "channels": 16}}
    (folder / "model.json").write_text(json.dumps(other))
    with pytest.raises(InputError, match="has changed since it was written"):
        load_model(folder)
    write_description(folder / "model.json", other)
    with pytest.raises(InputError, match="do not fit"):
        load_model(folder)
    write_description(folder / "model.json", {**data, "schema": 99})
    with pytest.raises(InputError, match="schema 99"):
        load_model(folder)


def test_outside_the_domain_is_refused(network):
    def refused(match, *arguments):
        with pytest.raises(DomainError, match=match):
            predict_fock(network, [Molecule(*arguments)], [{}])

    refused("has not learnt N", [7, 1], [[0, 0, 0], [0, 0, 2.0]], 0, 0)
    refused("charge 2", [8], [[0, 0, 0]], 2, 0)
    refused("spin 2S = 4", [8], [[0, 0, 0]], 0, 4)
    domain = network.domain
    domain.check_data(domain.level, domain.basis)
    with pytest.raises(DomainError, match="the data are 'b3lyp'"):
        domain.check_data(dataclasses.replace(domain.level, xc="b3lyp", xc_resolved="other"), domain.basis)
    with_dispersion = dataclasses.replace(domain.level, dispersion="chai-head-gordon")
    domain.check_data(with_dispersion, domain.basis)
    with pytest.raises(DomainError, match="the empirical dispersion chai-head-gordon"):
        domain.check_data(with_dispersion, domain.basis, energies=True)
    other = BasisSet("svp", {8: ElementBasis(SHELLS[8], 0, "another hash")})
    with pytest.raises(DomainError, match="is not the model's"):
        domain.check_data(domain.level, other)


def test_a_basis_too_large_for_lmax_is_refused():
    with pytest.raises(ConfigError, match="at least 6"):
        make_network(torch.float32, lmax=4)


def test_targets_are_measured_from_their_reference(rng):
    fock, minao = (np.eye(2) * k for k in (3.0, 1.0))
    sample = Sample(
        "a", Molecule([1, 1], [[0, 0, 0], [0, 0, 1.4]]), Matrices(fock, references={"minao": minao})
    )
    assert (target_matrix(sample, "fock") == fock).all()
    assert (target_matrix(sample, "fock-minus-minao") == 2 * np.eye(2)).all()
    with pytest.raises(InputError, match="needs the reference matrix 'sap'; there: minao"):
        target_matrix(sample, "fock-minus-sap")
    with pytest.raises(ConfigError, match="unknown target"):
        reference_matrix({}, "focks")


def test_mismatched_matrix_and_mixed_batches_are_refused(network, rng):
    molecule, matrix, _ = labelled(network, rng)
    with pytest.raises(InputError, match="orbitals"):
        network.prepare(molecule, matrix[:-1, :-1])
    with pytest.raises(InputError, match="some molecules"):
        collate([network.prepare(molecule, matrix), network.prepare(molecule)])
    with pytest.raises(InputError, match="at least one"):
        collate([])
