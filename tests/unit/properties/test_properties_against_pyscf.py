"""Every property of a converged Fock matrix equals PySCF's; a planted fault is caught."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from pyscf import dft, gto

from helmol import properties
from helmol.basis import BasisSet, from_house, to_house
from helmol.errors import InputError

WATER = "O 0.1 0.2 -0.3; H 0.8 0.5 0.1; H -0.6 0.7 0.3"
# Iodine has an effective core potential: its core electrons must not count.
IODOMETHANE = "C 0 0 0.1; I 0.2 0 2.2; H 1.0 0 -0.3; H -0.5 0.9 -0.3; H -0.5 -0.9 -0.3"


@dataclass(frozen=True)
class Case:
    """A converged PySCF run beside its matrices in house order."""

    mf: dft.rks.RKS
    basis: BasisSet
    numbers: np.ndarray
    shells: list[int]
    fock: np.ndarray
    overlap: np.ndarray
    integrals: np.ndarray


def _case(atom: str, *, spin: int = 0) -> Case:
    mol = gto.M(atom=atom, basis="def2-svp", ecp={"I": "def2-svp"}, spin=spin, verbose=0)
    mf = dft.UKS(mol, xc="pbe") if spin else dft.RKS(mol, xc="pbe")
    mf._chkfile.close()
    mf.set(conv_tol=1e-11, chkfile=None)
    mf.grids.level = 1
    mf.kernel()
    basis = BasisSet.from_mole(mol, "def2-svp")
    numbers = np.array([gto.charge(mol.atom_pure_symbol(i)) for i in range(mol.natm)])
    shells = basis.shells(numbers)
    with mol.with_common_origin((0, 0, 0)):
        integrals = mol.intor("int1e_r")
    # PySCF keeps the orbitals of the F before last: take F once, and its own orbitals.
    fock = np.asarray(mf.get_fock())
    mf.mo_energy, mf.mo_coeff = mf.eig(fock, mf.get_ovlp())
    return Case(
        mf,
        basis,
        numbers,
        shells,
        to_house(fock, shells, "pyscf"),
        to_house(mf.get_ovlp(), shells, "pyscf"),
        to_house(integrals, shells, "pyscf"),
    )


@pytest.fixture(scope="module")
def water() -> Case:
    return _case(WATER)


@pytest.fixture(scope="module")
def iodomethane() -> Case:
    return _case(IODOMETHANE)


@pytest.fixture(params=["water", "iodomethane"])
def closed(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def triplet() -> Case:
    return _case("O 0 0 0; O 0 0.3 1.2", spin=2)


def _solve(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    energy, coeff = properties.orbitals(case.fock, case.overlap)
    occ = properties.occupations(energy, case.mf.mol.nelectron, spin=case.mf.mol.spin)
    return energy, occ, properties.density(coeff, occ)


def test_orbital_energies_and_density(closed: Case) -> None:
    energy, occ, density = _solve(closed)
    assert np.abs(energy - closed.mf.mo_energy).max() < 1e-9
    reference = closed.mf.make_rdm1(closed.mf.mo_coeff, closed.mf.get_occ())
    assert np.abs(from_house(density, closed.shells, "pyscf") - reference).max() < 1e-8
    homo, lumo = properties.frontier(energy, occ)
    n = closed.mf.mol.nelectron // 2
    assert (homo, lumo) == pytest.approx((closed.mf.mo_energy[n - 1], closed.mf.mo_energy[n]), abs=1e-9)
    assert properties.gap(energy, occ) == pytest.approx(lumo - homo)


def _dipole_error(case: Case, *, fault: str) -> float:
    _, _, density = _solve(case)
    charges = properties.nuclear_charges(case.numbers, case.basis)
    integrals = case.integrals
    if fault == "core electrons counted":
        charges = case.numbers.astype(float)
    elif fault == "sign":
        integrals = -integrals
    elif fault == "order":
        integrals = from_house(integrals, case.shells, "pyscf")
    positions = case.mf.mol.atom_coords()
    found = properties.dipole(density, integrals, positions=positions, charges=charges)
    density = case.mf.make_rdm1(case.mf.mo_coeff, case.mf.get_occ())
    reference = case.mf.dip_moment(dm=density, unit="AU", verbose=0)
    return float(np.abs(found - reference).max())


def test_dipole(closed: Case) -> None:
    assert _dipole_error(closed, fault="none") < 1e-8


@pytest.mark.parametrize("fault", ["core electrons counted", "sign", "order"])
def test_dipole_notices_faults(iodomethane: Case, fault: str) -> None:
    assert _dipole_error(iodomethane, fault=fault) > 0.01


def test_mulliken_charges(closed: Case) -> None:
    _, _, density = _solve(closed)
    charges = properties.nuclear_charges(closed.numbers, closed.basis)
    offsets = closed.basis.offsets(closed.numbers)
    found = properties.mulliken_charges(density, closed.overlap, offsets=offsets, charges=charges)
    _, reference = closed.mf.mulliken_pop(dm=from_house(density, closed.shells, "pyscf"), verbose=0)
    assert np.abs(found - reference).max() < 1e-10
    assert found.sum() == pytest.approx(0, abs=1e-9)
    wrong = properties.mulliken_charges(density, np.eye(len(density)), offsets=offsets, charges=charges)
    assert np.abs(wrong - reference).max() > 0.01


def test_open_shell(triplet: Case) -> None:
    energy, occ, density = _solve(triplet)
    assert np.abs(energy - triplet.mf.mo_energy).max() < 1e-9
    assert occ.sum(axis=1).tolist() == [9, 7]
    assert np.trace(density.sum(axis=0) @ triplet.overlap) == pytest.approx(16)
    with pytest.raises(InputError, match="closed-shell"):
        properties.occupations(energy[0], 16, spin=2)


def test_residual_vanishes_only_at_self_consistency(closed: Case) -> None:
    mf, overlap = closed.mf, closed.overlap
    _, _, density = _solve(closed)
    assert properties.residual(closed.fock, density, overlap) < 1e-9
    start = mf.init_guess_by_minao()
    fock = to_house(np.asarray(mf.get_fock(dm=start)), closed.shells, "pyscf")
    assert properties.residual(fock, to_house(np.asarray(start), closed.shells, "pyscf"), overlap) > 0.1


def test_electrons_moved_counts_excitations(closed: Case) -> None:
    energy, coeff = properties.orbitals(closed.fock, closed.overlap)
    n = closed.mf.mol.nelectron // 2
    occ = properties.occupations(energy, 2 * n)
    ground = properties.density(coeff, occ)
    occ[[0, n + 1]] = occ[[n + 1, 0]]
    excited = properties.density(coeff, occ)
    assert properties.electrons_moved(ground, ground, closed.overlap) == 0
    assert properties.electrons_moved(ground, excited, closed.overlap) == pytest.approx(2)
    # The same two electrons, counted spin by spin: a closed shell is two equal spins.
    spins = [np.stack([d / 2, d / 2]) for d in (ground, excited)]
    assert properties.electrons_moved(*spins, closed.overlap) == pytest.approx(2)
    assert properties.electrons_moved(spins[0], np.stack([excited / 2, ground / 2]), closed.overlap) == (
        pytest.approx(1)
    )
    # The residual cannot tell: both densities commute with F.
    assert properties.residual(closed.fock, excited, closed.overlap) < 1e-9


def test_linear_dependence_is_left_out_and_said(closed: Case, caplog: pytest.LogCaptureFixture) -> None:
    # The last function twice: S is singular, and the true spectrum must come back.
    fock, overlap = (np.pad(m, (0, 1), mode="edge") for m in (closed.fock, closed.overlap))
    energy, coeff = properties.orbitals(fock, overlap)
    assert coeff.shape == (len(fock), len(fock) - 1)
    assert "left out 1 of" in caplog.text
    assert np.abs(energy - closed.mf.mo_energy).max() < 1e-8
    assert np.abs(coeff.T @ overlap @ coeff - np.eye(len(energy))).max() < 1e-8


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        properties.orbitals(np.full((2, 2), np.nan), np.eye(2))
    with pytest.raises(InputError, match="does not fit"):
        properties.orbitals(np.eye(3), np.eye(2))
    with pytest.raises(InputError, match="cannot have 1 unpaired"):
        properties.occupations(np.zeros(4), 2, spin=1)
    with pytest.raises(InputError, match="cannot hold"):
        properties.occupations(np.zeros(2), 6)


def test_all_orbitals_filled_has_no_gap() -> None:
    assert np.isnan(properties.gap(np.array([-1.0]), np.array([2.0])))


@pytest.mark.parametrize("dropped", [0, 1])
def test_orthonormal_directions_leave_out_those_that_depend_on_others(dropped):
    random = np.random.default_rng(2)
    values = np.append(random.uniform(0.01, 2.0, size=7), 1e-8 if dropped else 1e-4)
    vectors = np.linalg.qr(random.normal(size=(8, 8)))[0]
    overlap = (vectors * values) @ vectors.T
    found = properties.orthonormal(overlap)
    assert found.shape == (8, 8 - dropped)
    np.testing.assert_allclose(found.T @ overlap @ found, np.eye(8 - dropped), rtol=0, atol=1e-9)
