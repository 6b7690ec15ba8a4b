"""Edge frames: right on every direction, the poles included, in both precisions."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from helmol.basis import real_spherical_harmonics, wigner_d
from helmol.graph import edge_geometry, flip_signs
from helmol.graph.frames import frames_of_directions, smooth_cutoff

TOLERANCE = {torch.float64: 1e-13, torch.float32: 3e-6}
AXES = np.concatenate([np.eye(3), -np.eye(3)])


def directions(spread):
    """Random directions, every axis, and directions ``spread`` rad beside every axis."""
    random = np.random.default_rng(0).normal(size=(30, 3))
    beside = AXES[:, None] + spread * Rotation.random(4, random_state=0).as_matrix()[:, 0]
    vectors = np.concatenate([random, AXES, beside.reshape(-1, 3)])
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [1e-12, 1e-6, 3e-4])
def test_frames_are_rotations_that_put_the_axis_on_z(dtype, spread):
    unit = directions(spread)
    for l, frame in enumerate(frames_of_directions(unit.to(dtype), 8)):
        identity = torch.eye(2 * l + 1, dtype=dtype)
        torch.testing.assert_close(frame.mT @ frame, identity.expand_as(frame), atol=TOLERANCE[dtype], rtol=0)
        axis = real_spherical_harmonics(l, unit.numpy()) * np.sqrt(4 * np.pi / (2 * l + 1))
        torch.testing.assert_close(
            frame[:, :, l].double(), torch.from_numpy(axis), atol=TOLERANCE[dtype], rtol=0
        )


def test_every_frame_is_the_wigner_matrix_of_one_rotation():
    unit = directions(1e-6)
    frames = frames_of_directions(unit, 6)
    cycle = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])  # (y, z, x) back to (x, y, z)
    for k in range(len(unit)):
        rotation = cycle @ frames[1][k].numpy() @ cycle.T
        assert np.linalg.det(rotation) == pytest.approx(1)
        for l in range(7):
            np.testing.assert_allclose(frames[l][k].numpy(), wigner_d(l, rotation), atol=1e-11)


def test_the_frame_of_the_reverse_edge_differs_by_constant_signs():
    unit = torch.from_numpy(np.random.default_rng(1).normal(size=(20, 3)))
    unit = unit / unit.norm(dim=1, keepdim=True)
    flip = flip_signs(6)
    for l, (there, back) in enumerate(
        zip(frames_of_directions(unit, 6), frames_of_directions(-unit, 6), strict=True)
    ):
        torch.testing.assert_close(back, there * flip[l * l : (l + 1) ** 2], atol=1e-13, rtol=0)


def test_the_envelope_ends_smoothly():
    x = torch.tensor([0.0, 0.5, 1.0 - 1e-4, 1.0, 1.5], dtype=torch.float64)
    value = smooth_cutoff(x)
    assert value[0] == 1
    assert value[2] < 1e-10
    assert (value[3:] == 0).all()


def test_edges_there_and_back(rng):
    positions = torch.from_numpy(rng.normal(size=(4, 3)) * 3)
    pairs = torch.tensor([[0, 0, 1, 0, 2], [1, 2, 2, 3, 3]])
    geometry = edge_geometry(positions, pairs, lmax=3, cutoff=30.0, dtype=torch.float64)
    nodes = torch.from_numpy(rng.normal(size=(4, 16, 2)))
    ends = geometry.to_edges(nodes)
    first = geometry.to_nodes(ends[..., :2], 4)
    degree = torch.bincount(geometry.source, minlength=4)
    torch.testing.assert_close(first, nodes * degree[:, None, None], atol=1e-12, rtol=0)
    second = geometry.to_nodes(ends[..., 2:], 4)
    expected = torch.zeros_like(nodes).index_add(0, geometry.source, nodes[geometry.target])
    torch.testing.assert_close(second, expected, atol=1e-12, rtol=0)
    alone = geometry.axis_to_nodes(torch.ones(10, 4, 1, dtype=torch.float64), 4)
    vectors = positions[geometry.target] - positions[geometry.source]
    for l in range(4):
        harmonics = real_spherical_harmonics(l, vectors.numpy()) * np.sqrt(4 * np.pi / (2 * l + 1))
        summed = torch.zeros(4, 2 * l + 1, dtype=torch.float64).index_add(
            0, geometry.source, torch.from_numpy(harmonics)
        )
        torch.testing.assert_close(alone[:, l * l : (l + 1) ** 2, 0], summed, atol=1e-12, rtol=0)
