"""The C kernels: built where they can be, called on parts of the rows."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

from helmol.native import build, call


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Let every test find no library, a home and temporary folder of its own, and a compiler that copies."""
    real = build.library()
    if real is None:
        pytest.fail("the C kernels do not compile here")
    # The same bytes as the compiler makes, without its seconds.
    compiler = tmp_path / "cc"
    compiler.write_text(
        f"#!/bin/sh\nfor last; do :; done\ncp '{real._name}' \"$last\"\necho >> '{tmp_path}/calls'\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    build.library.cache_clear()
    yield tmp_path
    build.library.cache_clear()


def lies(folder):
    """Return where the library that is loaded lies."""
    build.library.cache_clear()
    return Path(build.library()._name).parent == folder


def test_the_cache_is_where_the_standard_says(fresh, monkeypatch):
    assert lies(fresh / "home" / ".cache" / "helmol")
    for nothing in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", nothing)
        assert lies(fresh / "home" / ".cache" / "helmol")
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "cache"))
    assert lies(fresh / "cache" / "helmol")
    assert (fresh / "calls").read_text() == "\n" * 2
    assert not (Path.cwd() / "helmol").exists()


def test_a_home_that_cannot_be_written_leaves_the_temporary_folder(fresh, monkeypatch, caplog):
    # A folder of somebody else would do for anybody but root.
    (fresh / "file").write_text("")
    monkeypatch.setenv("HOME", str(fresh / "file"))
    own = fresh / "tmp" / f"helmol-{os.getuid()}"
    assert lies(own)
    assert own.stat().st_mode & 0o777 == 0o700
    assert not caplog.records
    # What others can write is not loaded.
    own.chmod(0o777)
    build.library.cache_clear()
    assert build.library() is None
    assert "can be written by others" in caplog.text


@pytest.mark.parametrize(
    "damage", [lambda data: data[:4000], lambda data: b"", lambda data: data[:-1] + b"?"]
)
def test_a_damaged_library_is_not_loaded_but_made_anew(fresh, damage):
    path = Path(build.library()._name)
    data = path.read_bytes()
    path.unlink()  # the loaded one keeps its own content
    path.write_bytes(damage(data))
    assert lies(path.parent)
    assert path.read_bytes() == data
    assert (fresh / "calls").read_text() == "\n" * 2


@pytest.mark.parametrize(
    "text", ["exit 1", "echo no such thing >&2; exit 1", 'for last; do :; done; echo x > "$last"']
)
def test_a_broken_compiler_costs_speed_and_one_warning(fresh, caplog, text):
    (fresh / "cc").write_text(f"#!/bin/sh\n{text}\n")
    x = torch.zeros(3, 3)
    for _ in range(3):
        assert not call.usable(x)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "torch operations do their work" in record.getMessage()
    assert ("no such thing" in record.getMessage()) == ("no such thing" in text)


def test_who_does_not_want_them_is_told_nothing(fresh, monkeypatch, caplog):
    monkeypatch.setenv("HELMOL_NATIVE", "0")
    assert build.library() is None
    assert not caplog.records


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
