"""Fused norm and feed-forward on edges are the plain ones: values and gradients, C and torch."""

import pytest
import torch

from helmol.model.backbone import fused_layers
from helmol.model.backbone.layers import EquivariantNorm, FeedForward
from helmol.native import build, call

KINDS = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
NATIVE = pytest.mark.parametrize("is_native", [False, True])
SIZES = pytest.mark.parametrize(("lmax", "channels"), [(1, 3), (4, 16), (6, 35)])


@pytest.fixture
def kernels(monkeypatch):
    """Return a function that chooses between C and torch."""

    def choose(is_native):
        if is_native and build.library() is None:
            pytest.fail("the C kernels do not compile here")
        if not is_native:
            monkeypatch.setattr(call, "usable", lambda *tensors: False)

    return choose


def layers(lmax, channels, dtype, unnatural=0):
    torch.manual_seed(0)
    norm = EquivariantNorm(lmax, channels, edges=True)
    ffn = FeedForward(lmax, channels, edges=True, unnatural=unnatural)
    for module in (norm, ffn):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return norm.to(dtype), ffn.to(dtype)


def plain_norm(norm, x):
    norm.edges = False
    out = norm(x)
    norm.edges = True
    return out


def compare(fused, plain, inputs, dtype):
    tolerance = {torch.float32: 2e-5, torch.float64: 1e-12}[dtype]
    weight = torch.randn_like(plain)
    for out, right in zip(
        [fused, *torch.autograd.grad((fused * weight).sum(), inputs)],
        [plain, *torch.autograd.grad((plain * weight).sum(), inputs)],
        strict=True,
    ):
        scale = right.abs().max().clamp(min=1.0) if right.numel() else 1.0
        torch.testing.assert_close(out / scale, right / scale, atol=tolerance, rtol=tolerance)


@KINDS
@NATIVE
@SIZES
@pytest.mark.parametrize("n", [0, 1, 70])
def test_norm(kernels, lmax, channels, n, dtype, is_native):
    kernels(is_native)
    norm, _ = layers(lmax, channels, dtype)
    x = torch.randn(n, (lmax + 1) ** 2, channels, dtype=dtype, requires_grad=True)
    compare(norm(x), plain_norm(norm, x), [x, *norm.parameters()], dtype)


@KINDS
@NATIVE
@SIZES
@pytest.mark.parametrize("n", [0, 1, 70])
@pytest.mark.parametrize("unnatural", [0, 2])
def test_feed_forward(kernels, lmax, channels, n, dtype, is_native, unnatural):
    kernels(is_native)
    norm, ffn = layers(lmax, channels, dtype, unnatural)
    x = torch.randn(n, (lmax + 1) ** 2, channels, dtype=dtype, requires_grad=True)
    inputs = [x, *norm.parameters(), *ffn.parameters()]
    compare(ffn.after_norm(x, norm), x + ffn(plain_norm(norm, x)), inputs, dtype)


def test_several_threads_give_the_same(monkeypatch):
    monkeypatch.setattr(call, "ROWS_PER_THREAD", 8)
    norm, ffn = layers(2, 8, torch.float64)
    x = torch.randn(70, 9, 8, dtype=torch.float64, requires_grad=True)
    before, results = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        out = ffn.after_norm(x, norm)
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *norm.parameters()])])
    torch.set_num_threads(before)
    for one, three in zip(*results, strict=True):
        torch.testing.assert_close(three, one)


def test_a_wrong_gate_gradient_is_seen(monkeypatch):
    right = fused_layers.gate_gradient
    monkeypatch.setattr(
        fused_layers, "gate_gradient", lambda *a, **k: (right(*a, **k)[0], right(*a, **k)[1] * 2)
    )
    norm, ffn = layers(2, 4, torch.float64)
    x = torch.randn(5, 9, 4, dtype=torch.float64, requires_grad=True)
    with pytest.raises(AssertionError):
        compare(ffn.after_norm(x, norm), x + ffn(plain_norm(norm, x)), [x, *ffn.parameters()], torch.float64)
