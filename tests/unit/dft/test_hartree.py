"""The reference ``minao-hartree`` solves its equation, keeps every electron, and turns with the molecule."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import df, gto
from scipy.linalg import block_diag, eigh
from scipy.spatial.transform import Rotation

from helmol import dft
from helmol.basis import wigner_d
from helmol.dft import LevelConfig, fitted_coulomb, hartree
from helmol.dft.densities import superposed_density
from helmol.dft.fitted_coulomb import FittedCoulomb, Integrals, auxiliary_functions, near_pairs
from helmol.dft.hartree import minao_hartree
from helmol.dft.integrals import house, house_shells
from helmol.dft.lite import minao_lite
from helmol.errors import ConvergenceError
from helmol.native.build import library
from helmol.properties import density, smeared_occupations
from helmol.system import Molecule

WATER = ([8, 1, 1], [[0.1, 0, 0], [0, 1.4, 1.1], [0, -1.5, 1.2]])
FORMIC = (
    [6, 8, 8, 1, 1],
    [[0, 0.8, 0], [-2.1, -0.2, 0.1], [2.0, -0.8, 0], [0.1, 2.9, 0.2], [3.6, 0.2, -0.3]],
)
IODIDE = ([53, 1], [[0, 0, 0], [0.3, 0, 3.0]])
ION = ([8, 1, 1, 1], [[0, 0, 0.2], [1.8, 0, 0.6], [-0.9, 1.55, 0.6], [-0.9, -1.55, 0.5]], {"charge": 1})
RADICAL = ([7, 1, 1], [[0, 0, 0], [0, 1.5, 1.2], [0, -1.5, 1.2]], {"spin": 1})
ALL = [WATER, FORMIC, IODIDE, ION, RADICAL]


def mole_of(molecule, basis="def2-svp"):
    numbers, positions, *more = molecule
    return dft.build_mole(Molecule(numbers, positions, **(more[0] if more else {})), LevelConfig(basis=basis))


def settled_density(matrix, mole):
    """Return the density of the orbitals of a matrix, by the generalised problem."""
    energy, coeff = eigh(matrix, mole.intor("int1e_ovlp"))
    return density(coeff, sum(smeared_occupations(energy, n) for n in mole.nelec))


def pyscf_coulomb(mole, change):
    """Return J in the same functions by PySCF's own density fitting."""
    fitted = df.DF(mole, auxbasis=auxiliary_functions(mole)._basis)
    return fitted.get_jk(change, hermi=1, with_k=False)[0]


@pytest.mark.parametrize("molecule", ALL)
def test_its_charge_has_settled_in_its_own_field(molecule):
    mole = mole_of(molecule)
    matrix = minao_hartree(mole, "pbe")
    found = settled_density(matrix, mole)
    assert np.vdot(found, mole.intor("int1e_ovlp")) == pytest.approx(mole.nelectron, abs=1e-9)
    neutral = mole.copy()
    neutral.charge = 0
    change = found - superposed_density(mole)
    right = minao_lite(neutral, "pbe") + pyscf_coulomb(mole, change)
    np.testing.assert_allclose(matrix, right, rtol=0, atol=1e-5)
    # It bites: the same of the atoms' matrix is far off.
    other = minao_lite(neutral, "pbe")
    assert np.abs(other - right).max() > 1e-2


@pytest.mark.parametrize("memory", [4000, 0], ids=["kept", "made again"])
def test_coulomb_of_a_density_is_that_of_pyscf(memory):
    mole, random = mole_of(FORMIC), np.random.default_rng(1)
    change = random.normal(size=(mole.nao, mole.nao))
    change += change.T
    near = near_pairs(mole)
    change *= near
    coulomb = FittedCoulomb(mole, auxiliary_functions(mole), max_memory=memory)
    found, wanted = coulomb.potential(coulomb.fit(change)), pyscf_coulomb(mole, change)
    np.testing.assert_allclose(found[near], wanted[near], rtol=0, atol=1e-8)
    assert 0 < np.abs(found - wanted).max() < 1e-5  # some pairs are left out


@pytest.mark.parametrize("basis", ["def2-svp", "def2-tzvpd", "cc-pvqz"])
def test_kernel_and_pyscf_agree(basis):
    if library("coulomb") is None:
        pytest.skip("no compiler")
    mole = mole_of(IODIDE if basis.startswith("def2") else FORMIC, basis)
    functions = auxiliary_functions(mole)
    integrals = Integrals(mole, functions)
    whole = df.incore.aux_e2(mole, functions).reshape(-1, functions.nao).T[:, integrals.below]
    for first, last in ((0, functions.nbas), (1, 3)):
        rows = slice(*functions.ao_loc_nr()[[first, last]])
        for found in (integrals.of(first, last), integrals.of_pyscf(first, last)):
            np.testing.assert_allclose(found, whole[rows], rtol=0, atol=1e-12)
    # Each element of a symmetric matrix once, in both of its places.
    assert integrals.weights.sum() == near_pairs(mole).sum()
    places = np.concatenate([integrals.below, integrals.above[integrals.weights == 2]])
    assert np.array_equal(np.sort(places), np.flatnonzero(near_pairs(mole)))


def test_cartesian_functions_have_integrals_too():
    mole = gto.M(atom="O 0 0 0; H 0 0 1", basis="6-31g*", cart=True, spin=1, verbose=0)
    functions = auxiliary_functions(mole)
    integrals = Integrals(mole, functions)
    wanted = df.incore.aux_e2(mole, functions).reshape(-1, functions.nao).T[:, integrals.below]
    np.testing.assert_allclose(integrals.of(0, functions.nbas), wanted, rtol=0, atol=1e-12)


def test_pairs_that_are_left_out_have_no_product():
    mole = gto.M(atom="O 0 0 0; H 0 0 1; O 0 0 7; H 0 0 8", basis="def2-svp", spin=0, verbose=0)
    near = near_pairs(mole)
    assert 0.5 < near.mean() < 0.99
    assert np.abs(mole.intor("int1e_ovlp")[~near]).max() < 1e-6


def test_it_is_several_times_nearer_than_superposed_atoms():
    level = LevelConfig(grid_level=1, conv_tol=1e-8, density_fit=True)
    for molecule in (FORMIC, ION):
        numbers, positions, *more = molecule
        sample, _ = dft.run(
            Molecule(numbers, positions, **(more[0] if more else {})), level, id="e",
            references=("minao-lite", "minao-hartree"),
        )  # fmt: skip
        error = {n: np.abs(m - sample.matrices.fock).mean() for n, m in sample.matrices.references.items()}
        assert error["minao-hartree"] < 0.4 * error["minao-lite"]


@pytest.mark.parametrize("molecule", [FORMIC, ION, IODIDE])
def test_it_turns_and_is_mirrored_with_the_molecule(molecule):
    numbers, positions, *more = molecule
    mole = mole_of(molecule)
    here = house(minao_hartree(mole, "pbe") - minao_lite(mole, "pbe"), mole)
    for mirror in (1, -1):
        turn = mirror * Rotation.from_euler("zyz", [0.3, 1.1, -0.7]).as_matrix()
        turned = mole_of((numbers, np.array(positions) @ turn.T, *more))
        shells = [wigner_d(l, mirror * turn) * mirror**l for l in house_shells(mole)]
        whole = block_diag(*shells)
        there = house(minao_hartree(turned, "pbe") - minao_lite(turned, "pbe"), turned)
        # Only the field of the atoms has points; charge that moves follows it.
        np.testing.assert_allclose(there, whole @ here @ whole.T, rtol=0, atol=2e-5)


def test_ghosts_hold_functions_but_make_no_field():
    alone = gto.M(atom="F 0 0 0; H 0 0 1", basis="def2-svp", verbose=0)
    far = gto.M(atom="ghost-O 0 30 0; F 0 0 0; H 0 0 1", basis="def2-svp", verbose=0)
    n = int(alone.nao)
    there = minao_hartree(far, "pbe")[-n:, -n:]
    np.testing.assert_allclose(there, minao_hartree(alone, "pbe"), rtol=0, atol=1e-5)


METALS = ([39, 46, 1, 1, 1, 1], [
    [0, 0, 0], [0, 0, 5.0], [3.4, 0.2, -0.8], [-1.9, 3.0, -0.6], [-1.6, -2.9, -0.9], [2.1, 0.3, 7.1],
], {"charge": -1})  # fmt: skip


@pytest.mark.parametrize("molecule", [*ALL, METALS])
def test_it_ends_where_tight_cycles_without_a_response_end(molecule, monkeypatch):
    mole = mole_of(molecule)
    found = minao_hartree(mole, "pbe")
    for name, value in (("NEWTON_CYCLES", 0), ("TIGHT_TOLERANCE", 1e-7)):
        monkeypatch.setattr(hartree, name, value)
    error = np.abs(found - minao_hartree(mole, "pbe"))
    assert error.max() < 5e-6
    assert error.mean() < 0.3e-6


@pytest.mark.parametrize("molecule", [FORMIC, RADICAL, METALS])
def test_response_is_the_derivative_of_the_charge(molecule, monkeypatch):
    monkeypatch.setattr(hartree, "BELOW", np.inf)
    monkeypatch.setattr(hartree, "ABOVE", np.inf)
    mole = mole_of(molecule)
    atoms, overlap = minao_lite(mole, "pbe"), mole.intor("int1e_ovlp")
    coulomb = FittedCoulomb(mole, auxiliary_functions(mole), max_memory=4000)
    energy, coeff = eigh(atoms, overlap)
    occupations = np.array([smeared_occupations(energy, n) for n in mole.nelec])
    field = np.random.default_rng(3).normal(size=len(coulomb.metric))
    found = hartree.response(coulomb, energy, coeff, occupations) @ field
    step = 1e-5 / np.abs(coulomb.potential(field)).max()
    moved = [coulomb.fit(settled_density(atoms + s * coulomb.potential(field), mole)) for s in (step, -step)]
    wanted = coulomb.metric @ (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    partly = (occupations > 0.01) & (occupations < 0.99)
    assert partly.any() == (molecule is METALS)


def test_few_cycles_are_enough_and_others_follow_where_they_are_not(monkeypatch):
    counted, levels = [], hartree._levels
    monkeypatch.setattr(hartree, "_levels", lambda *given: counted.append(0) or levels(*given))
    mole = mole_of(FORMIC)
    found = minao_hartree(mole, "pbe")
    assert len(counted) < 10
    counted.clear()
    # A response that points the wrong way: steps by it grow, and cycles begin anew without it.
    monkeypatch.setattr(hartree, "response", lambda coulomb, *_: 1.5 * coulomb.metric)
    again = minao_hartree(mole, "pbe")
    assert len(counted) > hartree.NEWTON_CYCLES
    np.testing.assert_allclose(found, again, rtol=0, atol=5e-6)


def test_parts_of_orbital_products_make_the_same_response(monkeypatch):
    mole = mole_of(FORMIC)
    coulomb = FittedCoulomb(mole, auxiliary_functions(mole), max_memory=4000)
    energy, coeff = eigh(minao_lite(mole, "pbe"), mole.intor("int1e_ovlp"))
    given = coulomb, energy, coeff, np.array([smeared_occupations(energy, n) for n in mole.nelec])
    whole = hartree.response(*given)
    for name in ("MOST_PRODUCTS", "AT_ONCE"):
        monkeypatch.setattr(fitted_coulomb, name, 7)
    np.testing.assert_allclose(hartree.response(*given), whole, rtol=0, atol=1e-5 * np.abs(whole).max())


def test_a_molecule_without_electrons_is_the_bare_field_of_its_missing_charge():
    mole = gto.M(atom="H 0 0 0", charge=1, basis="def2-svp", verbose=0)
    neutral = mole.copy()
    neutral.charge = 0
    right = minao_lite(neutral, "pbe") + pyscf_coulomb(mole, -superposed_density(mole))
    np.testing.assert_allclose(minao_hartree(mole, "pbe"), right, rtol=0, atol=1e-8)


def test_charge_that_does_not_settle_is_said(monkeypatch):
    monkeypatch.setattr(hartree, "MOST_CYCLES", 2)
    with pytest.raises(ConvergenceError, match="does not settle in 2 cycles"):
        minao_hartree(mole_of(WATER), "pbe")
