"""With unnatural channels mirror images are treated alike: matrices, energies, forces; each with a fault."""

import numpy as np
import pytest
import torch
from energy_tools import energy_and_forces, make_energy_network
from physics_tools import SHELLS, make_network, random_molecule
from scipy.spatial.transform import Rotation
from test_matrix_input import random_matrices, reader

from helmol.basis import coupling
from helmol.graph import Pairs, frames
from helmol.model import kinds, predict_fock
from helmol.system import Molecule

EXACT = 1e-12
F_SHELLS = {1: (0, 0, 1), 8: (0, 0, 1, 1, 2), 16: (0, 1, 1, 2, 3)}
KINDS = {
    "pair": {},
    "edge": {"radial": "edge"},
    "few orders, tanh, norm after": {"mmax": 2, "gate": "tanh", "edge_norm": "post", "radial": "edge"},
    "near messages": {"message_cutoff": 4.0, "mmax": 1},
    "one natural channel": {"unnatural": 7},
}


def stirred(network):
    """Add noise to every weight, so that no bias, norm or last map is at its start."""
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.2 * torch.randn_like(weight)
    return network


def improper(seed, *, mirror):
    """Return a random rotation, or one with an inversion."""
    rotation = Rotation.random(random_state=seed).as_matrix()
    return -rotation if mirror else rotation


def moved(molecule, operation):
    return Molecule(molecule.numbers, molecule.positions @ operation.T, molecule.charge, molecule.spin)


def acted(matrix, operation, shells):
    """Return what an improper or proper rotation makes of a matrix: D M Dᵀ, for an inversion D = (−1)^l."""
    from scipy.linalg import block_diag

    from helmol.basis import wigner_d

    sign = np.sign(np.linalg.det(operation))
    turned = block_diag(*[sign**l * wigner_d(l, sign * operation) for l in shells])
    return turned @ matrix @ turned.T


def fock_error(network, molecule, operation, known=None):
    """Largest deviation of F, relative to its largest element, from what an operation makes of it."""
    shells = network.domain.basis.shells(molecule.numbers)
    known = known or {}
    there = {name: acted(matrix, operation, shells) for name, matrix in known.items()}
    fock = predict_fock(network, [molecule], [known])[0]
    found = predict_fock(network, [moved(molecule, operation)], [there])[0]
    start = known.get("minao-step", 0.0)
    return np.abs(found - acted(fock, operation, shells)).max() / np.abs(fock - start).max()


def errors(network, molecule, known=None):
    """Errors of a rotation, an inversion, and a mirror that is turned anyhow."""
    mirror = improper(1, mirror=True)
    return [fock_error(network, molecule, o, known) for o in (improper(2, mirror=False), -np.eye(3), mirror)]


@pytest.fixture(scope="module")
def exact():
    return stirred(make_network(torch.float64, unnatural=3))


@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_matrices_turn_and_invert_with_the_molecule(settings, rng):
    network = stirred(make_network(torch.float64, **{"unnatural": 3, **settings}))
    assert max(errors(network, random_molecule(rng))) < EXACT


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_with_and_without_the_kernels(dtype, native, rng, monkeypatch):
    if not native:
        monkeypatch.setattr(Pairs, "of", classmethod(lambda cls, geometry, twice=False: cls(geometry, False, twice)))
    network = stirred(make_network(dtype, unnatural=2))
    assert max(errors(network, random_molecule(rng))) < {torch.float32: 1e-5, torch.float64: EXACT}[dtype]
