"""Small random networks with an energy head whose weights are not zero."""

from dataclasses import replace

import numpy as np
import torch
from physics_tools import make_network

from helmol.graph import collate


def make_energy_network(
    dtype=torch.float64, *, readout="convolution", forces="conservative", hamiltonian=True, **settings
):
    heads = {"fock": {}} if hamiltonian else {}
    heads["energy"] = {"readout": readout, "forces": forces}
    network = make_network(torch.float64, heads=heads, **settings)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.energy_head.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    per_element = torch.linspace(0, -1, 119, dtype=torch.float64)
    network.energy_target.set(per_element, torch.eye(119, dtype=torch.float64), 0.5, 0.2)
    return network.to(dtype)


def energy_and_forces(network, molecule, *, forces=True):
    with torch.no_grad():
        output = network(collate([network.prepare(molecule)]), ("energy",), forces=forces).energy
    return output.energy.item(), None if output.forces is None else output.forces.numpy()


def numerical_forces(network, molecule, step=2e-4):
    """Five-point differences of the energy; all displaced molecules are one batch."""
    moves = step * np.array([-2, -1, 1, 2])
    displaced = []
    for k in range(molecule.positions.size):
        for move in moves:
            positions = np.array(molecule.positions)
            positions.reshape(-1)[k] += move
            displaced.append(network.prepare(replace(molecule, positions=positions)))
    with torch.no_grad():
        values = network(collate(displaced), ("energy",)).energy.energy.numpy().reshape(-1, 4)
    return -(values @ np.array([1, -8, 8, -1]) / (12 * step)).reshape(-1, 3)
