"""With unnatural channels mirror images are treated alike: matrices, energies, forces; each with a fault."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from energy_tools import energy_and_forces, make_energy_network
from physics_tools import make_network, random_molecule
from scipy.linalg import block_diag
from scipy.spatial.transform import Rotation
from test_matrix_input import random_matrices, reader
from test_symmetries import permutation_error

from helmol.basis import wigner_d
from helmol.config import parse
from helmol.errors import ConfigError
from helmol.graph import EdgeGeometry, Pairs, collate
from helmol.model import ModelConfig, ends, kinds, load_model, predict_fock, save_model
from helmol.model.backbone import network as networks
from helmol.model.heads import energy as energies
from helmol.system import Molecule

EXACT = 1e-12
INVERSION = -np.eye(3)
KINDS = {
    "pair": {},
    "edge": {"radial": "edge"},
    "few orders, tanh, norm after": {"mmax": 2, "gate": "tanh", "edge_norm": "post", "radial": "edge"},
    "near messages": {"message_cutoff": 4.0, "mmax": 1},
    "one natural channel": {"unnatural": 7},
    "no envelope, odd largest degree": {"lmax": 7, "envelope": False},
}


def stirred(network):
    """Add noise to every weight, so that no bias, norm or last map is as it was made."""
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return network


def mirror(seed):
    """Return a mirror in some plane: an inversion and half a turn."""
    axis = Rotation.random(random_state=seed).as_matrix()[0]
    return np.eye(3) - 2 * np.outer(axis, axis)


def moved(molecule, operation):
    return Molecule(molecule.numbers, molecule.positions @ operation.T, molecule.charge, molecule.spin)


def acted(matrix, operation, shells):
    """Return D M Dᵀ of a proper or improper rotation; an inversion has D = (−1)^l."""
    sign = round(np.linalg.det(operation))
    turned = block_diag(*[sign**l * wigner_d(l, sign * operation) for l in shells])
    return turned @ matrix @ turned.T


def fock_error(network, molecule, operation, known=None):
    """Largest deviation of F from what an operation makes of it, relative to what the network adds to H₀."""
    shells, known = network.domain.basis.shells(molecule.numbers), known or {}
    there = {name: acted(matrix, operation, shells) for name, matrix in known.items()}
    fock = predict_fock(network, [molecule], [known])[0]
    found = predict_fock(network, [moved(molecule, operation)], [there])[0]
    learnt = fock - known.get("minao-step", 0.0)
    return np.abs(found - acted(fock, operation, shells)).max() / np.abs(learnt).max()


def worst(network, molecule, known=None):
    """Largest error of a rotation, the inversion and a mirror."""
    operations = Rotation.random(random_state=2).as_matrix(), INVERSION, mirror(1)
    return max(fock_error(network, molecule, operation, known) for operation in operations)


def without_kernels(monkeypatch):
    plain = classmethod(lambda cls, geometry, twice=False: cls(geometry, False, twice))
    monkeypatch.setattr(Pairs, "of", plain)


@pytest.fixture(scope="module")
def exact():
    return stirred(make_network(torch.float64, unnatural=3))


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_matrices_of_mirror_images(settings, rng):
    network = stirred(make_network(torch.float64, **{"unnatural": 3, **settings}))
    assert worst(network, random_molecule(rng)) < EXACT


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_and_without_the_kernels(dtype, native, rng, monkeypatch):
    if not native:
        without_kernels(monkeypatch)
    network = stirred(make_network(dtype, unnatural=2))
    assert worst(network, random_molecule(rng)) < {torch.float32: 1e-5, torch.float64: EXACT}[dtype]


def test_g_shells_and_two_spins(rng):
    network = make_network(torch.float64, shells={1: (0, 1), 26: (0, 1, 2, 4)}, method="uks", unnatural=2)
    molecule = random_molecule(rng, (26, 1, 26))
    shells = network.domain.basis.shells(molecule.numbers)
    there, image = (predict_fock(network, [m], [{}])[0] for m in (molecule, moved(molecule, INVERSION)))
    for alpha_or_beta, found in zip(there, image, strict=True):
        assert np.abs(found - acted(alpha_or_beta, INVERSION, shells)).max() < EXACT * np.abs(there).max()
    assert np.abs(there[0] - there[1]).max() > 1e-3


def test_a_network_without_unnatural_channels_tells_images_apart(rng):
    """So the tests above could fail; and it is the network of before."""
    assert worst(stirred(make_network(torch.float64)), random_molecule(rng)) > 1e-3


def test_unnatural_channels_are_used(exact, rng):
    """They vanish in a plane, where every irrep of unnatural parity does along the normal, and only there."""
    batch = collate([exact.prepare(random_molecule(rng))])
    with torch.no_grad():
        whole = exact(batch)
        nodes = whole.nodes.final[..., 5:]
        assert (nodes[:, 1:].abs().amax(dim=(0, 2)) > 1e-3).all()
        for weight in exact.fock_head.unnatural:
            weight.mul_(2)
        changed = exact(batch)
        for weight in exact.fock_head.unnatural:
            weight.div_(2)
    moves = [(a - b).abs().max() for a, b in zip(whole.fock.normalised, changed.fock.normalised, strict=True)]
    assert max(moves) > 1e-3


def plant_bias(exact, monkeypatch):
    """The degree embedding reaches unnatural channels, of which a distance alone makes nothing."""
    right = networks.Axis.with_even
    monkeypatch.setattr(networks.Axis, "with_even", lambda self, even: right(self, even) + 0.01)


def plant_order(exact, monkeypatch):
    """Parities of the block (b, a) for the maps to (a, b): wrong where shells stand in another order."""
    right = kinds.IrrepMaps.cut

    def wrong(self, keys):
        cut = right(self, keys)
        for some in cut.weights:
            for key in [k for k in some if k[0] > k[-1]]:
                some[key] = some[key].flip(0)
        return cut

    monkeypatch.setattr(kinds.IrrepMaps, "cut", wrong)


def plant_components(exact, monkeypatch):
    """Unnatural channels of edges held as they are: (cos, sin) where (sin, −cos) is meant."""
    monkeypatch.setattr(EdgeGeometry, "_turned", lambda self, x, rows, signs: x)
    without_kernels(monkeypatch)


@pytest.mark.parametrize("plant", [plant_bias, plant_order, plant_components])
def test_each_fault_is_seen(plant, exact, rng, monkeypatch):
    molecule = random_molecule(rng)
    assert worst(exact, molecule) < EXACT
    plant(exact, monkeypatch)
    assert worst(exact, molecule) > 1e-6


def test_atoms_have_no_order(exact, rng, monkeypatch):
    """Mirrors do not see a wrong sign between the two directions of a pair; another order of atoms does."""
    assert permutation_error(exact, rng) < EXACT
    right = EdgeGeometry.flips
    monkeypatch.setattr(EdgeGeometry, "flips", lambda self, c: right(self, c)[:, :1])
    without_kernels(monkeypatch)
    assert permutation_error(exact, rng) > 1e-6


@pytest.mark.parametrize("radial", ["pair", "edge"])
def test_matrices_as_input(radial, rng, monkeypatch):
    network = stirred(reader(unnatural=3, radial=radial))
    molecule = random_molecule(rng)
    known = random_matrices(rng, network.domain.basis.offsets(molecule.numbers)[-1])
    assert worst(network, molecule, known) < EXACT
    scatter = ends._scatter
    monkeypatch.setattr(
        ends, "_scatter", lambda x, geometry, index: scatter(x, replace(geometry, unnatural=0), index)
    )
    assert worst(network, molecule, known) > 1e-6


@pytest.mark.parametrize("readout", ["linear", "convolution", "elements"])
@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_enantiomers_have_equal_energies_and_mirrored_forces(readout, forces, rng, monkeypatch):
    network = stirred(make_energy_network(unnatural=3, readout=readout, forces=forces))
    molecule = random_molecule(rng)

    def error(operation):
        (energy, force), (there, found) = (
            energy_and_forces(network, m) for m in (molecule, moved(molecule, operation))
        )
        assert abs(energy) > 1e-2
        assert np.abs(force).max() > 1e-3
        return max(abs(there / energy - 1), np.abs(found - force @ operation.T).max() / np.abs(force).max())

    assert max(error(INVERSION), error(mirror(1))) < EXACT
    if forces == "direct":
        monkeypatch.setattr(network.energy_head, "direct", torch.nn.Parameter(torch.ones(8).double()))
        assert error(INVERSION) > 1e-3


def test_second_derivatives_know_mirrors_too(rng):
    """Training on forces takes the plain form of every step."""
    network = stirred(make_energy_network(unnatural=3))
    molecule = random_molecule(rng)
    gradients = []
    for one in (molecule, moved(molecule, INVERSION)):
        batch = collate([network.prepare(one)])
        forces = network(batch, ("energy",), forces=True, create_graph=True).energy.forces
        network.zero_grad()
        forces.square().sum().backward()
        gradients.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    scale = max(g.abs().max() for g in gradients[0].values())
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).abs().max() < EXACT * scale, name


def test_lengths_of_features_are_those_of_the_image(exact, rng):
    molecule = random_molecule(rng)
    with torch.no_grad():
        one, other = (
            energies.all_invariants(exact(collate([exact.prepare(m)]), ()).nodes)
            for m in (molecule, moved(molecule, mirror(3)))
        )
    torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_every_weight_is_used_and_started_by_the_fan_in_of_its_block():
    network = make_network(torch.float64, unnatural=2, channels=24, residual_scale=1.0)
    molecule = random_molecule(np.random.default_rng(0), (1, 6, 8, 16, 1, 6, 8, 16))
    network.zero_grad()
    output = network(collate([network.prepare(molecule)])).fock
    sum(part.square().sum() for part in output.normalised).backward()
    unused = [n for n, w in network.named_parameters() if w.numel() and (w.grad is None or not w.grad.any())]
    # Before the first convolution nothing is unnatural.
    first = ("first.odd.0", "first.odd.1", "second.odd.0")
    assert unused == [f"backbone.node_blocks.0.convolution.{name}" for name in first]
    block = network.backbone.node_blocks[0]
    blocks = [*network.backbone.node_blocks, *network.backbone.edge_blocks]
    small = torch.cat(
        [w.flatten() for b in blocks for w in (*b.ffn.first.unnatural, *b.ffn.second.unnatural)]
    )
    parts = {
        2: small, 22: block.ffn.first.weights[3], 24 + 22 * 6: block.convolution.first.zero[0],
        2 * 6: block.convolution.first.odd[1], 24 * 6: block.convolution.first.orders[0],
    }  # fmt: skip
    for fan_in, weight in parts.items():
        spread = weight.detach().square().mean().sqrt().item()
        assert spread == pytest.approx(fan_in**-0.5, rel=0.2 if fan_in < 20 else 0.1)
    for weight, fan_in in ((network.fock_head.weights[2], 22), (network.fock_head.unnatural[1], 2)):
        assert weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.2)


def test_a_model_folder_keeps_it(tmp_path, exact, rng):
    save_model(tmp_path / "model", exact)
    molecule, again = random_molecule(rng), load_model(tmp_path / "model")
    assert again.config.unnatural == 3
    np.testing.assert_array_equal(*(predict_fock(n, [molecule], [{}])[0] for n in (again, exact)))


def test_a_natural_channel_is_left():
    with pytest.raises(ConfigError, match="unnatural = 8 leaves none of 8"):
        parse(ModelConfig, {"channels": 8, "unnatural": 8})
