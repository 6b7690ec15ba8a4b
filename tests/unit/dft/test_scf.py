"""Labels by two grids, and with basis functions kept on the grid, are those of the plain SCF."""

import numpy as np
import pytest

from helmol import dft
from helmol.dft import kept, two_grids
from helmol.dft.field import mean_field
from helmol.errors import ConvergenceError
from helmol.system import Molecule

FORMALDEHYDE = Molecule.from_angstrom(
    [6, 8, 1, 1], [[0, 0, -0.53], [0.02, 0, 0.68], [0, 0.93, -1.11], [0.05, -0.94, -1.1]]
)
NH = Molecule.from_angstrom([7, 1], [[0, 0, 0], [0, 0, 1.04]], spin=2)
CASES = [(FORMALDEHYDE, "rks"), (NH, "uks")]


def level_of(**changes):
    return dft.LevelConfig(xc="pbe", basis="6-31g", grid_level=2, **changes)


def field_of(molecule, level):
    return mean_field(dft.build_mole(molecule, level), level)


@pytest.mark.parametrize(("molecule", "method"), CASES, ids=["rks", "uks"])
def test_labels_are_those_of_the_plain_scf(molecule, method):
    level = level_of()
    sample, _ = dft.run(molecule, level, id="x", forces=True)
    mf = field_of(molecule, level)
    assert type(mf).__name__.lower().endswith(method)
    energy = mf.kernel()
    assert sample.energy == pytest.approx(energy, abs=1e-11)
    np.testing.assert_allclose(sample.matrices.fock, fock_of(mf), atol=1e-11)
    np.testing.assert_allclose(sample.forces, forces_of(mf), atol=1e-10)


def fock_of(mf):
    return dft.integrals.house(np.asarray(mf.get_fock()), mf.mol)


def forces_of(mf):
    gradient = mf.nuc_grad_method()
    gradient.verbose = 0
    return -gradient.kernel()


def evaluations(monkeypatch):
    """Count evaluations of the functional by the number of points of their grid."""
    counts = {}
    for name in ("nr_rks", "nr_uks"):
        plain = getattr(kept.KeptOrbitals, name)

        def counting(self, mol, grids, *rest, _plain=plain, **other):
            counts[len(grids.coords)] = counts.get(len(grids.coords), 0) + 1
            return _plain(self, mol, grids, *rest, **other)

        monkeypatch.setattr(kept.KeptOrbitals, name, counting)
    return counts


@pytest.mark.parametrize(("molecule", "method"), CASES, ids=["rks", "uks"])
@pytest.mark.parametrize("xc", ["pbe", "pbe0", "r2scan"])
def test_labels_by_two_grids_are_those_of_the_plain_scf(molecule, method, xc, monkeypatch):
    level = level_of(density_fit=True, conv_tol=1e-12, conv_tol_grad=1e-8).model_copy(update={"xc": xc})
    mf = field_of(molecule, level)
    energy = mf.kernel()
    plain = fock_of(mf), forces_of(mf)
    counts = evaluations(monkeypatch)
    sample, _ = dft.run(molecule, level, id="x", forces=True, references=())
    assert sample.energy == pytest.approx(energy, abs=1e-11)
    np.testing.assert_allclose(sample.matrices.fock, plain[0], atol=1e-7)
    np.testing.assert_allclose(sample.forces, plain[1], atol=1e-7)
    coarse, *middle, fine = sorted(counts)
    assert coarse < fine / 5
    assert [counts[n_points] for n_points in middle] == [1]
    assert counts[fine] < mf.cycles < counts[coarse]


def test_non_local_correlation_is_in_labels_by_two_grids():
    level = dft.LevelConfig(xc="wb97m-v", basis="sto-3g", grid_level=1, density_fit=True)
    sample, _ = dft.run(NH, level, id="x", references=())
    mf = field_of(NH, level)
    assert sample.energy == pytest.approx(mf.kernel(), abs=1e-9)
    np.testing.assert_allclose(sample.matrices.fock, fock_of(mf), atol=1e-5)


def test_a_coarse_grid_that_leads_nowhere_does_no_harm(monkeypatch):
    level = level_of(density_fit=True)
    mf = field_of(FORMALDEHYDE, level)
    energy = mf.kernel()
    monkeypatch.setattr(two_grids.Corrected, "correct", lambda *_: None)
    sample, _ = dft.run(FORMALDEHYDE, level, id="x", references=())
    assert sample.energy == pytest.approx(energy, abs=1e-11)
    np.testing.assert_allclose(sample.matrices.fock, fock_of(mf), atol=1e-11)


def test_too_few_cycles_are_said():
    level = level_of(density_fit=True, max_cycle=3)
    with pytest.raises(ConvergenceError, match="did not converge to 1e-10 Eh in 3 cycles"):
        dft.run(FORMALDEHYDE, level, id="x", references=())
