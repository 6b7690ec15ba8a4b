"""The reference ``minao-lite`` is what its formula says, in every basis, and turns with the molecule."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pyscf import df, gto
from pyscf.data.radii import COVALENT
from pyscf.dft import gen_grid, libxc, numint
from scipy.linalg import block_diag

from helmol import dft
from helmol.basis import wigner_d
from helmol.dft import LevelConfig, gaussian_field, xc_field
from helmol.dft.atoms import TABLE, exponents, spherical_atom
from helmol.dft.integrals import house, house_shells
from helmol.dft.lite import charge_potential, minao_lite, superposed_atoms, superposed_field
from helmol.errors import InputError
from helmol.system import Molecule

ETHANOL = (
    [6, 6, 8, 1, 1, 1, 1, 1, 1],
    [
        [2.37, -0.46, 0.02], [0.03, 1.04, -0.03], [-1.98, -0.75, 0.01], [2.47, -1.69, 1.69],
        [2.49, -1.75, -1.62],
        [3.98, 0.86, 0.0], [-0.1, 2.27, 1.64], [-0.11, 2.24, -1.72], [-3.55, 0.2, 0.07],
    ],
)  # fmt: skip
MIXED = ([6, 35, 53, 15, 1, 1, 1], [
    [0, 0, 0], [3.6, 0, 0], [-1.3, 3.8, 0.2], [-1.1, -2.0, 3.0], [-1.0, -1.1, -1.6],
    [1.0, -3.0, 4.0], [-3.6, -2.4, 2.6],
])  # fmt: skip


def mole_of(molecule, basis="def2-svp", **level):
    numbers, positions = molecule[:2]
    return dft.build_mole(
        Molecule(numbers, positions, **(molecule[2] if molecule[2:] else {})),
        LevelConfig(basis=basis, **level),
    )


def without_compiler(monkeypatch):
    for module in (gaussian_field, xc_field):
        monkeypatch.setattr(module, "library_of_atoms", lambda: None)


def exact_field(mole):
    """Return nuclei and electrons of the atoms ``[nao, nao]`` by PySCF's integrals of charges."""
    matrix = mole.intor("int1e_nuc")
    for place, atom in zip(*superposed_atoms(mole), strict=True):
        for alpha, c in zip(exponents(len(atom.density)), atom.density, strict=True):
            if c:
                charge = gto.fakemol_for_charges(place[None], expnt=alpha)
                matrix += c * (np.pi / alpha) ** 1.5 * df.incore.aux_e2(mole, charge, "int3c2e")[:, :, 0]
    return matrix


def exact_xc(mole, xc):
    """Return the matrix of the functional's potential at the sum of the atoms' densities, on a fine grid."""
    grids = gen_grid.Grids(mole)
    grids.level = 5
    grids.build()
    rho = np.zeros((4, len(grids.coords)))
    for place, atom in zip(*superposed_atoms(mole), strict=True):
        r = (grids.coords - place).T
        terms = np.array(atom.density)[:, None] * np.exp(
            -np.outer(exponents(len(atom.density)), np.sum(r**2, axis=0))
        )
        rho[0] += terms.sum(axis=0)
        rho[1:] += -2 * (exponents(len(atom.density)) @ terms) * r
    rho[0] = np.maximum(rho[0], 0)
    values = numint.eval_ao(mole, grids.coords, deriv=1)
    weights = libxc.eval_xc(xc, rho, deriv=1)[1]
    half = 0.5 * weights[0] * grids.weights * (rho[0] > 1e-10)
    matrix = values[0].T @ (half[:, None] * values[0])
    sigma = 2 * weights[1] * grids.weights * (rho[0] > 1e-10)
    matrix += values[0].T @ sum((sigma * rho[k])[:, None] * values[k] for k in (1, 2, 3))
    return matrix + matrix.T


def test_atoms_of_the_table_have_all_their_electrons():
    table = json.loads(TABLE.read_text())
    assert len(table) == 86
    wrong = {}
    for z, by_core in table.items():
        for core, density in by_core.items():
            charge = np.sum(np.array(density) * (np.pi / exponents(len(density))) ** 1.5)
            if abs(charge - int(z) + int(core)) > 1e-8:
                wrong[z, core] = charge
    assert wrong == {}


@pytest.mark.parametrize(
    ("number", "basis"), [(1, "def2-svp"), (8, "def2-svp"), (35, "def2-svp"), (53, "def2-svp")]
)
def test_an_atom_is_neutral_seen_from_afar_and_its_potential_that_of_its_charges(number, basis):
    mole = mole_of(([number], [[0, 0, 0]], {"spin": number % 2}), basis)
    atom = spherical_atom(mole, 0)
    # A narrow test charge beside the atom feels what the integrals of charges say.
    probe = gto.M(atom="ghost-H 0 0 1.5", basis={"ghost-H": [[0, [3.0, 1.0]]]}, unit="Bohr", verbose=0)
    both = gto.conc_mol(probe, mole)
    exact = exact_field(both)[0, 0]
    field = gaussian_field.GaussianField(
        np.zeros((1, 3)), atom.potential[None], np.zeros((1, len(atom.potential), 3))
    )
    assert field.matrix(probe)[0, 0] == pytest.approx(exact, abs=2e-4 * number**0.5)
    assert abs(np.exp(-exponents(len(atom.potential)) * 15.0**2) @ atom.potential) < 1e-6


def test_the_matrix_is_the_field_of_the_atoms_and_the_potential_of_their_density():
    mole = mole_of(ETHANOL)
    kinetic = mole.intor("int1e_kin")
    found = minao_lite(mole, "pbe") - kinetic
    exact = exact_field(mole) + exact_xc(mole, "pbe")
    assert np.abs(found - exact).mean() < 600e-6
    # Not by being small: either part alone is far away.
    assert np.abs(exact_field(mole) - found).mean() > 20e-3


@pytest.mark.parametrize("basis", ["def2-svp", "def2-tzvpd", "sto-3g", "cc-pvqz"])
def test_kernel_and_pyscf_agree_with_and_without_core_potentials(basis, monkeypatch):
    if gaussian_field.library_of_atoms() is None:
        pytest.skip("no compiler")
    mole = mole_of(MIXED if basis.startswith("def2") else ETHANOL, basis)
    found = minao_lite(mole, "pbe")
    assert np.array_equal(found, found.T)
    without_compiler(monkeypatch)
    np.testing.assert_allclose(found, minao_lite(mole, "pbe"), rtol=0, atol=2e-7)


def test_cartesian_functions_have_a_matrix_too():
    numbers, positions = ETHANOL
    atom = list(zip(numbers, positions, strict=True))
    spherical, cartesian = (
        gto.M(atom=atom, unit="Bohr", basis="6-31g*", cart=cart, verbose=0) for cart in (False, True)
    )
    transform = cartesian.cart2sph_coeff()
    found = transform.T @ minao_lite(cartesian, "pbe") @ transform
    np.testing.assert_allclose(found, minao_lite(spherical, "pbe"), rtol=0, atol=5e-8)


def test_it_turns_with_the_molecule_but_for_the_points_of_the_fit():
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    numbers, positions = ETHANOL
    moles = [mole_of((numbers, p)) for p in (np.array(positions), np.array(positions) @ rotation.T)]
    first, second = (house(minao_lite(mole, "pbe"), mole) for mole in moles)
    turned = block_diag(*[wigner_d(l, rotation) for l in house_shells(moles[0])])
    noise = np.abs(turned @ first @ turned.T - second)
    # The points lie on spheres that do not turn. A thousandth of what H₀ is off.
    assert noise.mean() < 3e-6
    assert noise.max() < 1e-4


def test_order_and_place_do_not_matter_and_far_molecules_do_not_meet():
    numbers, positions = np.array(ETHANOL[0]), np.array(ETHANOL[1])
    order = np.random.default_rng(0).permutation(len(numbers))
    moles = [mole_of((numbers, positions)), mole_of((numbers[order], positions[order] + [1.0, -2.0, 0.5]))]
    slices = [mole.aoslice_by_atom()[:, 2:] for mole in moles]
    rows = np.concatenate([np.arange(*slices[0][k]) for k in order])
    first, second = (minao_lite(mole, "pbe") for mole in moles)
    np.testing.assert_allclose(first[np.ix_(rows, rows)], second, rtol=0, atol=1e-9)
    n, far = len(first), [80.0, 0, 0]
    both = minao_lite(mole_of((np.tile(numbers, 2), np.concatenate([positions, positions + far]))), "pbe")
    np.testing.assert_allclose(both, block_diag(first, first), rtol=0, atol=1e-9)
    assert both.shape == (2 * n, 2 * n)


@pytest.mark.parametrize(
    ("xc", "stands"),
    [("pbe", "pbe"), ("lda,vwn", "lda,vwn"), ("b3lyp", "pbe"), ("hf", "pbe"), ("scan", "pbe"),
     ("wb97x-v", "pbe"), ("b97m-v", "pbe"), ("blyp", "blyp"), ("tpss", "pbe"), ("hse06", "pbe")],
)  # fmt: skip
def test_functionals_without_a_potential_in_space_have_that_of_pbe(xc, stands):
    assert xc_field.stand_in(xc) == stands
    mole = mole_of(([8, 1, 1], [[0, 0, 0], [0, 1.4, 1.1], [0, -1.4, 1.1]]))
    assert np.array_equal(minao_lite(mole, xc), minao_lite(mole, stands))


def test_it_is_as_near_to_the_fock_matrix_as_minao():
    sample, _ = dft.run(
        Molecule(*ETHANOL),
        LevelConfig(grid_level=1, conv_tol=1e-8, density_fit=True),
        id="e",
        references=("minao", "minao-lite"),
    )
    error = {n: np.abs(m - sample.matrices.fock).mean() for n, m in sample.matrices.references.items()}
    assert error["minao-lite"] < 1.3 * error["minao"]


@pytest.mark.parametrize(
    ("name", "other", "apart"), [("minao-lite", "sap", 1e-13), ("minao-hartree", "minao-df", 1e-10)]
)
def test_spins_get_the_same_matrix_and_a_mean_field_is_not_needed(name, other, apart):
    radical = Molecule([7, 1, 1], [[0, 0, 0], [0, 1.5, 1.2], [0, -1.5, 1.2]], spin=1)
    level = LevelConfig()
    mole = dft.build_mole(radical, level)
    both = dft.reference_fock(mole, level, name)
    assert both.shape == (2, mole.nao, mole.nao)
    assert np.array_equal(both[0], both[1])
    assert np.array_equal(both[0], both[0].T)
    beside = dft.reference_focks(mole, level, [name, other])[name]
    np.testing.assert_allclose(both, beside, rtol=0, atol=apart)


@pytest.mark.parametrize("charge", [-1, 1, 2])
def test_the_charge_of_an_ion_is_spread_over_its_atoms(charge):
    ion = (*MIXED, {"charge": charge, "spin": charge % 2})
    mole, neutral = mole_of(ion), mole_of(MIXED)
    change = minao_lite(mole, "pbe") - minao_lite(neutral, "pbe")
    radii = np.array([COVALENT[z] for z in MIXED[0]])
    shares = radii**2 / np.sum(radii**2)
    exact = np.zeros_like(change)
    for place, radius, share in zip(mole.atom_coords(), radii, shares, strict=True):
        spread = gto.fakemol_for_charges(place[None], expnt=0.25 / radius**2)
        exact -= charge * share * df.incore.aux_e2(mole, spread, "int3c2e")[:, :, 0]
    np.testing.assert_allclose(change, exact, rtol=0, atol=1e-12)


def test_ghosts_have_neither_nucleus_nor_charge():
    alone = gto.M(atom="O 0 0 0; H 0 0 1", basis="def2-svp", charge=-1, verbose=0)
    beside = gto.M(atom="ghost-O 0 1 0; O 0 0 0; H 0 0 1", basis="def2-svp", charge=-1, verbose=0)
    n = int(alone.nao)
    np.testing.assert_allclose(
        minao_lite(beside, "pbe")[-n:, -n:], minao_lite(alone, "pbe"), rtol=0, atol=1e-13
    )


def test_ions_start_nearer():
    level = LevelConfig(grid_level=1, conv_tol=1e-8, density_fit=True)
    ammonium = Molecule(
        [7, 1, 1, 1, 1],
        [[0, 0, 0], [1.1, 1.1, 1.1], [-1.1, -1.1, 1.1], [-1.1, 1.1, -1.1], [1.1, -1.1, -1.1]],
        charge=1,
    )
    sample, _ = dft.run(ammonium, level, id="n", references=("minao-lite", "minao"))
    mole = dft.build_mole(ammonium, level)
    error = np.abs(sample.matrices.references["minao-lite"] - sample.matrices.fock).mean()
    bare = house(minao_lite(mole, "pbe") - charge_potential(mole), mole)
    assert error < 0.6 * np.abs(bare - sample.matrices.fock).mean()
    assert error < np.abs(sample.matrices.references["minao"] - sample.matrices.fock).mean()


def test_elements_beyond_the_table_are_computed_and_hopeless_ones_refused():
    known = mole_of(([53], [[0, 0, 0]], {"spin": 1}))
    fitted = spherical_atom(known, 0)
    assert fitted.charge == 25
    # A core that no table has: iodine with the 46 electrons of another potential.
    other = gto.M(atom="I", basis="lanl2dz", ecp="lanl2dz", spin=1, verbose=0)
    computed = spherical_atom(other, 0)
    assert computed.charge == 7
    total = np.sum(np.array(computed.density) * (np.pi / exponents(len(computed.density))) ** 1.5)
    assert total == pytest.approx(7, abs=1e-8)
    assert np.isfinite(superposed_field(other, "pbe").matrix(other)).all()
    with pytest.raises(InputError, match="no atomic density"):
        spherical_atom(gto.M(atom="U", basis={"U": [[0, [1.0, 1.0]]]}, spin=None, verbose=0), 0)
