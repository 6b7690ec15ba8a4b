"""The fused convolution is the plain one: values and gradients, float64, and its faults are seen."""

import pytest
import torch

from helmol.graph import Pairs, edge_geometry
from helmol.model import ModelConfig
from helmol.model.backbone import fused
from helmol.model.backbone.so2 import SO2Convolution, SO2PairLinear
from helmol.native import call

PAIR_INDEX = torch.tensor([[0, 0, 0, 1, 1], [1, 2, 3, 2, 3]])


def make(lmax, n_pairs, dtype=torch.float64, **switches):
    """Return a convolution with random weights, atoms, nodes and edge scalars."""
    torch.manual_seed(0)
    config = ModelConfig(channels=3, radial_channels=8, **switches)
    convolution = SO2Convolution(lmax, config, 5).to(dtype)
    for parameter in convolution.parameters():
        torch.nn.init.normal_(parameter)
    positions = torch.randn(4, 3, dtype=torch.float64)
    nodes = torch.randn(4, (lmax + 1) ** 2, 3, dtype=dtype, requires_grad=True)
    scalars = torch.randn(2 * n_pairs, 5, dtype=dtype, requires_grad=True)
    return convolution, positions, nodes, scalars


def every_way(lmax, n_pairs, dtype=torch.float64, **switches):
    """Return output and gradients: plain form, fused with C, without, with moving atoms."""
    convolution, positions, nodes, scalars = make(lmax, n_pairs, dtype, **switches)
    inputs = [nodes, scalars, *convolution.parameters()]
    results = []
    for twice, native, moving in ((1, 1, 0), (0, 1, 0), (0, 0, 0), (0, 1, 1)):
        geometry = edge_geometry(
            positions.clone().requires_grad_(bool(moving)), PAIR_INDEX[:, :n_pairs], lmax=lmax, cutoff=9.0,
            dtype=dtype, unnatural=switches.get("unnatural", 0),
        )  # fmt: skip
        out = convolution(nodes, scalars, Pairs(geometry, bool(native), bool(twice)))
        torch.manual_seed(1)
        gradients = torch.autograd.grad((out * torch.randn_like(out)).sum(), inputs)
        results.append([out, *gradients])
    return results


@pytest.mark.parametrize("radial", ["pair", "edge"])
@pytest.mark.parametrize("gate", ["sigmoid", "tanh"])
@pytest.mark.parametrize("lmax", [1, 4, 6])
@pytest.mark.parametrize("mmax", [None, 0, 2])
@pytest.mark.parametrize("n_pairs", [0, 1, 5])
def test_values_and_gradients_agree(lmax, gate, n_pairs, mmax, radial):
    plain, *others = every_way(lmax, n_pairs, gate=gate, mmax=mmax, radial=radial)
    for other in others:
        for expected, found in zip(plain, other, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("radial", ["pair", "edge"])
@pytest.mark.parametrize("gate", ["sigmoid", "tanh"])
@pytest.mark.parametrize("lmax", [1, 4, 5])
@pytest.mark.parametrize("mmax", [None, 0, 2])
@pytest.mark.parametrize("n_pairs", [0, 5])
@pytest.mark.parametrize("unnatural", [1, 2])
def test_values_and_gradients_agree_with_unnatural_channels(lmax, gate, n_pairs, mmax, radial, unnatural):
    plain, *others = every_way(lmax, n_pairs, gate=gate, mmax=mmax, radial=radial, unnatural=unnatural)
    for other in others:
        for expected, found in zip(plain, other, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("unnatural", [0, 1])
def test_values_and_gradients_agree_in_single_precision(unnatural):
    plain, *others = every_way(4, 5, torch.float32, unnatural=unnatural)
    for other in others:
        for expected, found in zip(plain, other, strict=True):
            scale = expected.abs().max().clamp(min=1.0)
            torch.testing.assert_close(found / scale, expected / scale, atol=2e-5, rtol=2e-5)


def test_gates_without_the_kernels(monkeypatch):
    monkeypatch.setattr(call, "usable", lambda *tensors, **more: False)
    plain, _, *others = every_way(3, 5, unnatural=1)
    for other in others:
        for expected, found in zip(plain, other, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("unnatural", [0, 1])
def test_a_wrong_sign_in_the_product_is_seen(unnatural, monkeypatch):
    right = fused._weight_gradient
    monkeypatch.setattr(fused, "_weight_gradient", lambda *a: [-g for g in right(*a)])
    plain, other, *_ = every_way(2, 5, unnatural=unnatural)
    assert any(not torch.allclose(a, b) for a, b in zip(plain, other, strict=True))


def two_maps(linear, ends, flip, n_pairs):
    """Compute ``W u + V v`` and ``W S v + V S u`` with the W and V that make up the weights of ``linear``.

    Also returns whether all W and V commute with turns about the axis.
    """
    turn = Pairs(edge_geometry(*GEOMETRY, lmax=linear.lmax, cutoff=9.0, dtype=torch.float64), False).turn
    u, sv = ends.tensor_split([n_pairs])
    sums, differences = (weight for weight in linear.zero)
    n_zero = linear.lmax + 1
    signs = flip[:n_zero].repeat_interleave(u.shape[2])[:, None]
    whole, scalars, complex_maps = [], [], []
    w, v = (sums + differences) / 2, signs * (sums - differences) / 2
    for first, second in ((u, flip[:, None] * sv), (sv, flip[:, None] * u)):
        out = first[:, :n_zero].flatten(1) @ w + second[:, :n_zero].flatten(1) @ v + linear.bias
        parts = [out[:, : n_zero * linear.channels_out].unflatten(1, (n_zero, -1))]
        scalars.append(out[:, n_zero * linear.channels_out :])
        start = n_zero
        for m, a in enumerate(linear.orders, start=1):
            n = 2 * (linear.lmax + 1 - m)
            rows = slice(start, start + n)
            j = torch.zeros(n, n, dtype=torch.float64)
            j[torch.arange(n), turn[0][rows] - start] = turn[1][rows]
            j = torch.kron(j, torch.eye(u.shape[2], dtype=torch.float64)).T  # of rows from the right
            s = flip[rows].repeat_interleave(u.shape[2])[:, None]
            turned = j @ a @ torch.linalg.inv(j)
            linear_part, other = (a + turned) / 2, s * (a - turned) / 2
            complex_maps += [torch.allclose(j @ map_, map_ @ j) for map_ in (linear_part, other)]
            result = first[:, rows].flatten(1) @ linear_part + second[:, rows].flatten(1) @ other
            parts.append(result.unflatten(1, (n, -1)))
            start += n
        whole.append(torch.cat(parts, dim=1))
    return torch.cat(whole), torch.cat(scalars), all(complex_maps)


GEOMETRY = (torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), PAIR_INDEX)


@pytest.mark.parametrize("fault", [None, "flip"])
def test_pairs_are_two_maps_of_both_ends(fault):
    torch.manual_seed(2)
    geometry = edge_geometry(*GEOMETRY, lmax=3, cutoff=9.0, dtype=torch.float64)
    pairs = Pairs(geometry, False)
    linear = SO2PairLinear(3, 2, 2, mmax=3, n_scalars=4).double()
    for parameter in linear.parameters():
        torch.nn.init.normal_(parameter)
    ends = torch.randn(10, 16, 2, dtype=torch.float64)  # x_i in the frame of i→j, x_j in that of j→i
    flip = pairs.flip.abs() if fault else pairs.flip
    found = linear(pairs.fold(ends), pairs)
    *expected, commute = two_maps(linear, ends, flip, 5)
    agree = [torch.allclose(a, b) for a, b in zip(found, expected, strict=True)]
    assert (commute and all(agree)) == (fault is None)
