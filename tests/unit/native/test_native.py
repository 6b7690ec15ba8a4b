"""The C kernels: built where they can be, called on parts of the rows."""

import pytest
import torch

from helmol.native import build, call


def test_a_broken_compiler_costs_nothing_but_speed(monkeypatch, tmp_path):
    build.library.cache_clear()
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.library() is None
    build.library.cache_clear()


def test_each_part_of_the_rows_has_sums_of_its_own(monkeypatch):
    if build.library() is None:
        pytest.fail("the C kernels do not compile here")
    monkeypatch.setattr(call, "ROWS_PER_THREAD", 2)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    rows, k, c = 10, 4, 5  # in parts of 3, 3 and 4
    torch.manual_seed(0)
    gradient, x = torch.randn(2, rows, k, c, dtype=torch.float64)
    weight, balance = torch.ones(2, c, dtype=torch.float64), torch.ones(k, dtype=torch.float64)
    degree, scale = torch.tensor([0, 1, 1, 1]), torch.ones(rows, dtype=torch.float64)
    sums = torch.zeros(call.n_parts(rows), 2, c, dtype=torch.float64)
    inputs = [gradient, x, scale, weight, balance, degree]
    call.run("norm_backward", rows, inputs, (k, c, k * c, c), [sums], [torch.zeros_like(x)], strided=True)
    expected = [(gradient[part, 1:] * x[part, 1:]).sum((0, 1)) for part in map(slice, (0, 3, 6), (3, 6, 10))]
    torch.testing.assert_close(sums[:, 1], torch.stack(expected))


def test_an_array_that_is_not_dense_is_refused():
    if build.library() is None:
        pytest.fail("the C kernels do not compile here")
    x = torch.zeros(4, 2, 6)[..., ::2]
    with pytest.raises(ValueError, match="dense"):
        call.run("fold", 2, [x], (), [], [])
