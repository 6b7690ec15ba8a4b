"""Forces are the derivative of the energy, on every axis too, and can be trained on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from energy_tools import energy_and_forces, make_energy_network, numerical_forces
from physics_tools import random_molecule
from scipy.spatial.transform import Rotation

from helmol.graph import collate, frames
from helmol.graph.derivatives import generators
from helmol.model import energy_loss
from helmol.model.backbone import Backbone
from helmol.system import Molecule

LINEAR = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.2], [0.0, 0.0, -2.2], [0.0, 0.0, 4.3]])
NUMBERS = np.array([6, 8, 8, 1])
AXES = [(0, 0, 1), (0, 0, -1), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)]
SMALL = {"channels": 4, "n_layers": 1, "radial_channels": 8, "n_radial": 16}


@pytest.fixture(scope="module", params=["linear", "convolution", "elements", "convolution, edge"])
def network(request):
    readout, _, radial = request.param.partition(", ")
    return make_energy_network(readout=readout, channels=4, radial=radial or "pair")


def linear_molecule(axis, tilt):
    turn, _ = Rotation.align_vectors([np.array(axis) + tilt * np.array([0.3, -0.5, 0.8])], [[0, 0, 1]])
    return Molecule(NUMBERS, LINEAR @ turn.as_matrix().T, charge=1)


def force_error(network, molecule):
    forces = energy_and_forces(network, molecule)[1]
    return np.abs(forces - numerical_forces(network, molecule)).max() / np.abs(forces).max()


def test_random_molecules(network, rng):
    assert force_error(network, random_molecule(rng)) < 1e-8


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("tilt", [0.0, 1e-6])
def test_linear_molecules_on_and_beside_every_axis(axis, tilt):
    assert force_error(make_energy_network(**SMALL), linear_molecule(axis, tilt)) < 1e-8


def test_edges_on_every_axis(network):
    """An octahedron of atoms around one: every bond lies on an axis."""
    positions = np.concatenate([np.zeros((1, 3)), 2.5 * np.eye(3), -2.3 * np.eye(3)])
    assert force_error(network, Molecule([16, 1, 6, 8, 1, 6, 8], positions, charge=0)) < 1e-8


def test_the_derivative_of_the_gauge_itself_is_wrong_at_the_pole(monkeypatch):
    """The fault that the generator form avoids: autograd through the angles of the frame."""
    network, molecule = make_energy_network(**SMALL), linear_molecule((0, 0, 1), 0.0)
    monkeypatch.setattr(
        frames, "turning_frames", lambda unit, parts: frames.frames_of_directions(unit, len(parts) - 1)
    )
    error = force_error(network, molecule)
    assert not error < 1e-3


def test_without_the_turn_of_the_frames_forces_are_wrong(network, rng, monkeypatch):
    monkeypatch.setattr(frames, "turning_frames", lambda unit, parts: parts)
    assert force_error(network, random_molecule(rng)) > 1e-3


@pytest.mark.parametrize("forces", ["conservative", "direct"])
def test_forces_turn_with_the_molecule(forces, rng):
    network = make_energy_network(forces=forces)
    molecule, rotation = random_molecule(rng), Rotation.random(random_state=2).as_matrix()
    energy, before = energy_and_forces(network, molecule)
    turned = Molecule(molecule.numbers, molecule.positions @ rotation.T + 3.0, molecule.charge)
    energy_after, after = energy_and_forces(network, turned)
    assert energy_after == pytest.approx(energy, abs=1e-11)
    np.testing.assert_allclose(after, before @ rotation.T, atol=1e-11)
    assert np.abs(before).max() > 1e-3
    if forces == "conservative":
        assert np.abs(before.sum(axis=0)).max() < 1e-11
        assert np.abs(np.cross(molecule.positions, before).sum(axis=0)).max() < 1e-10


def test_direct_forces_are_not_the_derivative(rng):
    """So a mistaken switch between the two kinds would be seen."""
    assert force_error(make_energy_network(forces="direct"), random_molecule(rng)) > 0.1


@pytest.mark.parametrize("molecule", ["random", "linear"])
def test_gradients_of_a_force_loss(molecule, rng):
    """Second derivatives: a loss on forces changes with the weights as its gradient says."""
    network = make_energy_network(**SMALL)
    chosen = random_molecule(rng, (6, 1, 8)) if molecule == "random" else linear_molecule((0, 0, 1), 0.0)
    batch = collate([network.prepare(chosen)])
    weights = torch.from_numpy(rng.normal(size=(chosen.n_atoms, 3)))
    parameters = [p for n, p in network.named_parameters() if n.startswith(("backbone.", "heads.energy."))]

    def value(twice):
        output = network(batch, ("energy",), forces=True, create_graph=twice).energy
        return (output.forces * weights).sum() + (output.forces**2).sum()

    gradients = torch.autograd.grad(value(True), parameters, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None and g.abs().max() > 0]
    assert len(used) > 20
    torch.manual_seed(0)
    directions = [torch.randn_like(p) for p, _ in used]
    expected = sum((g * d).sum() for (_, g), d in zip(used, directions, strict=True)).item()
    values, step = [], 1e-5
    for k in (-2, -1, 1, 2):
        with torch.no_grad():
            for (p, _), d in zip(used, directions, strict=True):
                p += k * step * d
            values.append(value(False).item())
            for (p, _), d in zip(used, directions, strict=True):
                p -= k * step * d
    numerical = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    assert numerical == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("molecule", ["random", "linear"])
def test_the_hessian_is_that_of_the_energy(molecule, rng):
    """Second derivatives by positions: symmetric, and the differences of the forces."""
    network = make_energy_network(**SMALL)
    chosen = random_molecule(rng, (6, 1, 8)) if molecule == "random" else linear_molecule((0, 0, 1), 0.0)
    batch = collate([network.prepare(chosen)])

    def forces(positions):
        moved = Molecule(chosen.numbers, positions, chosen.charge)
        return energy_and_forces(network, moved)[1].ravel()

    hessian = network_hessian(network, batch)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-10)
    step, flat = 1e-4, chosen.positions.ravel()
    for k in (0, 2, 4):
        move = np.eye(len(flat))[k] * step
        difference = (
            forces((flat - 2 * move).reshape(-1, 3)) - 8 * forces((flat - move).reshape(-1, 3))
            + 8 * forces((flat + move).reshape(-1, 3)) - forces((flat + 2 * move).reshape(-1, 3))
        ) / (12 * step)  # fmt: skip
        np.testing.assert_allclose(hessian[k], -difference, atol=1e-7)


def network_hessian(network, batch):
    def energy(positions):
        states = network.backbone.nodes(replace(batch, positions=positions), twice=True)
        return network.energy_target.scale * network.energy_head.read(states, batch.numbers)[0].sum()

    n = batch.positions.numel()
    return torch.autograd.functional.hessian(energy, batch.positions).reshape(n, n).numpy()


def test_the_fast_and_the_twice_differentiable_way_agree(network, rng):
    molecule = random_molecule(rng)
    batch = collate([network.prepare(molecule)])
    slow = network(batch, ("energy",), forces=True, create_graph=True).energy
    energy, forces = energy_and_forces(network, molecule)
    assert slow.energy.item() == pytest.approx(energy, abs=1e-12)
    np.testing.assert_allclose(slow.forces.detach().numpy(), forces, atol=1e-12)


def test_edge_blocks_are_not_evaluated(network, rng, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an energy needs no edges")

    monkeypatch.setattr(Backbone, "edges", refuse)
    energy_and_forces(network, random_molecule(rng))


def test_energies_of_far_molecules_add(network, rng):
    first, second = random_molecule(rng, (6, 1, 8, 1)), random_molecule(rng, (16, 1, 1))
    far = second.positions + np.array([80.0, 0.0, 0.0])
    both = Molecule(np.concatenate([first.numbers, second.numbers]), np.concatenate([first.positions, far]))
    parts = [energy_and_forces(network, molecule) for molecule in (first, second, both)]
    assert parts[2][0] == pytest.approx(parts[0][0] + parts[1][0], abs=1e-12)
    np.testing.assert_allclose(parts[2][1], np.concatenate([parts[0][1], parts[1][1]]), atol=1e-12)


def test_one_atom_has_no_force(network):
    energy, forces = energy_and_forces(network, Molecule([8], [[0.0, 0.0, 0.0]]))
    assert np.isfinite(energy)
    assert (forces == 0).all()


def test_single_precision_forces(rng):
    molecule = random_molecule(rng)
    double = energy_and_forces(make_energy_network(torch.float64), molecule)[1]
    single = energy_and_forces(make_energy_network(torch.float32), molecule)[1]
    assert np.abs(single - double).max() / np.abs(double).max() < 1e-4


def test_loss_is_zero_at_the_labels_and_has_a_gradient_off_them(network, rng):
    items = [network.prepare(random_molecule(rng)) for _ in range(2)]
    batch = collate(items)
    output = network(batch, ("energy",), forces=True, create_graph=True).energy
    right = replace(batch, energy=output.energy.detach(), forces=output.forces.detach())
    wrong = replace(right, energy=right.energy + 0.1, forces=right.forces + 0.1)
    for kind in ("mae", "mse"):
        weights = {"kind": kind, "energy_weight": 1.0, "force_weight": 1.0}
        assert energy_loss(output, right, **weights).item() < 1e-7
        loss = energy_loss(output, wrong, **weights)
        head = network.energy_head
        last = head.readout[-1] if head.elements is None else head.elements
        gradient = torch.autograd.grad(loss, last.weight, retain_graph=True)[0]
        assert loss.item() > 0.1
        assert gradient.abs().max() > 1e-3


def test_generators_obey_the_algebra_of_rotations():
    for l in range(1, 9):
        x, y, z = generators(l)
        torch.testing.assert_close(x @ y - y @ x, z, atol=1e-11, rtol=0)
        torch.testing.assert_close(-(x @ x + y @ y + z @ z), l * (l + 1.0) * torch.eye(2 * l + 1).double())
