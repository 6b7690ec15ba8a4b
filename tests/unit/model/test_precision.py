"""Precision of matrix products: what rounding does to numbers, to a network, and what is refused."""

import copy

import numpy as np
import pytest
import torch

from helmol.errors import ConfigError
from helmol.evaluate.precision import precision_table
from helmol.graph import collate
from helmol.model import PRECISIONS, ModelConfig, build, fit_statistics, hamiltonian_loss, predict_fock
from helmol.model.backbone import products
from helmol.model.backbone.products import product, rounded, tensor_cores
from helmol.target import Domain, target_matrix
from helmol.train import TrainConfig
from toy_store import BASIS, LEVEL, toy_samples

# Relative error of a product of random matrices: half a unit in the last of 24, 11 and 8 bits, and of twice
# as many for three products; sums are float32.
BOUNDS = {
    "fp32": (0, 1e-6),
    "tf32": (1e-5, 1e-3),
    "tf32x3": (0, 1e-6),
    "bf16x3": (1e-7, 3e-5),
    "bf16": (3e-4, 8e-3),
}
SIZE = {"channels": 8, "n_layers": 2, "radial_channels": 16, "n_radial": 16, "residual_scale": 1.0}
TARGET = "fock-minus-minao"


def relative_error(precision, **shape):
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*shape.get("batch", ()), 40, 40, generator=rng) for _ in range(2))
    exact = a.double() @ b.double()
    return float((product(a, b, precision).double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_errors_are_those_of_the_bits(precision, batch):
    low, high = BOUNDS[precision]
    assert low <= relative_error(precision, batch=batch) < high


def test_dropping_a_small_factor_is_seen(monkeypatch):
    """The planted fault: three products of which one is left out are worse by orders of magnitude."""
    right = products._factors
    monkeypatch.setattr(products, "_factors", lambda *arguments: right(*arguments)[1:])
    for precision in ("tf32x3", "bf16x3"):
        assert relative_error(precision) > 3 * BOUNDS[precision][1]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_writing_and_adding(precision, rng):
    a, b, start = (torch.from_numpy(rng.normal(size=s)).float() for s in ((5, 4), (4, 3), (5, 6)))
    plain = product(a, b, precision)
    wide = start.clone()
    product(a, b, precision, out=wide[:, :3])
    torch.testing.assert_close(wide[:, :3], plain)
    torch.testing.assert_close(wide[:, 3:], start[:, 3:])
    product(a, b, precision, out=wide[:, 3:], add=True, alpha=-1)
    torch.testing.assert_close(wide[:, 3:], start[:, 3:] - plain)


def test_rounding_is_to_the_nearest_and_ties_go_to_even():
    step = 2.0**-10
    x = torch.tensor(
        [1.0, 1 + 0.49 * step, 1 + 0.51 * step, 1 + 0.5 * step, 1 + 1.5 * step, -1 - 0.51 * step, 0.0]
    )
    expected = torch.tensor([1.0, 1.0, 1 + step, 1.0, 1 + 2 * step, -1 - step, 0.0])
    assert (rounded(x, "tf32") == expected).all()
    special = rounded(torch.tensor([float("inf"), -float("inf"), float("nan")]), "tf32")
    assert special[0] == float("inf")
    assert special[1] == -float("inf")
    assert special[2].isnan()
    assert (rounded(x, "bf16") == x.bfloat16().float()).all()


def test_tensor_cores_are_switched_on_only_inside():
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    with tensor_cores():
        assert settings.fp32_precision == "tf32"
    assert settings.fp32_precision == before


@pytest.fixture(scope="module")
def case():
    samples = toy_samples(4)
    network = build(ModelConfig(**SIZE), Domain(LEVEL, BASIS, TARGET, (0,), (0,)), seed=1)
    items = [network.prepare(s.molecule, target_matrix(s, TARGET)) for s in samples]
    fit_statistics(network, items)
    return network, samples, collate(items)


def test_a_network_feels_each_precision_by_its_size(case):
    network, samples, _ = case
    table = precision_table(network, samples)
    assert list(table) == ["fp64", *PRECISIONS]
    assert table["fp64"]["h_change_uEh"] == 0
    change = {name: row["h_change_uEh"] for name, row in table.items()}
    assert change["bf16"] > 3 * change["tf32"] > 30 * change["bf16x3"] > 0
    assert change["tf32x3"] < 3 * change["fp32"]
    assert network.precision == "fp32"


def test_gradients_agree_within_the_precision(case):
    network, _, batch = case
    found = {}
    for precision in PRECISIONS:
        model = copy.deepcopy(network).set_precision(precision)
        hamiltonian_loss(model(batch).fock, batch).backward()
        found[precision] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    exact = found.pop("fp32")
    error = {name: float((g - exact).norm() / exact.norm()) for name, g in found.items()}
    assert error["tf32x3"] < 1e-5
    assert error["bf16x3"] < 1e-3
    assert 1e-6 < error["tf32"] < 1e-2
    assert 1e-5 < error["bf16"] < 0.1


def test_reduced_precision_is_symmetric_and_hermitian_still(case):
    network, samples, _ = case
    model = copy.deepcopy(network).set_precision("bf16")
    fock = predict_fock(model, [samples[0].molecule], [samples[0].matrices.references])[0]
    assert (fock == fock.T).all()
    assert np.isfinite(fock).all()


def test_what_does_not_exist_is_refused_in_one_line(case, tmp_path):
    network = copy.deepcopy(case[0])
    with pytest.raises(ConfigError, match="unknown precision 'fp8'"):
        network.set_precision("fp8")
    with pytest.raises(ConfigError, match="float32 networks"):
        network.to(torch.float64).set_precision("tf32")
    with pytest.raises(ValueError, match="precision tf32 is of dtype float32"):
        TrainConfig(data=tmp_path, dtype="float64", precision="tf32")
