"""Shells read from PySCF: any basis, effective cores, general contractions; clear refusals."""

import pytest
from pyscf import gto

from helmol.basis import BasisSet, signature_nao
from helmol.errors import InputError


@pytest.mark.parametrize("basis", ["sto-3g", "def2-svp", "def2-tzvpd", "cc-pvqz", "ano"])
def test_orbitals_are_counted_as_pyscf_does(basis):
    mol = gto.M(atom="O 0 0 0; H 0 0 1; H 0 1 0", basis=basis, verbose=0)
    read = BasisSet.from_mole(mol, basis)
    assert read.offsets([8, 1, 1]).tolist() == [int(a[2]) for a in mol.aoslice_by_atom()] + [mol.nao]
    assert BasisSet.from_json(read.to_json()) == read


def test_effective_cores_count_and_change_the_hash():
    with_core = BasisSet.from_mole(
        gto.M(atom="Bi 0 0 0; H 0 0 1.8", basis="def2-svp", ecp="def2-svp", verbose=0), "x"
    )
    without = BasisSet.from_mole(gto.M(atom="Bi 0 0 0; H 0 0 1.8", basis="def2-svp", verbose=0), "x")
    assert with_core.elements[83].core_electrons == 60
    assert with_core.n_electrons([83, 1], 0) == 24
    assert without.n_electrons([83, 1], 0) == 84
    assert with_core.elements[83].hash != without.elements[83].hash
    assert with_core.elements[1] == without.elements[1]


def test_general_contractions_are_shells_of_their_own():
    read = BasisSet.from_mole(gto.M(atom="Ne", basis="ano", verbose=0), "ano")
    assert signature_nao(read.signature(10)) == gto.M(atom="Ne", basis="ano", verbose=0).nao


def test_the_hash_tells_functions_apart_not_names():
    one = BasisSet.from_mole(gto.M(atom="He", basis="def2-svp", verbose=0), "a")
    same = BasisSet.from_mole(gto.M(atom="He", basis="def2svp", verbose=0), "b")
    other = BasisSet.from_mole(gto.M(atom="He", basis="6-31g", verbose=0), "a")
    assert one.elements == same.elements
    assert one.elements != other.elements
    with pytest.raises(InputError, match="basis of He differs"):
        one.merged(other)


def test_refusals_are_clear():
    with pytest.raises(InputError, match="Cartesian"):
        BasisSet.from_mole(gto.M(atom="He", basis="def2-svp", cart=True, verbose=0), "x")
    mixed = gto.M(atom="H1 0 0 0; H2 0 0 1", basis={"H1": "sto-3g", "H2": "def2-svp"}, verbose=0)
    with pytest.raises(InputError, match="different basis sets"):
        BasisSet.from_mole(mixed, "x")
    ghost = gto.M(atom="He 0 0 0; ghost-He 0 0 2", basis="def2-svp", verbose=0)
    with pytest.raises(InputError, match="ghost"):
        BasisSet.from_mole(ghost, "x")
    helium = BasisSet.from_mole(gto.M(atom="He", basis="def2-svp", verbose=0), "def2-svp")
    with pytest.raises(InputError, match="element Ne is not in the basis"):
        helium.signature(10)
