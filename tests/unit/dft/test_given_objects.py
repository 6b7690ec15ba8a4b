"""What a user's PySCF objects state: read as it is meant, or refused by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pyscf import dft as pyscf_dft
from pyscf import gto, qmmm, scf
from pyscf.pbc import gto as pbc_gto

from helmol import dft
from helmol.errors import InputError

ATOMS = "O 0 0 0.119; H 0 0.763 -0.477; H 0 -0.763 -0.477"
LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp", grid_level=0)


def water(**settings: object) -> gto.Mole:
    return gto.M(**{"atom": ATOMS, "basis": "def2-svp", "verbose": 0, **settings})


def fractional(mol: gto.Mole) -> gto.Mole:
    """Give the first nucleus the charge 7.5, as PySCF does for embedding charges."""
    mol._env = np.append(mol._env, 7.5)
    mol._atm[0, gto.NUC_MOD_OF], mol._atm[0, gto.PTR_FRAC_CHARGE] = gto.NUC_FRAC_CHARGE, len(mol._env) - 1
    return mol


def alchemical(mol: gto.Mole) -> gto.Mole:
    mol._atm[0, gto.CHARGE_OF] = 9
    return mol


def ranged(mol: gto.Mole) -> gto.Mole:
    mol.set_range_coulomb(0.3)
    return mol


def fewer(mol: gto.Mole) -> gto.Mole:
    mol.nelectron = 8
    return mol


def cell() -> gto.Mole:
    return pbc_gto.M(atom=ATOMS, basis="def2-svp", a=5 * np.eye(3), verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (cell, "periodic"),
        (lambda: water(atom=ATOMS + "; ghost-H 0 0 3"), "atom 4 of the gto.Mole is a ghost atom"),
        (lambda: water(atom=ATOMS + "; X-H 0 0 3"), "ghost atom"),
        (lambda: water(nucmod="G"), r"atom 1 \(O\) of the gto.Mole has a nucleus of finite size"),
        (lambda: fractional(water()), r"atom 1 \(O\) of the gto.Mole has the nuclear charge 7.5, not 8"),
        (lambda: alchemical(water()), r"has the nuclear charge 9, not 8"),
        (lambda: ranged(water()), r"range-separated Coulomb operator \(mol.omega = 0.3\)"),
        (lambda: fewer(water()), "given 8 electrons, its nuclei and charge 0 make 10"),
        (lambda: water(basis="gth-szv", pseudo="gth-pade"), r"GTH pseudopotentials \(H, O\)"),
        (lambda: gto.Mole(atom=ATOMS), "not built"),
    ],
)
def test_a_mole_that_is_no_molecule_in_vacuum(make: Callable[[], gto.Mole], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dft.molecule_from_mole(make())


def test_a_mole_is_read_with_what_it_states() -> None:
    molecule = dft.molecule_from_mole(water(charge=1, spin=1))
    assert (molecule.charge, molecule.spin, molecule.formula) == (1, 1, "H2O")
    labelled = water(atom="O1 0 0 0; H2 0 0 1.8; H3 1.8 0 0", unit="Bohr")
    assert dft.molecule_from_mole(labelled).positions[1, 2] == pytest.approx(1.8)
    iodine = gto.M(atom="I 0 0 0; H 0 0 1.6", basis="def2-svp", ecp="def2-svp", verbose=0)
    assert dft.molecule_from_mole(iodine).numbers.tolist() == [53, 1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, None),
        ({"basis": "sto-3g"}, r"atom 1 (O) has the shells ssp, def2-svp has sssppd"),
        ({"basis": "cc-pvdz"}, "atom 1 (O) has the shells of def2-svp with other exponents or coefficients"),
        ({"basis": {"O": "def2-svp", "H": "sto-3g"}}, "atom 2 (H) has the shells s, def2-svp has ssp"),
        ({"cart": True}, "it has Cartesian functions (mol.cart=True), spherical ones are wanted"),
        (
            {"atom": "I 0 0 0; H 0 0 1.6"},
            "atom 1 (I) has no effective core potential, the model's level has def2-svp for it",
        ),
        (
            {"atom": "I 0 0 0; H 0 0 1.6", "ecp": {"I": "lanl2dz"}},
            "atom 1 (I) has another effective core potential than def2-svp",
        ),
        (
            {"atom": "H 0 0 0; Cl 0 0 1.3", "ecp": {"Cl": "lanl2dz"}},
            "atom 2 (Cl) has an effective core potential, the model's level has none for it",
        ),
    ],
)
def test_the_difference_of_a_basis_is_said_in_words(settings: dict[str, object], words: str | None) -> None:
    assert dft.other_functions(water(**settings), LEVEL) == words


def hartree_fock() -> scf.hf.RHF:
    """Return RHF without PySCF's temporary checkpoint, whose late closing is a warning."""
    mf = scf.RHF(water())
    mf._chkfile.close()
    return mf.set(chkfile=None)


def mean_field(**settings: object) -> pyscf_dft.rks.RKS:
    return dft.mean_field(water(), LEVEL).set(**settings)


def own_functional(mf: pyscf_dft.rks.RKS) -> pyscf_dft.rks.RKS:
    return mf.define_xc_(
        lambda code, rho, *_, **__: (0.01 * rho**2, (0.03 * rho**2, *[None] * 3), None, None)
    )


def omega(mf: pyscf_dft.rks.RKS) -> pyscf_dft.rks.RKS:
    mf.omega = 0.2
    return mf


@pytest.mark.parametrize(
    ("make", "xc", "words"),
    [
        (mean_field, "pbe", None),
        (lambda: mean_field(xc="PBE,PBE"), "pbe", None),
        (hartree_fock, "hf", None),
        (lambda: mean_field(xc="pbe0"), "pbe", "the functional PBE0 (it has learnt PBE)"),
        (lambda: own_functional(mean_field()), "pbe", "define_xc_"),
        (lambda: mean_field(nlc="vv10"), "pbe", "mf.nlc = 'vv10' (which is not what PBE stands for)"),
        (lambda: mean_field(xc="wb97m_v", nlc=0), "wb97m_v", "mf.nlc = 0"),
        (lambda: mean_field(xc="wb97m_v"), "wb97m_v", None),
        (lambda: omega(mean_field(xc="camb3lyp")), "camb3lyp", "mf.omega = 0.2 (CAMB3LYP has 0.33"),
    ],
)
def test_another_functional_under_the_same_name(
    make: Callable[[], pyscf_dft.rks.RKS], xc: str, words: str | None
) -> None:
    level = dft.level_of_theory(LEVEL.model_copy(update={"xc": xc}), method="rks")
    found = dft.other_functional(make(), level)
    assert found is None if words is None else words in str(found)


def in_a_field(mf: pyscf_dft.rks.RKS) -> pyscf_dft.rks.RKS:
    core = mf.get_hcore() + 0.01 * mf.mol.intor("int1e_r")[2]
    mf.get_hcore = lambda *_: core
    return mf


def with_own_potential(mf: pyscf_dft.rks.RKS) -> pyscf_dft.rks.RKS:
    # A bound method would be a cycle, and PySCF's checkpoint a warning when that is collected.
    mf.get_veff = lambda *_, **__: 0.0
    return mf


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda mf: mf, []),
        (lambda mf: mf.density_fit(), []),
        (lambda mf: mf.PCM(), ["a solvent (PCM)"]),
        (lambda mf: qmmm.mm_charge(mf, [(3.0, 0, 0)], [0.5]), ["1 point charges"]),
        (lambda mf: mf.x2c(), ["relativistic terms (X2C)"]),
        (in_a_field, ["a core Hamiltonian of its own (an external field? it differs by up to"]),
        (with_own_potential, ["its own get_veff"]),
        (lambda mf: in_a_field(qmmm.mm_charge(mf, [(3.0, 0, 0)], [0.5])), ["1 point charges", "a core Ham"]),
    ],
)
def test_what_acts_besides_the_molecule(
    make: Callable[[pyscf_dft.rks.RKS], pyscf_dft.rks.RKS], words: list[str]
) -> None:
    mf = make(mean_field())
    found = dft.beyond_the_molecule(mf, mf.mol)
    assert len(found) == len(words)
    assert all(text.startswith(start) for text, start in zip(found, words, strict=True))
    assert not dft.has_own_overlap(mf, mf.mol)


def test_an_overlap_of_its_own() -> None:
    mf = mean_field()
    overlap = mf.get_ovlp() + 1e-3
    mf.get_ovlp = lambda *_: overlap
    assert dft.has_own_overlap(mf, mf.mol)
