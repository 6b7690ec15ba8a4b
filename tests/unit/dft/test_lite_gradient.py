"""Derivatives of ``minao-lite`` with respect to positions are those of finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import gto
from scipy.linalg import block_diag

from helmol import dft
from helmol.basis import wigner_d
from helmol.dft import LevelConfig, gaussian_field, xc_field
from helmol.dft.integrals import house, house_shells
from helmol.dft.lite import charge_potential, minao_lite, spread_charges
from helmol.dft.lite_gradient import minao_lite_gradient
from helmol.dft.xc_gradient import potential_derivatives
from helmol.errors import InputError
from helmol.system import Molecule

WATER = Molecule([8, 1, 1], [[0.1, 0, -0.2], [0, 1.4, 1.1], [0.1, -1.5, 1.0]])
MOLECULES = {
    "closed shell": WATER,
    "linear": Molecule([1, 6, 7], [[0, 0, -2.0], [0, 0, 0.0], [0, 0, 2.2]]),
    "effective core potential": Molecule([53, 1], [[0.1, 0.2, 0], [1.9, -1.3, 2.0]]),
    "anion": Molecule([35, 8], [[0, 0, 0], [0.4, 0.3, 3.3]], charge=-1),
    "cation": Molecule([7, 1, 1, 1, 1], [
        [0, 0, 0], [1.1, 1.1, 1.2], [-1.1, -1.1, 1.1], [-1.1, 1.1, -1.1], [1.2, -1.1, -1.1],
    ], charge=1),
}  # fmt: skip


def mole_of(molecule, positions=None, basis="def2-svp"):
    moved = Molecule(
        molecule.numbers,
        molecule.positions if positions is None else positions,
        charge=molecule.charge,
        spin=molecule.spin,
    )
    return dft.build_mole(moved, LevelConfig(basis=basis))


def some_weights(n, seed=0):
    weights = np.random.default_rng(seed).normal(size=(n, n))
    return (weights + weights.T) / n


def numerical(value, positions, step=2e-3):
    """Return central differences of fourth order of a function of positions."""
    found = np.zeros(positions.shape)
    for place in np.ndindex(*positions.shape):
        for factor, share in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = positions.copy()
            moved[place] += factor * step
            found[place] += share * value(moved) / (12 * step)
    return found


@pytest.mark.parametrize("name", MOLECULES)
def test_gradient_is_that_of_finite_differences(name):
    molecule = MOLECULES[name]
    mole = mole_of(molecule)
    weights = some_weights(int(mole.nao))
    found = minao_lite_gradient(mole, "pbe", weights)
    expected = numerical(
        lambda moved: np.sum(weights * minao_lite(mole_of(molecule, moved), "pbe")),
        np.array(molecule.positions),
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.sum(axis=0), 0, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("xc", "basis"), [("lda,vwn", "def2-svp"), ("b3lyp", "def2-tzvpd"), ("blyp", "sto-3g")]
)
def test_other_functionals_and_bases_have_it_too(xc, basis):
    mole = mole_of(WATER, basis=basis)
    weights = some_weights(int(mole.nao))
    expected = numerical(
        lambda moved: np.sum(weights * minao_lite(mole_of(WATER, moved, basis), xc)),
        np.array(WATER.positions),
    )
    found = minao_lite_gradient(mole, xc, weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_the_response_of_the_fit_counts(monkeypatch):
    mole = mole_of(WATER)
    weights = some_weights(int(mole.nao))
    whole = minao_lite_gradient(mole, "pbe", weights)
    monkeypatch.setattr("helmol.dft.lite_gradient.fit_gradient", lambda points, *_: 0 * points.centres)
    without = minao_lite_gradient(mole, "pbe", weights)
    assert np.abs(whole - without).max() > 1e-3 * np.abs(whole).max()


@pytest.mark.parametrize("basis", ["def2-tzvpd", "cc-pvqz"])
def test_kernel_and_pyscf_agree(basis, monkeypatch):
    if gaussian_field.library_of_atoms() is None:
        pytest.skip("no compiler")
    molecule = MOLECULES["effective core potential"] if basis.startswith("def2") else WATER
    mole = mole_of(molecule, basis=basis)
    weights = some_weights(int(mole.nao))
    found = minao_lite_gradient(mole, "pbe", weights)
    for module in (gaussian_field, xc_field):
        monkeypatch.setattr(module, "library_of_atoms", lambda: None)
    expected = minao_lite_gradient(mole, "pbe", weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=3e-8 * np.abs(expected).max())


def test_turning_a_molecule_turns_the_matrix_but_for_the_noise_of_its_points():
    mole = mole_of(WATER)
    shells, n = house_shells(mole), int(mole.nao)
    weights = some_weights(n)
    matrix = house(minao_lite(mole, "pbe"), mole)
    axis, step = np.array([0.3, -0.5, 0.8]), 1e-4
    cross = np.cross(np.eye(3), axis) * -1.0

    def turned(sign):
        rotation, _ = np.linalg.qr(np.eye(3) + sign * step * cross)
        rotation *= np.sign(np.diag(rotation))
        frames = block_diag(*[wigner_d(l, rotation) for l in shells])
        return frames @ matrix @ frames.T, rotation

    (ahead, forth), (behind, back) = turned(1), turned(-1)
    velocity = np.array(WATER.positions) @ ((forth - back) / (2 * step)).T
    found = np.sum(minao_lite_gradient(mole, "pbe", weights) * velocity)
    expected = np.sum(house(weights, mole) * (ahead - behind)) / (2 * step)
    assert found == pytest.approx(expected, rel=2e-4), (found, expected)


def test_weights_are_of_the_shape_and_order_of_the_matrix_and_only_their_symmetric_part_counts():
    molecule, level = Molecule([8, 1], [[0, 0, 0], [0.1, 0.4, 1.8]], spin=1), LevelConfig()
    mole = dft.build_mole(molecule, level)
    n = int(mole.nao)
    weights = some_weights(n)
    slanted = weights + np.triu(np.ones((n, n)), 1) - np.tril(np.ones((n, n)), -1)
    found = minao_lite_gradient(mole, "pbe", weights)
    np.testing.assert_allclose(minao_lite_gradient(mole, "pbe", slanted), found, rtol=0, atol=1e-10)
    both = house(np.stack([0.3 * weights, 0.7 * weights]), mole)
    np.testing.assert_allclose(
        dft.reference_gradient(mole, level, "minao-lite", both), found, rtol=0, atol=1e-12
    )
    with pytest.raises(InputError, match=r"expected \(2, 19, 19\)"):
        dft.reference_gradient(mole, level, "minao-lite", weights)
    with pytest.raises(InputError, match="minao-lite has"):
        dft.reference_gradient(mole, level, "minao", both)


def test_ghosts_and_cartesian_functions_move_as_others_do():
    def mole(positions, cart):
        atoms = list(zip(["ghost-H", "O", "H"], positions, strict=True))
        return gto.M(atom=atoms, unit="Bohr", basis="6-31g*", charge=-1, cart=cart, verbose=0)

    positions = np.array([[0.3, 1.5, -0.9], [0, 0, 0.1], [0, 0.1, 1.9]])
    for cart in (False, True):
        weights = some_weights(int(mole(positions, cart).nao))
        expected = numerical(
            lambda moved, c=cart, w=weights: np.sum(w * minao_lite(mole(moved, c), "pbe")), positions
        )
        found = minao_lite_gradient(mole(positions, cart), "pbe", weights)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_spread_charges_add_up():
    mole = mole_of(MOLECULES["cation"])
    shares = [share for share, _, atoms in spread_charges(mole) for _ in atoms]
    assert sum(shares) == pytest.approx(1)
    assert np.abs(charge_potential(mole)).max() > 0.1


@pytest.mark.parametrize("xc", ["pbe", "lda,vwn", "blyp"])
def test_derivatives_of_the_potential_are_those_of_finite_differences(xc):
    rng = np.random.default_rng(1)
    rho = np.array([0.3, 0.05, 0.002])
    gradient, hessian = rng.normal(size=(3, 3)) * 0.3 * rho, rng.normal(size=(6, 3)) * rho
    found = potential_derivatives(xc, rho, gradient, hessian)
    for k, values in enumerate((rho[None], gradient, hessian)):
        for row in range(len(values)):
            step = 1e-4 * rho
            ends = []
            for sign in (1, -1):
                moved = [rho[None].copy(), gradient.copy(), hessian.copy()]
                moved[k][row] += sign * step
                ends.append(xc_field.xc_potential(xc, moved[0][0], *moved[1:]))
            expected = (ends[0] - ends[1]) / (2 * step)
            # Off the diagonal the two elements move together.
            double = 2 if k == 2 and row in (1, 2, 4) else 1
            mine = double * np.atleast_2d(found[k])[row]
            np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max() + 1e-9)
