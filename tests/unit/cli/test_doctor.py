"""The self-tests pass here, and each fails on a planted fault."""

import json

import numpy as np
import pytest

from helmol import basis, doctor
from helmol.cli.main import main


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_equivariance_passes(precision):
    passed, detail = doctor.network_equivariance(precision)
    assert passed, detail


def test_equivariance_fails_on_a_rotation_with_another_sign_of_m(monkeypatch):
    def wrong(l, rotation):
        return basis.wigner_d(l, rotation)[::-1] if l == 1 else basis.wigner_d(l, rotation)

    monkeypatch.setattr(doctor, "wigner_d", wrong)
    assert not doctor.network_equivariance("float64")[0]
    assert not doctor.orbital_order()[0]


def test_orbital_order_passes():
    passed, detail = doctor.orbital_order()
    assert passed, detail


def test_orbital_order_fails_where_p_stands_as_in_another_program(monkeypatch):
    def wrong(matrix, shells, source):
        return basis.to_house(matrix, shells, "psi4")

    monkeypatch.setattr(doctor, "to_house", wrong)
    assert not doctor.orbital_order()[0]


def test_tiny_fit_passes_and_fails_without_training(monkeypatch):
    passed, detail = doctor.tiny_fit()
    assert passed, detail
    monkeypatch.setattr(doctor, "FIT_STEPS", 1)
    assert not doctor.tiny_fit()[0]


def test_random_rotations_are_proper(rng):
    for _ in range(10):
        rotation = doctor.random_rotation(rng)
        assert np.allclose(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_a_missing_library_is_not_a_failure():
    def needs_pyscf():
        raise ModuleNotFoundError("No module named 'pyscf'", name="pyscf")

    check = doctor._timed("order", needs_pyscf)
    assert check.passed is None
    assert "pyscf is not installed" in check.detail


def test_a_broken_test_is_a_failure_with_its_reason():
    check = doctor._timed("order", lambda: 1 / 0)
    assert check.passed is False
    assert "ZeroDivisionError" in check.detail


def test_the_verb(capsys, tmp_path, monkeypatch):
    results = [doctor.Check("one", True, "good"), doctor.Check("two", None, "not available")]
    monkeypatch.setattr(doctor, "self_tests", lambda: results)
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--json", str(tmp_path / "doctor.json")])
    assert stop.value.code == 0
    found = json.loads((tmp_path / "doctor.json").read_text())
    assert found["passed"] is True
    assert found["versions"]["torch"] != "not installed"
    assert [test["passed"] for test in found["self_tests"]] == [True, None]
    assert capsys.readouterr().out.splitlines()[-1] == "next: helmol demo"
    results[0] = doctor.Check("one", False, "bad")
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "helmol doctor: 1 of 2 self-tests failed: one\n"


def test_advice_names_what_to_set_for_pyscf(monkeypatch):
    monkeypatch.setattr(doctor.blas, "processor_flags", lambda: frozenset({"avx2", "fma"}))
    monkeypatch.setattr(doctor.blas, "load_pyscf_blas", lambda: doctor.blas.Kernels("Barcelona", "Haswell"))
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    assert "instead of Barcelona; for scripts that import" in doctor.blas_advice({"pyscf": "Haswell"})
    assert doctor.blas_advice({"pyscf": "Barcelona"}).endswith("export OPENBLAS_CORETYPE=Haswell")
    assert doctor.blas_advice({"numpy": "SkylakeX"}) is None
    monkeypatch.setattr(doctor.blas, "load_pyscf_blas", lambda: doctor.blas.Kernels("SkylakeX", "SkylakeX"))
    assert doctor.blas_advice({"pyscf": "SkylakeX"}) is None
    monkeypatch.setattr(doctor.blas, "processor_flags", frozenset)
    assert doctor.blas_advice({"pyscf": "Barcelona"}) is None
