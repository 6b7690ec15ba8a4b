"""Charges, bonds, spins, moments of a prediction equal PySCF's at its density; planted faults are caught."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from pyscf import gto, lo, scf
from pyscf.lo import iao

from helmol import dft, properties
from helmol.basis import BasisSet
from helmol.errors import InputError
from helmol.predict import Prediction, make_prediction
from helmol.system import Molecule
from helmol.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU

# The density is that of a cheap Fock matrix: all that is compared is what follows from it.
LEVEL = dft.LevelConfig(xc="pbe", basis="def2-svp")
MOLECULES = {
    "ammonia": Molecule.from_angstrom(
        [7, 1, 1, 1], [[0.1, 0.2, -0.3], [0.8, 0.5, 0.3], [-0.7, 0.7, 0.2], [0.3, -0.7, 0.2]]
    ),
    # Iodine has an effective core potential.
    "iodomethane": Molecule.from_angstrom(
        [6, 53, 1, 1, 1], [[0, 0, 0.1], [0.2, 0, 2.2], [1, 0, -0.3], [-0.5, 0.9, -0.3], [-0.5, -0.9, -0.3]]
    ),
    "formate": Molecule.from_angstrom(
        [6, 8, 8, 1], [[5, 0, 0], [5.6, 1.1, 0], [5.6, -1.1, 0], [3.9, 0, 0]], charge=-1
    ),
    "methylamino": Molecule.from_angstrom(
        [6, 7, 1, 1, 1, 1],
        [[0, 0, 0], [1.44, 0, 0], [1.8, 0.9, 0.2], [-0.4, 1, 0], [-0.4, -0.5, 0.9], [-0.4, -0.5, -0.9]],
        spin=1,
    ),
    "hydrogen": Molecule.from_angstrom([1], [[0.3, 0, 0]], spin=1),
}


@cache
def predicted(name: str) -> Prediction:
    molecule = MOLECULES[name]
    mole = dft.build_mole(molecule, LEVEL)
    fock = dft.reference_fock(mole, LEVEL, "minao-lite")
    if molecule.spin:
        fock[0, 0, 0] -= 0.1  # two different spins
    return make_prediction(
        fock, molecule, basis=BasisSet.from_mole(mole, "def2-svp"), overlap=dft.overlap(mole),
        dipole_integrals=dft.dipole_integrals(mole),
        level=dft.level_of_theory(LEVEL, method="uks" if molecule.spin else "rks"), id=name,
    )  # fmt: skip


@pytest.fixture(params=MOLECULES)
def prediction(request: pytest.FixtureRequest) -> Prediction:
    return predicted(request.param)


def population(prediction: Prediction, mole, density, overlap) -> np.ndarray:
    """Return PySCF's Mulliken analysis."""
    module = scf.uhf if prediction.molecule.spin else scf.hf
    return module.mulliken_pop(mole, density, overlap, verbose=0)[1]


def test_charges(prediction: Prediction) -> None:
    mole, density, overlap = prediction.mole, prediction.density, prediction.overlap
    assert prediction.charges == pytest.approx(population(prediction, mole, density, overlap), abs=1e-8)
    inverse = np.linalg.inv(lo.orth.lowdin(prediction.overlap))
    found = population(prediction, mole, inverse @ density @ inverse.T, np.eye(len(overlap)))
    assert prediction.lowdin_charges == pytest.approx(found, abs=1e-8)
    for charges in (prediction.charges, prediction.lowdin_charges, prediction.iao_charges):
        assert charges.sum() == pytest.approx(prediction.molecule.charge, abs=1e-8)


@pytest.mark.filterwarnings("ignore:Since PySCF-2")
def test_charges_in_intrinsic_orbitals(prediction: Prediction) -> None:
    mole = prediction.mole
    spins = zip(
        prediction.mo_coeff.reshape(-1, *prediction.overlap.shape),
        np.atleast_2d(prediction.mo_occ),
        strict=True,
    )
    total = np.zeros(mole.natm)
    for coefficients, occupied in spins:
        orbitals = coefficients[:, occupied > 0]
        made = lo.vec_lowdin(iao.iao(mole, orbitals), prediction.overlap)
        density = (
            occupied.max() * orbitals @ orbitals.T if occupied.any() else np.zeros_like(prediction.overlap)
        )
        total += mole.atom_charges() - iao.fast_iao_mullikan_pop(mole, density, made, verbose=0)[1]
    assert prediction.iao_charges == pytest.approx(mole.atom_charges() - total, abs=1e-8)


def test_moments(prediction: Prediction) -> None:
    mole, density = prediction.mole, prediction.density
    dipole = scf.hf.dip_moment(mole, properties.total_density(density), unit="AU", verbose=0)
    assert prediction.dipole / DEBYE_PER_AU == pytest.approx(dipole, abs=1e-8)
    unit = DEBYE_PER_AU * ANGSTROM_PER_BOHR
    for origin in (np.zeros(3), np.array([0.5, -1.0, 2.0])):
        wanted = scf.hf.quad_moment(mole, density, unit="AU", origin=origin, verbose=0)
        found = prediction.quadrupole_about(origin) / unit
        assert found == pytest.approx(wanted, abs=1e-8)
        assert np.trace(found) == pytest.approx(0, abs=1e-10)
    assert prediction.quadrupole == pytest.approx(prediction.quadrupole_about([0, 0, 0]))


def test_bond_orders_follow_the_published_formula(prediction: Prediction) -> None:
    """Element by element, as the papers have it."""
    mole, overlap = prediction.mole, prediction.overlap
    spins = prediction.density if prediction.density.ndim == 3 else np.array([prediction.density / 2] * 2)
    root = np.linalg.inv(lo.orth.lowdin(prediction.overlap))
    slices = mole.aoslice_by_atom()[:, 2:]
    for a in range(mole.natm):
        for b in range(mole.natm):
            mayer = wiberg = 0.0
            for density in spins if a != b else ():
                product, orthogonal = density @ overlap, root @ density @ root.T
                for mu in range(*slices[a]):
                    for nu in range(*slices[b]):
                        mayer += 2 * product[mu, nu] * product[nu, mu]
                        wiberg += 2 * orthogonal[mu, nu] ** 2
            assert prediction.mayer_bond_orders[a, b] == pytest.approx(mayer, abs=1e-8)
            assert prediction.wiberg_bond_orders[a, b] == pytest.approx(wiberg, abs=1e-8)


def test_bond_orders_are_those_of_chemistry() -> None:
    found = predicted("ammonia")
    for orders in (found.mayer_bond_orders, found.wiberg_bond_orders):
        assert orders[0, 1:] == pytest.approx(1, abs=0.1)
        assert np.abs(orders[1:, 1:]).max() < 0.1
    carbon = predicted("formate").mayer_bond_orders[0]
    assert carbon[1] == pytest.approx(carbon[2], abs=1e-6)
    assert 1.2 < carbon[1] < 1.9


def test_spin_populations() -> None:
    found = predicted("methylamino")
    mole = found.mole
    difference = found.density[0] - found.density[1]
    electrons = mole.atom_charges() - scf.hf.mulliken_pop(mole, difference, found.overlap, verbose=0)[1]
    assert found.mulliken_spins == pytest.approx(electrons, abs=1e-8)
    spins = scf.uhf.mulliken_spin_pop(mole, found.density, found.overlap, verbose=0)[1]
    assert found.mulliken_spins == pytest.approx(spins, abs=1e-8)
    inverse = np.linalg.inv(lo.orth.lowdin(found.overlap))
    orthogonal = inverse @ difference @ inverse.T
    electrons = mole.atom_charges() - scf.hf.mulliken_pop(mole, orthogonal, np.eye(mole.nao), verbose=0)[1]
    assert found.lowdin_spins == pytest.approx(electrons, abs=1e-8)
    assert found.lowdin_spins.sum() == pytest.approx(1, abs=1e-8)
    with pytest.raises(InputError, match="restricted density has no spin density"):
        _ = predicted("ammonia").mulliken_spins


def test_a_wrong_number_of_core_electrons_or_another_order_of_orbitals_is_seen() -> None:
    found = predicted("iodomethane")
    wrong = replace(
        found, basis=BasisSet("x", {z: replace(e, core_electrons=0) for z, e in found.basis.elements.items()})
    )
    assert np.abs(wrong.lowdin_charges - found.lowdin_charges).max() > 1
    assert np.abs(wrong.quadrupole - found.quadrupole).max() > 1
    turned = replace(found, density=found.density[::-1, ::-1])
    assert np.abs(turned.mayer_bond_orders - found.mayer_bond_orders).max() > 0.1
    assert np.abs(turned.lowdin_charges - found.lowdin_charges).max() > 0.1


def test_an_atom_without_orbitals_has_none_of_the_electrons() -> None:
    density, overlap = np.diag([2.0, 0.0]), np.eye(2)
    offsets, charges = np.array([0, 0, 1, 2, 2]), np.zeros(4)
    found = properties.mulliken_charges(density, overlap, offsets=offsets, charges=charges)
    assert found.tolist() == [0, -2, 0, 0]
    assert properties.mayer_bond_orders(density, overlap, offsets=offsets).shape == (4, 4)


def test_a_nearly_dependent_basis() -> None:
    """Charges do not depend on a function that is there twice, up to the rounding that this costs."""
    found = predicted("ammonia")
    small = dft.minimal_basis(found.mole)
    occupied = found.mo_coeff[:, found.mo_occ > 0]
    plain = properties.intrinsic_orbitals(occupied, found.overlap, minimal=small.overlap, cross=small.cross)
    twice = properties.intrinsic_orbitals(
        np.pad(occupied, ((0, 1), (0, 0))), np.pad(found.overlap, (0, 1), mode="edge"),
        minimal=small.overlap, cross=np.pad(small.cross, ((0, 1), (0, 0)), mode="edge"),
    )  # fmt: skip
    inner = plain.T @ np.pad(found.overlap, ((0, 0), (0, 1)), mode="edge") @ twice
    assert np.abs(inner - np.eye(len(inner))).max() < 1e-6


def test_intrinsic_orbitals_that_pyscf_does_not_have_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="atomic orbitals of K: PySCF's minimal basis has no functions"):
        dft.minimal_basis(gto.M(atom="K", spin=1, basis="def2-svp", verbose=0))
    large_core = gto.M(atom="Br", spin=1, basis="stuttgart", ecp="stuttgart", verbose=0)
    with pytest.raises(InputError, match="of Br: PySCF's minimal basis has no core of 28 electrons"):
        dft.minimal_basis(large_core)


def test_without_pyscf_what_needs_no_integrals_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(predicted("ammonia"))
    monkeypatch.setitem(sys.modules, "helmol.dft", None)
    monkeypatch.delattr("helmol.dft")
    assert found.lowdin_charges.sum() == pytest.approx(0, abs=1e-8)
    assert found.mayer_bond_orders.shape == found.wiberg_bond_orders.shape == (4, 4)
    for name in ("iao_charges", "quadrupole", "mole"):
        with pytest.raises(InputError, match="needs PySCF"):
            getattr(found, name)


def test_a_prediction_of_helmol_0_1_says_what_it_lacks(tmp_path) -> None:
    found = replace(predicted("ammonia"), basis=None, level=None)
    found.save(tmp_path / "old.npz")
    back = Prediction.load(tmp_path / "old.npz")
    assert back.gap == found.gap
    for name in ("lowdin_charges", "mayer_bond_orders", "mole"):
        with pytest.raises(InputError, match="predict it again"):
            getattr(back, name)


def test_density_of_states() -> None:
    found = predicted("methylamino")
    energies = np.linspace(found.mo_energy.min() - 1, found.mo_energy.max() + 1, 40_001)
    total = properties.density_of_states(found.mo_energy, energies, width=0.01)
    assert total.shape == (2, len(energies))
    assert np.trapezoid(total, energies) == pytest.approx([found.mo_energy.shape[-1]] * 2, abs=1e-6)
    below = energies < (found.homo + found.lumo) / 2
    closed = predicted("ammonia")
    both = properties.density_of_states(closed.mo_energy, energies, width=1e-3)
    below = energies < (closed.homo + closed.lumo) / 2
    assert np.trapezoid(both[below], energies[below]) == pytest.approx(10, abs=1e-6)
    (level,) = properties.density_of_states(np.array([0.5]), np.array([0.51]), width=0.01)
    assert level == pytest.approx(2 * np.exp(-0.5) / (0.01 * np.sqrt(2 * np.pi)))
    with pytest.raises(InputError, match="width above 0"):
        properties.density_of_states(np.zeros(1), np.zeros(1), width=0.0)
