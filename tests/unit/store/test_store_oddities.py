from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helmol.basis import BasisSet, ElementBasis, to_house
from helmol.errors import InputError
from helmol.store.oddities import scf_state
from helmol.system import Matrices, Molecule, Sample

BASIS = BasisSet("toy", {1: ElementBasis((0,), 0, "h")})
MOLECULE = Molecule([1, 1], [[0, 0, 0], [0, 0, 2.0]])
OVERLAP, LOW, HIGH = np.eye(2), np.diag([-1.0, 0.5]), np.diag([1.0, 3.0])
SAMPLE = Sample("a", MOLECULE, Matrices(LOW, OVERLAP))


def with_matrices(*arguments, **options):
    return dataclasses.replace(SAMPLE, matrices=Matrices(*arguments, **options))


def test_gap_of_one_and_two_spins():
    assert scf_state(SAMPLE, BASIS).gap == pytest.approx(1.5)
    # beta HOMO (+1.0) above alpha LUMO (+0.5)
    inverted = with_matrices(np.stack([LOW, HIGH]), OVERLAP)
    state = scf_state(inverted, BASIS)
    assert state.gap == pytest.approx(-0.5)
    assert "negative gap" in state.oddities[0]
    assert scf_state(with_matrices(LOW), BASIS) is None
    triplet = Molecule([1, 1], [[0, 0, 0], [0, 0, 2.0]], spin=2)
    assert scf_state(dataclasses.replace(inverted, molecule=triplet), BASIS).gap == pytest.approx(0.5)


def test_a_nearly_dependent_basis_has_the_gap_of_the_independent_one():
    # The last function nearly twice: one direction of the basis counts for nothing.
    double = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0 + 1e-9]])
    fock, overlap = double.T @ LOW @ double, double.T @ double
    three = BasisSet("toy", {1: ElementBasis((0,), 0, "h"), 2: ElementBasis((0, 0), 0, "he")})
    cation = Molecule([1, 2], MOLECULE.positions, charge=1)
    sample = Sample("a", cation, Matrices(fock, overlap))
    assert scf_state(sample, three).gap == pytest.approx(1.5, abs=1e-6)


def test_an_overlap_that_cannot_be_one_is_refused():
    with pytest.raises(InputError, match="not positive definite"):
        scf_state(with_matrices(LOW, -OVERLAP), BASIS)


def test_one_matrix_of_an_open_shell():
    triplet = Molecule(MOLECULE.numbers, MOLECULE.positions, spin=2)
    state = scf_state(Sample("a", triplet, Matrices(np.diag([-1.0, 0.5]), OVERLAP)), BASIS)
    assert state.contamination is None
    assert state.gap == pytest.approx(-1.5)  # alpha: both filled, beta: none


def test_a_closed_shell_with_its_own_density_is_not_odd():
    state = scf_state(with_matrices(LOW, OVERLAP, density=np.diag([2.0, 0.0])), BASIS)
    assert state.moved == pytest.approx(0.0)
    assert state.contamination is None
    assert state.oddities == []


def test_an_excited_density_is_named():
    state = scf_state(with_matrices(LOW, OVERLAP, density=np.diag([0.0, 2.0])), BASIS)
    assert state.moved == pytest.approx(2.0)
    assert "not in the lowest orbitals" in state.oddities[0]


def test_spin_contamination_of_a_broken_symmetry_state():
    # Stretched H2: alpha on one atom, beta on the other; half singlet, half triplet.
    state = scf_state(with_matrices(np.stack([LOW, LOW[::-1, ::-1]]), OVERLAP), BASIS)
    assert state.contamination == pytest.approx(1.0)
    assert "spin contamination" in state.oddities[0]
    clean = scf_state(with_matrices(np.stack([LOW, LOW]), OVERLAP), BASIS)
    assert clean.contamination == pytest.approx(0.0)


def test_contamination_is_that_of_pyscf():
    from pyscf import gto, scf

    from helmol import dft

    mole = gto.M(atom="O 0 0 0; O 0 0 1.9", basis="sto-3g", spin=2, verbose=0)
    mf = scf.UHF(mole).run(conv_tol=1e-12)
    basis = BasisSet.from_mole(mole, "sto-3g")
    shells = dft.house_shells(mole)

    fock, overlap = (
        to_house((m + np.swapaxes(m, -1, -2)) / 2, shells, "pyscf") for m in (mf.get_fock(), mf.get_ovlp())
    )
    sample = Sample("o2", dft.molecule_from_mole(mole), Matrices(fock, overlap))
    expected, multiplicity = mf.spin_square()
    assert multiplicity > 3
    assert scf_state(sample, basis).contamination == pytest.approx(expected - 2.0, abs=1e-6)
