"""Small random networks on made-up bases; no electronic structure is needed to test symmetries."""

import numpy as np

from helmol.basis import BasisSet, ElementBasis, wigner_d
from helmol.model import ModelConfig, build, fit_statistics
from helmol.system import LevelOfTheory, Molecule
from helmol.target import Domain

SHELLS = {1: (0, 0, 1), 6: (0, 0, 0, 1, 1, 2), 8: (0, 0, 0, 1, 1, 2), 16: (0, 0, 1, 1, 2, 3)}
LEVEL = LevelOfTheory("rks", "pbe", "1*101 + 1*130", "made-up", None, 3, False, 1e-10, "none")


def made_up_basis(shells=SHELLS):
    elements = {z: ElementBasis(s, 0, "-".join(map(str, s))) for z, s in shells.items()}
    return BasisSet("made-up", elements)


def random_molecule(rng, numbers=(6, 1, 8, 1, 6, 16), spread=2.0):
    """Scatter atoms at least 1.5 bohr apart; the charge makes the electrons pair up."""
    while True:
        positions = rng.normal(size=(len(numbers), 3)) * spread
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1) + 10 * np.eye(len(numbers))
        if distances.min() > 1.5:
            return Molecule(np.array(numbers), positions, charge=sum(numbers) % 2)


def turn(matrix, rotation, shells):
    """Return D M Dᵀ."""
    from scipy.linalg import block_diag

    turned = block_diag(*[wigner_d(l, rotation) for l in shells])
    return turned @ matrix @ turned.T


def make_network(dtype, *, shells=SHELLS, method="rks", **settings):
    rng = np.random.default_rng(5)
    basis = made_up_basis(shells)
    level = LevelOfTheory(**{**LEVEL.to_json(), "method": method})
    domain = Domain(level, basis, "fock", (-1, 0, 1), (0, 1, 2))
    config = ModelConfig(**{"channels": 8, "n_layers": 2, "radial_channels": 16, **settings})
    network = build(config, domain, seed=1, dtype=dtype)
    items = []
    for _ in range(2):
        molecule = random_molecule(rng, tuple(list(shells) * 2))
        nao = basis.offsets(molecule.numbers)[-1]
        matrix = rng.normal(size=(domain.n_spins, nao, nao)).squeeze()
        items.append(network.prepare(molecule, matrix + np.swapaxes(matrix, -1, -2)))
    if "fock" in network.heads:
        fit_statistics(network, items)
    return network
