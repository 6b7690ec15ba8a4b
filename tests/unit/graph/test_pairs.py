"""Gathering into edge frames and summing at atoms: C, torch operations and autograd agree."""

from dataclasses import replace

import pytest
import torch

from helmol.graph import Pairs, edge_geometry
from helmol.graph.axis import Axis
from helmol.graph.pairs import Scatter
from helmol.native import build, call

KINDS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
SIZES = pytest.mark.parametrize(
    ("lmax", "channels", "unnatural", "mmax"),
    [(1, 3, 0, 1), (4, 16, 0, 4), (4, 19, 0, 2), (8, 5, 0, 8), (6, 33, 0, 0), (4, 20, 4, 4), (5, 37, 17, 3)],
)
NATIVE = pytest.mark.parametrize("is_native", [False, True])


def make(lmax, channels, n_pairs, dtype, *, is_native, seed=0, unnatural=0):
    """Return pairs of five atoms, some of them on the z axis, and random nodes."""
    torch.manual_seed(seed)
    positions = torch.randn(5, 3, dtype=torch.float64)
    positions[1] = positions[0] + torch.tensor([0.0, 0.0, -1.0])
    index = torch.triu_indices(5, 5, 1)[:, :n_pairs]
    geometry = edge_geometry(positions, index, lmax=lmax, cutoff=9.0, dtype=dtype, unnatural=unnatural)
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
    rows = torch.cat([total, torch.cat(turned, dim=1)])[:, : sum(_sizes(lmax)[: mmax + 1])]
    return pairs.axis(c).pack(rows)


@KINDS
@NATIVE
@SIZES
@pytest.mark.parametrize("n_pairs", [0, 1, 10])
def test_fold_and_its_gradient(lmax, channels, unnatural, mmax, n_pairs, dtype, is_native):
    pairs, nodes, radial = make(lmax, channels, n_pairs, dtype, is_native=is_native, unnatural=unnatural)
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
@pytest.mark.parametrize(
    ("lmax", "channels", "unnatural"), [(1, 3, 0), (4, 16, 0), (8, 35, 0), (4, 20, 4), (5, 35, 17)]
)
@pytest.mark.parametrize("n_pairs", [0, 1, 10])
def test_sum_at_atoms_and_its_gradient(lmax, channels, unnatural, n_pairs, dtype, is_native):
    pairs, nodes, _ = make(lmax, channels, n_pairs, dtype, is_native=is_native, unnatural=unnatural)
    edges = torch.randn(2 * n_pairs, (lmax + 1) ** 2, channels, dtype=dtype, requires_grad=True)
    envelope = pairs.geometry.envelope
    expected = pairs.geometry.to_nodes(edges * torch.cat([envelope, envelope])[:, None, None], len(nodes))
    weight = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weight).sum(), edges)
    found = Scatter.apply(edges, envelope, pairs, len(nodes))
    close(found, expected, dtype)
    close(torch.autograd.grad((found * weight).sum(), edges)[0], gradient, dtype)


def test_what_edges_hold_of_unnatural_channels():
    """(sin, −cos) in the places of (cos, sin); natural channels and m = 0 as they are."""
    pairs, *_ = make(2, 5, 3, torch.float64, is_native=False, unnatural=2)
    x = torch.randn(6, 9, 5, dtype=torch.float64)
    held = pairs.geometry.held(x)
    assert torch.equal(held[..., :3], x[..., :3])
    assert torch.equal(held[:, :3], x[:, :3])
    cosines, sines = [3, 4, 7], [5, 6, 8]
    assert torch.equal(held[:, cosines, 3:], x[:, sines, 3:])
    assert torch.equal(held[:, sines, 3:], -x[:, cosines, 3:])
    assert torch.equal(pairs.geometry.components(held), x)


@pytest.mark.parametrize("unnatural", [0, 1, 4])
def test_packed_features_are_the_rows_in_another_order(unnatural):
    axis = Axis(3, 5, unnatural)
    rows = torch.arange(2 * 16 * 5.0).view(2, 16, 5)
    packed = axis.pack(rows)
    assert torch.equal(axis.unpack(packed), rows)
    assert torch.equal(axis.pack(rows[:, :4]), packed[:, :4])
    assert axis.even(packed).shape == (2, 5 + 3 * (5 - unnatural))
    assert axis.odd(packed).shape == (2, 3 * unnatural)
    for k in range(16):
        for c in range(5):
            place = int(axis.starts[k, int(c >= axis.natural)]) + c
            assert packed[1].flatten()[place] == rows[1, k, c]


def test_several_threads_give_the_same(monkeypatch):
    monkeypatch.setattr(call, "ROWS_PER_THREAD", 2)
    pairs, nodes, radial = make(3, 8, 10, torch.float64, is_native=True, unnatural=3)
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
