"""The fused convolution is the plain one: values and gradients, float64, and its fault is seen."""

from dataclasses import replace

import pytest
import torch

from helmol.graph import Pairs, edge_geometry
from helmol.model.backbone import fused
from helmol.model.backbone.radial import RadialNetwork
from helmol.model.backbone.so2 import SO2Convolution

PAIR_INDEX = torch.tensor([[0, 0, 0, 1, 1], [1, 2, 3, 2, 3]])


def both_ways(lmax, gate, n_pairs, mmax=None):
    torch.manual_seed(0)
    convolution = SO2Convolution(lmax, 3, RadialNetwork(5, 8, (lmax + 1) * 6), gate=gate, mmax=mmax).double()
    positions = torch.randn(4, 3, dtype=torch.float64)
    geometry = edge_geometry(positions, PAIR_INDEX[:, :n_pairs], lmax=lmax, cutoff=9.0, dtype=torch.float64)
    nodes = torch.randn(4, (lmax + 1) ** 2, 3, dtype=torch.float64, requires_grad=True)
    scalars = torch.randn(2 * n_pairs, 5, dtype=torch.float64, requires_grad=True)
    for bias in (convolution.first.zero.bias, convolution.second.zero.bias):
        torch.nn.init.normal_(bias)
    inputs = [nodes, scalars, *convolution.parameters()]
    results = []
    for twice in (True, False):
        out = convolution(nodes, scalars, Pairs.of(replace(geometry, twice=twice)))
        torch.manual_seed(1)
        gradients = torch.autograd.grad((out * torch.randn_like(out)).sum(), inputs)
        results.append([out, *gradients])
    return results


@pytest.mark.parametrize("gate", ["sigmoid", "tanh"])
@pytest.mark.parametrize("lmax", [1, 4, 6])
@pytest.mark.parametrize("mmax", [None, 0, 2])
@pytest.mark.parametrize("n_pairs", [0, 1, 5])
def test_values_and_gradients_agree(lmax, gate, n_pairs, mmax):
    for plain, other in zip(*both_ways(lmax, gate, n_pairs, mmax), strict=True):
        torch.testing.assert_close(other, plain, atol=1e-12, rtol=1e-11)


def test_a_wrong_sign_in_the_complex_product_is_seen(monkeypatch):
    right = fused._weight_gradient
    monkeypatch.setattr(fused, "_weight_gradient", lambda *a: tuple(-g for g in right(*a)))
    plain, other = both_ways(2, "sigmoid", 5)
    assert any(not torch.allclose(a, b) for a, b in zip(plain, other, strict=True))
