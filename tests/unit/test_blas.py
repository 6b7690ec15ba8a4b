import subprocess
import sys

import pytest

from helmol import blas

AVX2 = frozenset({"avx", "avx2", "fma"})


@pytest.mark.parametrize(
    ("corename", "environment", "flags", "wanted"),
    [
        ("Barcelona", {}, AVX2, "Haswell"),
        ("Prescott", {}, AVX2, "Haswell"),
        ("Barcelona", {"OPENBLAS_CORETYPE": "Zen"}, AVX2, None),
        ("Barcelona", {}, frozenset({"avx"}), None),
        ("Barcelona", {}, frozenset(), None),
        ("SkylakeX", {}, AVX2, None),
        ("Excavator", {}, AVX2, None),
        ("Haswell", {}, AVX2, None),
        (None, {}, AVX2, None),
    ],
)
def test_only_kernels_older_than_the_processor_are_exchanged(corename, environment, flags, wanted):
    assert blas.better(corename, environment=environment, flags=flags) == wanted


def test_the_processor_is_asked_in_the_words_of_linux(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx2 fma\nbogomips: 1\n\nprocessor: 1\nflags: fpu\n")
    monkeypatch.setattr(blas, "CPUINFO", file)
    monkeypatch.setattr(blas.platform, "machine", lambda: "x86_64")
    assert blas.processor_flags() == {"fpu", "avx2", "fma"}
    monkeypatch.setattr(blas.platform, "machine", lambda: "arm64")
    assert blas.processor_flags() == frozenset()
    monkeypatch.setattr(blas, "CPUINFO", tmp_path / "none")
    assert blas.processor_flags() == frozenset()


SCRIPT = """
import os
{before}
import helmol.dft
from helmol import blas
import pyscf.dft
kernels = blas.kernels_in_use()
print(kernels.get("numpy"), kernels.get("pyscf"), os.environ.get("OPENBLAS_CORETYPE"))
"""


def _kernels(before: str, **environment: str) -> list[str]:
    kept = {k: v for k, v in blas.os.environ.items() if k != "OPENBLAS_CORETYPE"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", SCRIPT.format(before=before)],
        capture_output=True, text=True, check=True, env={**kept, **environment},
    )  # fmt: skip
    return done.stdout.split()


def test_pyscf_gets_kernels_that_fit_and_nobody_else_notices():
    numpy_alone, alone, _ = _kernels("import numpy, pyscf")
    if blas.better(alone, environment={}, flags=blas.processor_flags()) is None:
        pytest.skip(f"PySCF's BLAS chooses {alone} by itself, which stands")
    assert _kernels("") == [numpy_alone, "Haswell", "None"]
    # A user's choice stands, for good or ill.
    assert _kernels("", OPENBLAS_CORETYPE=alone)[1:] == [alone, alone]


def test_without_pyscf_nothing_is_loaded(monkeypatch):
    monkeypatch.setattr(blas.importlib.util, "find_spec", lambda name: None)
    assert blas.load_pyscf_blas.__wrapped__() == blas.Kernels(None, None)
