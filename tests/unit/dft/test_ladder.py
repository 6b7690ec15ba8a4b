"""Where DIIS gets nowhere the SCF goes on, and no saddle point counts as converged."""

import numpy as np
import pytest

from helmol import dft
from helmol.dft import ladder, scf, stability
from helmol.dft.field import mean_field
from helmol.errors import ConvergenceError
from helmol.system import Molecule

WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0.1, -0.76, 0.59]])
STRETCHED = Molecule.from_angstrom([1, 1], [[0, 0, 0], [0, 0, 2.5]])


def field_of(molecule, **changes):
    level = dft.LevelConfig(xc="pbe", basis="6-31g", grid_level=1).model_copy(update=changes)
    return mean_field(dft.build_mole(molecule, level), level), level


def test_progress_and_its_absence_are_told_apart():
    assert not ladder.stalled([10.0 ** (-n / 8) for n in range(60)], 1e-9)
    assert not ladder.stalled([1.0] * 21, 1e-9)
    assert ladder.stalled([1.0] * 22, 1e-9)
    assert not ladder.stalled([1e-10] * 40, 1e-9)


@pytest.mark.parametrize("fit", [True, False])
def test_second_order_gives_the_labels_of_diis(fit, monkeypatch):
    _, level = field_of(WATER, density_fit=fit)
    plain, _ = dft.run(WATER, level, id="x", references=())
    assert "scf_steps" not in plain.provenance
    monkeypatch.setattr(ladder, "stalled", lambda gradients, _: len(gradients) > 2)
    other, _ = dft.run(WATER, level, id="x", references=())
    assert other.provenance["scf_steps"][:2] == ["diis", "newton"]
    assert other.provenance["scf_steps"][-1] == "stable"
    assert other.energy == pytest.approx(plain.energy, abs=1e-9)
    np.testing.assert_allclose(other.matrices.fock, plain.matrices.fock, atol=1e-4)


def symmetric_start(mf):
    half = np.asarray(mf.get_init_guess()).sum(axis=0) / 2
    mf.get_init_guess = lambda *_, **__: np.array([half, half])
    return mf


@pytest.mark.parametrize("fit", [True, False])
def test_a_saddle_point_is_left_downhill(fit):
    mf, level = field_of(STRETCHED, method="uks", density_fit=fit)
    if fit:
        mf.with_df.build()
    symmetric = symmetric_start(mf).kernel()
    assert mf.converged
    assert stability.lowest_mode(mf, mf.get_fock())[0] < stability.UNSTABLE
    steps = []
    energy, _ = scf.converge(mf, level, steps)
    assert steps == ["diis", "downhill", "newton", "stable"]
    assert energy < symmetric - 0.01


def test_a_saddle_point_that_stays_is_refused(monkeypatch):
    mf, level = field_of(STRETCHED, method="uks")
    monkeypatch.setattr(scf, "turned", lambda field, _: field.mo_coeff)
    with pytest.raises(ConvergenceError, match="ends at a saddle point"):
        scf.converge(symmetric_start(mf), level)


def test_a_hole_is_refused():
    mf, _ = field_of(WATER)
    mf.kernel()
    ladder.check_holes(mf)
    mf.mo_occ[[4, 5]] = 0, 2
    with pytest.raises(ConvergenceError, match="lowest orbitals occupied"):
        ladder.check_holes(mf)


def test_scratch_files_are_closed_and_copies_still_work():
    mf, _ = field_of(WATER)
    energy = mf.copy().kernel()
    assert mf._chkfile.closed
    assert mf.newton().kernel() == pytest.approx(energy, abs=1e-8)
    assert mf.density_fit().kernel() == pytest.approx(energy, abs=1e-2)
