"""Coupling coefficients and rotations: their defining identities, with e3nn as a second opinion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from helmol.basis import coupling, real_spherical_harmonics, wigner_d

DEGREES = [(l1, l2) for l1 in range(5) for l2 in range(5)] + [(6, 5), (6, 6)]


@pytest.mark.parametrize(("l1", "l2"), DEGREES)
def test_coupling_is_an_orthonormal_basis_of_the_block(l1, l2):
    columns = [coupling(l1, l2, l).reshape(-1, 2 * l + 1) for l in range(abs(l1 - l2), l1 + l2 + 1)]
    table = np.concatenate(columns, axis=1)
    np.testing.assert_allclose(table.T @ table, np.eye(table.shape[1]), atol=1e-12)


@pytest.mark.parametrize(("l1", "l2"), DEGREES)
def test_exchanging_the_shells_gives_the_documented_sign(l1, l2):
    for l in range(abs(l1 - l2), l1 + l2 + 1):
        sign = (-1) ** (l1 + l2 - l)
        np.testing.assert_allclose(
            coupling(l2, l1, l).transpose(1, 0, 2), sign * coupling(l1, l2, l), atol=1e-13
        )


def equivariance_error(table, l1, l2, l, rotation):
    left = np.einsum("ia,jb,abk->ijk", wigner_d(l1, rotation), wigner_d(l2, rotation), table)
    return np.abs(left - table @ wigner_d(l, rotation)).max()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), l1=st.integers(0, 4), l2=st.integers(0, 4))
def test_coupling_commutes_with_rotations(seed, l1, l2):
    rotation = Rotation.random(random_state=seed).as_matrix()
    for l in range(abs(l1 - l2), l1 + l2 + 1):
        assert equivariance_error(coupling(l1, l2, l), l1, l2, l, rotation) < 1e-11


def test_a_wrong_sign_breaks_the_commutation():
    table = coupling(1, 2, 2).copy()
    table[0] *= -1
    assert equivariance_error(table, 1, 2, 2, Rotation.random(random_state=0).as_matrix()) > 1e-2


@pytest.mark.parametrize("l", range(7))
def test_wigner_d_is_e3nns_in_house_order(l):
    import torch
    from e3nn import o3

    rotation = Rotation.random(random_state=l).as_matrix()
    # e3nn's polar axis is its second: (x, y, z)_e3nn = (y, z, x)_house.
    # Its tables are rounded to single precision.
    cycle = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    turned = torch.tensor(cycle @ rotation @ cycle.T)
    angles = o3.matrix_to_angles(turned)
    np.testing.assert_allclose(wigner_d(l, rotation), o3.wigner_D(l, *angles).numpy(), atol=1e-5)


@pytest.mark.parametrize("l", range(9))
def test_wigner_d_is_a_representation_of_proper_and_improper_rotations(l):
    first, second = Rotation.random(2, random_state=1).as_matrix()
    second = -second
    np.testing.assert_allclose(
        wigner_d(l, first @ second), wigner_d(l, first) @ wigner_d(l, second), atol=1e-11
    )
    np.testing.assert_allclose(wigner_d(l, -np.eye(3)), (-1) ** l * np.eye(2 * l + 1), atol=1e-12)


def test_harmonics_of_degree_one_are_y_z_x():
    vector = np.array([[0.3, -0.5, 0.7]])
    expected = vector[:, [1, 2, 0]] / np.linalg.norm(vector) * np.sqrt(3 / (4 * np.pi))
    np.testing.assert_allclose(real_spherical_harmonics(1, vector), expected, atol=1e-14)
