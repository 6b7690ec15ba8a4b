"""Damping where the overlap is small: what it must leave alone, and what it is for."""

import numpy as np
import pytest
import scipy.linalg

from helmol.target import damped


def nearly_dependent(rng, n=12, smallest=1e-3):
    """Return an overlap matrix with small eigenvalues and a bounded potential in that basis."""
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    root = turn * np.geomspace(smallest, 2.0, n) ** 0.5 @ turn.T
    potential = 0.1 * np.diag(np.linspace(-1.0, 1.0, n)) + 0.01 * turn
    return root @ root, root @ (potential + potential.T) @ root


def symmetric_noise(rng, shape):
    noise = rng.normal(size=shape)
    return noise + np.swapaxes(noise, -1, -2)


def test_is_the_filter_of_the_eigenvalues(rng):
    overlap, delta = nearly_dependent(rng)
    values, vectors = np.linalg.eigh(overlap)
    keep = vectors * (values**2 / (values**2 + 0.01**2)) @ vectors.T
    for matrix in (delta, np.stack([delta, 2 * delta])):
        found = damped(matrix, overlap, 0.01)
        np.testing.assert_allclose(found, keep @ matrix @ keep, atol=1e-12)
        assert np.array_equal(found, np.swapaxes(found, -1, -2))
    assert damped(delta, overlap, 0.0) is delta


def test_turns_permutations_and_distant_molecules(rng):
    overlap, delta = nearly_dependent(rng)
    turn = np.linalg.qr(rng.normal(size=overlap.shape))[0]
    turned = damped(turn @ delta @ turn.T, turn @ overlap @ turn.T, 0.01)
    np.testing.assert_allclose(turned, turn @ damped(delta, overlap, 0.01) @ turn.T, atol=1e-12)
    two = scipy.linalg.block_diag(delta, delta), scipy.linalg.block_diag(overlap, overlap)
    alone = damped(delta, overlap, 0.01)
    np.testing.assert_allclose(damped(*two, 0.01), scipy.linalg.block_diag(alone, alone), atol=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.01])
def test_noise_makes_no_orbitals(rng, floor):
    """Noise of 1 mEh shifts a level by up to 1 mEh / s: by about one hartree where nothing is damped."""
    overlap, delta = nearly_dependent(rng)
    noisy = delta + 1e-3 * symmetric_noise(rng, delta.shape)
    levels = [scipy.linalg.eigh(m, overlap)[0] for m in (delta, damped(noisy, overlap, floor))]
    worst_low = np.abs(levels[1] - levels[0])[0]
    assert (worst_low < 0.05) == bool(floor)
    if floor:
        assert np.abs(damped(noisy, overlap, floor) - delta).mean() <= 1.05 * np.abs(noisy - delta).mean()
