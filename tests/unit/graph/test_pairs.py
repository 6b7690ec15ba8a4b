"""Gathering into edge frames and summing at atoms: C, torch operations and autograd agree."""

from dataclasses import replace

import pytest
import torch

from helmol.graph import Pairs, edge_geometry
from helmol.graph.pairs import Scatter
from helmol.native import build, call

KINDS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
SIZES = pytest.mark.parametrize(
    ("lmax", "channels", "mmax"), [(1, 3, 1), (4, 16, 4), (4, 19, 2), (8, 5, 8), (6, 33, 0)]
)
NATIVE = pytest.mark.parametrize("is_native", [False, True])


def make(lmax, channels, n_pairs, dtype, *, is_native, seed=0):
    """Return pairs of five atoms, some of them on the z axis, and random nodes."""
    torch.manual_seed(seed)
    positions = torch.randn(5, 3, dtype=torch.float64)
    positions[1] = positions[0] + torch.tensor([0.0, 0.0, -1.0])
    index = torch.triu_indices(5, 5, 1)[:, :n_pairs]
    geometry = edge_geometry(positions, index, lmax=lmax, cutoff=9.0, dtype=dtype)
    if is_native and build.library() is None:
        pytest.fail("the C kernels do not compile here")
    nodes = torch.randn(5, (lmax + 1) ** 2, channels, dtype=dtype, requires_grad=True)
    radial = torch.randn(2 * n_pairs, lmax + 1, channels, dtype=dtype, requires_grad=True)
    return Pairs(geometry, is_native), nodes, radial


def close(a, b, dtype):
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def _sizes(lmax):
    return [lmax + 1, *[2 * (lmax + 1 - m) for m in range(1, lmax + 1)]]


def folded_by_autograd(pairs, nodes, radial, mmax):
    """Return sums and differences of the ends, by torch's own gradient, from the complex form of J."""
    c, p, lmax = nodes.shape[2], pairs.geometry.n_pairs, pairs.geometry.lmax
    ends = pairs.geometry.to_edges(nodes)[..., :c] * radial.index_select(1, pairs.degree)
    total, rest = (ends[:p] + ends[p:]) / 2**0.5, (ends[:p] - ends[p:]) / 2**0.5
    turned = []
    for m, part in enumerate(rest.split(_sizes(lmax), dim=1)):
        z = 1j * torch.complex(*part.chunk(2, dim=1)) if m else part
        turned.append(torch.cat([z.real, z.imag], dim=1) if m else z)
    return torch.cat([total, torch.cat(turned, dim=1)])[:, : sum(_sizes(lmax)[: mmax + 1])]


@KINDS
@NATIVE
@SIZES
@pytest.mark.parametrize("n_pairs", [0, 1, 10])
def test_fold_and_its_gradient(lmax, channels, mmax, n_pairs, dtype, is_native):
    pairs, nodes, radial = make(lmax, channels, n_pairs, dtype, is_native=is_native)
    expected = folded_by_autograd(pairs, nodes, radial, mmax)
    weight = torch.randn_like(expected)
    gradients = torch.autograd.grad((expected * weight).sum(), [nodes, radial])
    with torch.no_grad():
        close(pairs.gather_fold(nodes, radial, mmax), expected, dtype)
        for found, right in zip(pairs.gather_fold_gradient(weight, nodes, radial), gradients, strict=True):
            close(found, right, dtype)
        close(pairs.unfold(pairs.fold(weight)), weight, dtype)
        close(pairs.fold(weight), pairs.fold(weight, plain=True), dtype)


@KINDS
@NATIVE
@pytest.mark.parametrize(("lmax", "channels"), [(1, 3), (4, 16), (8, 35)])
@pytest.mark.parametrize("n_pairs", [0, 1, 10])
def test_sum_at_atoms_and_its_gradient(lmax, channels, n_pairs, dtype, is_native):
    pairs, nodes, _ = make(lmax, channels, n_pairs, dtype, is_native=is_native)
    edges = torch.randn(2 * n_pairs, (lmax + 1) ** 2, channels, dtype=dtype, requires_grad=True)
    envelope = pairs.geometry.envelope
    expected = pairs.geometry.to_nodes(edges * torch.cat([envelope, envelope])[:, None, None], len(nodes))
    weight = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weight).sum(), edges)
    found = Scatter.apply(edges, envelope, pairs, len(nodes))
    close(found, expected, dtype)
    close(torch.autograd.grad((found * weight).sum(), edges)[0], gradient, dtype)


def test_several_threads_give_the_same(monkeypatch):
    monkeypatch.setattr(call, "ROWS_PER_THREAD", 2)
    pairs, nodes, radial = make(3, 8, 10, torch.float64, is_native=True)
    weight = torch.randn(20, 16, 8, dtype=torch.float64)
    with torch.no_grad():
        before = torch.get_num_threads()
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(
                [
                    pairs.gather_fold(nodes, radial, 3),
                    *pairs.gather_fold_gradient(weight, nodes, radial),
                    pairs.fold(weight),
                    pairs.scatter(weight, pairs.geometry.envelope, 5),
                ]
            )
        torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        close(three, one, torch.float64)


@pytest.mark.parametrize("fault", ["flip", "frames"])
def test_a_wrong_sign_or_frame_is_seen(fault):
    pairs, nodes, radial = make(3, 4, 10, torch.float64, is_native=True)
    expected = folded_by_autograd(pairs, nodes, radial, 3)
    geometry = pairs.geometry
    if fault == "flip":
        wrong = replace(geometry, flip=geometry.flip.abs())
    else:
        wrong = replace(geometry, frames=tuple(frame.mT for frame in geometry.frames))
    with torch.no_grad():
        assert not torch.allclose(Pairs(wrong, True).gather_fold(nodes, radial, 3), expected)


def test_without_a_compiler_torch_does_it(monkeypatch):
    build.library.cache_clear()
    monkeypatch.setenv("HELMOL_NATIVE", "0")
    pairs, *_ = make(2, 3, 4, torch.float32, is_native=False)
    assert not Pairs.of(pairs.geometry).native
    build.library.cache_clear()
