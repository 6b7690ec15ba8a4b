"""Basis functions kept on the grid give the labels of the plain SCF."""

import numpy as np
import pytest
from pyscf.dft import numint

from helmol import dft
from helmol.dft import scf
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


class Counting(scf.KeptOrbitals):
    """Counts the blocks that are evaluated."""

    n_blocks = 0

    def eval_ao(self, *arguments, **other):
        self.n_blocks += 1
        return super().eval_ao(*arguments, **other)


@pytest.fixture
def grids():
    mf = field_of(FORMALDEHYDE, level_of())
    mf.grids.build(with_non0tab=True)
    return mf.grids


def blocks(integrator, grids, deriv=1):
    # Memory for a few blocks of points only, so that there are several.
    found = [
        (ao.copy(), weight.copy(), coords.copy())
        for ao, _, weight, coords in integrator.block_loop(
            grids.mol, grids, grids.mol.nao, deriv, max_memory=8
        )
    ]
    assert len(found) > 1
    return found


def test_kept_values_are_pyscfs_to_the_last_bit(grids):
    kept, plain = Counting(grids, limit_mb=1000), blocks(numint.NumInt(), grids)
    for _ in range(2):
        for mine, theirs in zip(blocks(kept, grids), plain, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)
    assert kept.n_blocks == len(plain)


def test_values_of_another_derivative_and_beyond_the_limit_are_not_kept(grids):
    kept = Counting(grids, limit_mb=1000)
    blocks(kept, grids)
    n_blocks = kept.n_blocks
    for mine, theirs in zip(blocks(kept, grids, 2), blocks(numint.NumInt(), grids, 2), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
    assert kept.n_blocks > n_blocks

    without = Counting(grids, limit_mb=0.1)
    n_blocks = len(blocks(without, grids))
    blocks(without, grids)
    assert without.n_blocks == 2 * n_blocks


def test_a_grid_built_anew_is_noticed(grids):
    kept = Counting(grids, limit_mb=1000)
    blocks(kept, grids)
    grids.level = 1
    grids.build(with_non0tab=True)
    for mine, theirs in zip(blocks(kept, grids), blocks(numint.NumInt(), grids), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])


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
        plain = getattr(numint.NumInt, name)

        def counting(self, mol, grids, *rest, _plain=plain, **other):
            counts[len(grids.coords)] = counts.get(len(grids.coords), 0) + 1
            return _plain(self, mol, grids, *rest, **other)

        monkeypatch.setattr(numint.NumInt, name, counting)
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
    coarse, fine = sorted(counts)
    assert coarse < fine / 5
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
    monkeypatch.setattr(scf.CorrectedFunctional, "correct", lambda *_: None)
    sample, _ = dft.run(FORMALDEHYDE, level, id="x", references=())
    assert sample.energy == pytest.approx(energy, abs=1e-11)
    np.testing.assert_allclose(sample.matrices.fock, fock_of(mf), atol=1e-11)


def test_too_few_cycles_are_said():
    level = level_of(density_fit=True, max_cycle=3)
    with pytest.raises(ConvergenceError, match="did not converge to 1e-10 Eh in 3 cycles"):
        dft.run(FORMALDEHYDE, level, id="x", references=())
