"""Energies about superposed atoms are PySCF's, but for a constant of each element."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import block_diag

from helmol import dft, properties
from helmol.basis import from_house, wigner_d
from helmol.dft import LevelConfig, energy_about_atoms, fitted_coulomb, gaussian_field, xc_field
from helmol.dft.integrals import house, house_shells
from helmol.errors import InputError
from helmol.system import Molecule

PBE = LevelConfig(xc="pbe", basis="def2-svp")
LDA = LevelConfig(xc="lda,vwn", basis="def2-svp")
HCN = Molecule([1, 6, 7], [[0, 0, 0.1], [0, 0.2, 2.1], [0.1, 0, 4.3]])
HNC = Molecule([1, 7, 6], [[0, 0, 0.1], [0, 0.2, 2.0], [0.1, 0, 4.2]])
WATER = Molecule([8, 1, 1], [[0, 0, 0.2], [0, 1.43, -0.9], [0, -1.43, -0.9]])
HYDRONIUM = Molecule(
    [8, 1, 1, 1], [[0, 0, 0.2], [1.76, 0, -0.3], [-0.9, 1.6, -0.3], [-0.9, -1.6, -0.3]], charge=1
)
HYDROXIDE = Molecule([8, 1], [[0, 0, 0], [0.3, 0, 1.8]], charge=-1)


def started(molecule, level):
    """Return the Mole, H₀ and the density of its lowest orbitals."""
    mole = dft.build_mole(molecule, level)
    reference = dft.reference_fock(mole, level, "minao-lite")
    mo_energy, mo_coeff = properties.orbitals(reference, dft.overlap(mole))
    occupied = properties.occupations(mo_energy, int(mole.nelectron))
    return mole, reference, properties.density(mo_coeff, occupied)


def beyond_pyscf(molecule, level):
    """Return by how much the energy of H₀'s density differs from PySCF's."""
    mole, reference, density = started(molecule, level)
    mf = dft.mean_field(mole, level)
    exact = mf.energy_tot(from_house(density, house_shells(mole), "pyscf"))
    return energy_about_atoms(mole, level, reference=reference, density=density) - exact


@pytest.mark.parametrize("level", [PBE, LDA], ids=["pbe", "lda"])
def test_energies_of_densities_are_those_of_pyscf_but_for_constants_of_the_elements(level):
    # 10 meV, where the two isomers' densities are 150 meV from converged.
    assert beyond_pyscf(HCN, level) == pytest.approx(beyond_pyscf(HNC, level), abs=4e-4)


def test_ions_have_the_constants_of_the_neutral_molecule():
    ions = beyond_pyscf(HYDRONIUM, PBE) + beyond_pyscf(HYDROXIDE, PBE)
    assert ions == pytest.approx(2 * beyond_pyscf(WATER, PBE), abs=8e-4)


def test_the_second_order_is_read_from_a_converged_matrix():
    differences = []
    for molecule in (HCN, HNC):
        mole, reference, _ = started(molecule, PBE)
        mf = dft.mean_field(mole, PBE)
        mf.kernel()
        fock, density = house(mf.get_fock(), mole), house(mf.make_rdm1(), mole)
        given = {"reference": reference, "density": density}
        second = energy_about_atoms(mole, PBE, **given, fock=fock)
        # Without the second order the two are off by 70 and 90 mEh.
        first = energy_about_atoms(mole, PBE, **given, fock=reference)
        differences.append((second - mf.e_tot, first - mf.e_tot))
    (second, first), (other_second, other_first) = differences
    assert second == pytest.approx(other_second, abs=2e-3)
    assert abs(first - other_first) > 2 * abs(second - other_second)


def test_nothing_changes_without_a_compiler(monkeypatch):
    mole, reference, density = started(HCN, PBE)
    fast = energy_about_atoms(mole, PBE, reference=reference, density=density)
    for module in (gaussian_field, xc_field):
        monkeypatch.setattr(module, "library_of_atoms", lambda: None)
    slow = energy_about_atoms(mole, PBE, reference=reference, density=density)
    assert fast == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("second_order", [False, True])
def test_it_turns_with_the_molecule_but_for_the_points_of_the_grid(second_order):
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    mole, reference, density = started(HCN, PBE)
    turned = Molecule(HCN.numbers, HCN.positions @ rotation.T)
    other = dft.build_mole(turned, PBE)
    d = block_diag(*[wigner_d(l, rotation) for l in house_shells(mole)])
    h = dft.reference_fock(other, PBE, "minao-lite")
    given = {"fock": reference} if second_order else {}
    here = energy_about_atoms(mole, PBE, reference=reference, density=density, **given)
    given = {"fock": d @ reference @ d.T} if second_order else {}
    there = energy_about_atoms(other, PBE, reference=h, density=d @ density @ d.T, **given)
    assert here == pytest.approx(there, abs=3e-4)


def test_order_does_not_matter_and_far_molecules_do_not_meet(monkeypatch):
    one = energy_about_atoms(dft.build_mole(HCN, PBE), PBE, **_given(HCN))
    other = Molecule(HCN.numbers[::-1], HCN.positions[::-1] + np.array([1.0, -2.0, 0.5]))
    mole = dft.build_mole(other, PBE)
    assert energy_about_atoms(mole, PBE, **_given(other)) == pytest.approx(one, abs=1e-8)
    far = Molecule(
        np.concatenate([HCN.numbers, WATER.numbers]),
        np.concatenate([HCN.positions, WATER.positions + np.array([0, 90.0, 0])]),
    )
    water = energy_about_atoms(dft.build_mole(WATER, PBE), PBE, **_given(WATER))
    # In parts that do not divide the auxiliary functions evenly.
    monkeypatch.setattr(fitted_coulomb, "AT_ONCE", 13)
    both = energy_about_atoms(dft.build_mole(far, PBE), PBE, **_given(far))
    assert both == pytest.approx(one + water, abs=1e-5)


def _given(molecule):
    _, reference, density = started(molecule, PBE)
    return {"reference": reference, "density": density}


def test_what_it_cannot_do_is_refused():
    mole, reference, density = started(HCN, PBE)
    with pytest.raises(InputError, match="functional of density and gradient such as PBE, not b3lyp"):
        energy_about_atoms(mole, LevelConfig(xc="b3lyp"), reference=reference, density=density)
    with pytest.raises(InputError, match="closed shells"):
        energy_about_atoms(mole, PBE, reference=reference, density=np.stack([density, density]))
