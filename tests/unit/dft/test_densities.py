"""Densities of superposed atoms keep their electrons, also beside effective core potentials."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft as pyscf_dft
from pyscf import gto
from pyscf.scf import hf

from helmol import dft
from helmol.dft import LevelConfig
from helmol.dft.densities import minao_density, silence, superposed_density
from helmol.elements import SYMBOLS
from helmol.errors import InputError
from helmol.system import Molecule

WITH_POTENTIAL = [*range(37, 58), *range(72, 87)]
"""Elements of def2 sets with an effective core potential."""
PROJECTED = 0.07
"""Most electrons that an all-electron atom loses when PySCF projects its ANO orbitals onto def2-SVP."""


def lost_electrons(numbers, basis):
    """Return by element how many electrons an atom's density lacks."""
    far = np.arange(len(numbers))[:, None] * [60.0, 0.0, 0.0]
    mole = dft.build_mole(Molecule(numbers, far, spin=sum(numbers) % 2), LevelConfig(basis=basis))
    mf = pyscf_dft.RKS(mole)
    mf.chkfile = None
    product = np.asarray(minao_density(mf)) * mole.intor_symmetric("int1e_ovlp")
    first = mole.aoslice_by_atom()[:, 2]
    lost = mole.atom_charges() - np.add.reduceat(product.sum(axis=1), first)
    return dict(zip(numbers, lost.tolist(), strict=True))


@pytest.mark.parametrize(
    ("basis", "numbers"),
    [
        ("def2-svp", [*range(1, 37), *WITH_POTENTIAL]),
        ("def2-tzvpd", [1, 6, 7, 8, 16, 17, 26, 35, 37, 47, 53, 56, 57, 74, 78, 83]),
    ],
)
def test_every_element_of_the_presets_keeps_its_electrons(basis, numbers):
    lost = lost_electrons(numbers, basis)
    assert {SYMBOLS[z]: n for z, n in lost.items() if z in WITH_POTENTIAL and abs(n) > 1e-8} == {}
    assert {
        SYMBOLS[z]: n for z, n in lost.items() if z not in WITH_POTENTIAL and not 0 <= n < PROJECTED
    } == {}


@pytest.mark.parametrize("cart", [False, True])
def test_ghosts_and_cartesian_functions_change_nothing_of_that(cart):
    atoms = "Fe 0 0 0; ghost-O 1 1 1; Br 2 1 0; Na 4 0 0; H1 5 5 5; He 0 8 0"
    basis = "6-31g*" if cart else "def2-svp"
    mole = gto.M(atom=atoms, basis=basis, spin=None, cart=cart, verbose=0)
    np.testing.assert_allclose(superposed_density(mole), hf.init_guess_by_minao(mole), rtol=0, atol=1e-12)


def test_hydrogen_iodide_has_its_electrons_and_a_far_better_fock_matrix():
    level = LevelConfig(grid_level=1, conv_tol=1e-8)
    molecule = Molecule([53, 1], [[0, 0, 0], [0, 0, 3.04]])
    mole = dft.build_mole(molecule, level)
    density = minao_density(dft.mean_field(mole, level))
    assert np.sum(density * mole.intor("int1e_ovlp")) == pytest.approx(26, abs=2e-3)
    # What PySCF attaches to its densities belongs to this one, too.
    np.testing.assert_allclose(density.mo_coeff * density.mo_occ @ density.mo_coeff.T, density, atol=1e-14)
    sample, _ = dft.run(molecule, level, id="hi", references=("minao",))
    assert sample.provenance["reference_densities"] == "exact charge"
    error = np.abs(sample.matrices.references["minao"] - sample.matrices.fock).mean()
    mf = dft.mean_field(mole, level)
    projected = dft.integrals.house(mf.get_fock(dm=mf.init_guess_by_minao()), mole)
    assert error < 0.004
    assert np.abs(projected - sample.matrices.fock).mean() > 10 * error


def test_spins_share_the_density():
    level = LevelConfig()
    mole = dft.build_mole(Molecule([53], [[0, 0, 0]], spin=1), level)
    alpha, beta = minao_density(dft.mean_field(mole, level))
    np.testing.assert_array_equal(alpha, beta)
    assert np.sum((alpha + beta) * mole.intor("int1e_ovlp")) == pytest.approx(25, abs=1e-9)


@pytest.mark.parametrize("method", ["rks", "uks"])
def test_without_core_potentials_it_is_that_of_pyscf(method):
    mole = dft.build_mole(Molecule([8, 1, 1], [[0, 0, 0], [0, 1.4, 1.1], [0, -1.4, 1.1]]), LevelConfig())
    mf = dft.mean_field(mole, LevelConfig(method=method))
    wanted = mf.init_guess_by_minao() if method == "rks" else mf.init_guess_by_minao(breaksym=False)
    np.testing.assert_allclose(minao_density(mf), wanted, rtol=0, atol=1e-14)


def test_a_core_without_known_configuration_is_refused():
    level = LevelConfig(basis="def2-svp")
    mole = dft.build_mole(Molecule([53], [[0, 0, 0]], spin=1), level)
    # 30 electrons are no closed core.
    mole._ecp = {"I": [30, mole._ecp["I"][1]]}
    mole._atm[0, 0] = 23
    with pytest.raises(InputError, match="no atomic density of I"):
        minao_density(dft.mean_field(mole, level))


def test_checkpoint_files_that_are_muted_are_not_missed():
    mole = dft.build_mole(Molecule([1, 1], [[0, 0, 0], [0, 0, 1.4]]), LevelConfig(basis="sto-3g"))
    mf = pyscf_dft.RKS(mole)
    mf._chkfile.close()
    # What PySCF leaves out where its configuration mutes them.
    del mf._chkfile
    silence(mf)
    assert mf.chkfile is None
    named = pyscf_dft.RKS(mole)
    scratch = named._chkfile
    silence(named)
    assert scratch.file.closed
