"""Basis functions kept on the grid give the labels of the plain SCF."""

import numpy as np
import pytest
from pyscf.dft import numint

from helmol import dft
from helmol.dft import scf
from helmol.dft.field import mean_field
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
@pytest.mark.parametrize("density_fit", [False, True])
def test_labels_are_those_of_the_plain_scf(molecule, method, density_fit):
    level = level_of(density_fit=density_fit)
    sample, _ = dft.run(molecule, level, id="x", forces=True)
    mf = field_of(molecule, level)
    assert type(mf).__name__.lower().endswith(method)
    energy = scf.converge(mf, level)
    plain = dft.integrals.house(np.asarray(mf.get_fock()), mf.mol)
    assert sample.energy == pytest.approx(energy, abs=1e-11)
    np.testing.assert_allclose(sample.matrices.fock, plain, atol=1e-11)
    gradient = mf.nuc_grad_method()
    gradient.verbose = 0
    np.testing.assert_allclose(sample.forces, -gradient.kernel(), atol=1e-10)
