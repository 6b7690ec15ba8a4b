"""The house order is the one in which AOs rotate by Wigner D matrices: M(R r) = D M(r) Dᵀ."""

import numpy as np
import pytest
import scipy.linalg

from helmol import dft
from helmol.basis import to_house, wigner_d
from helmol.dft import LevelConfig
from helmol.dft.integrals import house
from helmol.system import Molecule

# A tilted water; Hartree-Fock, because a DFT grid does not rotate with the molecule.
POSITIONS = np.array([[0.1, -0.2, 0.05], [0.3, 0.6, 0.7], [-0.5, -0.4, 0.75]])
LARGEST_L = {"def2-svp": 2, "def2-tzvpd": 3, "cc-pvqz": 4}
ROTATION = np.array(scipy.linalg.expm(np.array([[0, -0.7, 1.1], [0.7, 0, -0.4], [-1.1, 0.4, 0]])))
"""Proper, about a tilted axis."""


def _matrices(basis: str, rotation: np.ndarray) -> tuple[dict[str, np.ndarray], list[int]]:
    """Return overlap, core Hamiltonian and Hartree-Fock matrix (PySCF order) and the shells."""
    molecule = Molecule.from_angstrom([8, 1, 1], POSITIONS @ rotation.T)
    # Density fitting keeps the largest case short; it rotates as exactly as the rest.
    fit = basis == "cc-pvqz"
    level = LevelConfig(xc="hf", basis=basis, density_fit=fit, conv_tol=1e-13, conv_tol_grad=1e-9)
    mole = dft.build_mole(molecule, level)
    mf = dft.mean_field(mole, level)
    mf.kernel()
    assert mf.converged
    return {"overlap": mf.get_ovlp(), "hcore": mf.get_hcore(), "fock": mf.get_fock()}, dft.house_shells(mole)


@pytest.fixture(scope="module", params=LARGEST_L)
def pair(request: pytest.FixtureRequest) -> tuple[dict, dict, list[int]]:
    """Return matrices before and after the rotation, for each basis."""
    before, shells = _matrices(request.param, np.eye(3))
    after, _ = _matrices(request.param, ROTATION)
    assert max(shells) == LARGEST_L[request.param]
    return before, after, shells


def _error(before: np.ndarray, after: np.ndarray, shells: list[int], d_of) -> float:
    d = scipy.linalg.block_diag(*[d_of(l, ROTATION) for l in shells])
    return float(np.abs(d @ before @ d.T - after).max())


def _e3nn_d(l: int, rotation: np.ndarray) -> np.ndarray:
    """Return D by an independent library, whose axes are (y, z, x) of ours."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        o3 = pytest.importorskip("e3nn.o3")
        import torch

        p = np.array([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
        turned = torch.tensor(p @ rotation @ p.T, dtype=torch.float64)
        return o3.Irrep(l, 1).D_from_matrix(turned).numpy().astype(np.float64)


@pytest.mark.parametrize("oracle", [wigner_d, _e3nn_d], ids=["helmol", "e3nn"])
def test_matrices_rotate(pair: tuple[dict, dict, list[int]], oracle) -> None:
    before, after, shells = pair
    # e3nn reads angles off the matrix, which costs digits.
    tolerance = 1e-9 if oracle is wigner_d else 1e-6
    for name in before:
        old, new = (to_house(m[name], shells, "pyscf") for m in (before, after))
        assert _error(old, new, shells, oracle) < tolerance, name


def test_improper_rotation() -> None:
    before, shells = _matrices("def2-svp", np.eye(3))
    after, _ = _matrices("def2-svp", -ROTATION)
    d = scipy.linalg.block_diag(*[wigner_d(l, -ROTATION) for l in shells])
    old, new = (to_house(m["fock"], shells, "pyscf") for m in (before, after))
    assert np.abs(d @ old @ d.T - new).max() < 1e-9


def _sign(shells: list[int], l_flipped: int, m: int) -> np.ndarray:
    """Return signs that flip one component of every shell of a degree."""
    return np.concatenate(
        [np.where((l == l_flipped) & (np.arange(-l, l + 1) == m), -1.0, 1.0) for l in shells]
    )


def test_planted_faults_are_caught(pair: tuple[dict, dict, list[int]]) -> None:
    before, after, shells = pair
    # PySCF's own p order (x, y, z) taken for the house order.
    assert _error(before["fock"], after["fock"], shells, wigner_d) > 1e-3
    for l in range(1, max(shells) + 1):
        sign = _sign(shells, l, l)
        old, new = (sign[:, None] * to_house(m["fock"], shells, "pyscf") * sign for m in (before, after))
        if l in shells:
            assert _error(old, new, shells, wigner_d) > 1e-4, f"flipped sign, l = {l}"


def test_integrals_are_in_house_order() -> None:
    molecule = Molecule.from_angstrom([8, 1, 1], POSITIONS)
    mole = dft.build_mole(molecule, LevelConfig())
    assert np.abs(dft.overlap(mole) - house(mole.intor("int1e_ovlp"), mole)).max() < 1e-14
    turned = dft.build_mole(Molecule.from_angstrom([8, 1, 1], POSITIONS @ ROTATION.T), LevelConfig())
    d = scipy.linalg.block_diag(*[wigner_d(l, ROTATION) for l in dft.house_shells(mole)])
    expected = np.einsum("xy,yij->xij", ROTATION, d @ dft.dipole_integrals(mole) @ d.T)
    assert np.abs(dft.dipole_integrals(turned) - expected).max() < 1e-12
