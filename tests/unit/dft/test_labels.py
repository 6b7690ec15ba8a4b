"""Labels: what PySCF gives is checked, kept whole, and faults are caught."""

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.transform import Rotation

from helmol import dft
from helmol.basis import BasisSet, from_house, to_house
from helmol.dft import LevelConfig
from helmol.dft.field import keep_fitted_integrals
from helmol.errors import ConvergenceError, InputError
from helmol.system import Molecule, Sample

WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0.1, -0.76, 0.59]])
LEVEL = LevelConfig(grid_level=1)


@pytest.fixture(scope="module")
def water() -> tuple[Sample, BasisSet]:
    return dft.run(
        WATER, LEVEL, id="w", forces=True, references=("minao", "sap"), density=True, provenance={"frame": 3}
    )


def test_sample_is_complete(water: tuple[Sample, BasisSet]) -> None:
    sample, basis = water
    matrices = sample.matrices
    assert sample.id == "w"
    assert matrices.nao == basis.offsets(WATER.numbers)[-1] == 24
    assert set(matrices.references) == {"minao", "sap"}
    assert sample.provenance["frame"] == 3
    assert sample.provenance["n_cycles"] > 3
    every = [matrices.fock, matrices.overlap, matrices.density, *matrices.references.values()]
    for matrix in every:
        assert np.array_equal(matrix, matrix.T)
    assert abs(np.sum(matrices.density * matrices.overlap) - 10) < 1e-9


def test_labels_are_those_of_plain_pyscf(water: tuple[Sample, BasisSet]) -> None:
    from pyscf import dft as pyscf_dft
    from pyscf import gto

    sample, _ = water
    mol = gto.M(
        atom=[("O" if n == 8 else "H", r) for n, r in zip(WATER.numbers, WATER.positions_ang, strict=True)],
        basis="def2-svp",
        verbose=0,
    )
    mf = pyscf_dft.RKS(mol, xc="pbe")
    mf.grids.level, mf.conv_tol = 1, 1e-10
    energy = mf.kernel()
    p = {"x": 2, "y": 0, "z": 1}
    labels = [label.split() for label in mol.ao_labels()]
    order = list(range(24))
    for k, (_, _, shell) in enumerate(labels):
        if "p" in shell:
            order[k - "xyz".index(shell[-1]) + p[shell[-1]]] = k
    assert abs(energy - sample.energy) < 1e-9
    assert np.abs(mf.get_fock()[np.ix_(order, order)] - sample.matrices.fock).max() < 1e-6
    assert np.abs(mf.dip_moment(unit="AU", verbose=0) - sample.dipole).max() < 1e-5
    assert np.abs(-mf.nuc_grad_method().kernel() - sample.forces).max() < 1e-5


def test_forces_are_the_derivative_of_the_energy() -> None:
    level = LevelConfig(xc="hf", basis="sto-3g")
    sample, _ = dft.run(WATER, level, id="w", forces=True, references=())
    step, energies = 1e-3, []
    for sign in (1, -1):
        moved = WATER.positions.copy()
        moved[1, 2] += sign * step
        energies.append(dft.run(Molecule(WATER.numbers, moved), level, id="m", references=())[0].energy)
    numeric = -(energies[0] - energies[1]) / (2 * step)
    assert abs(sample.forces[1, 2] - numeric) < 1e-6


def test_reference_alone_is_the_reference_of_the_sample(water: tuple[Sample, BasisSet]) -> None:
    mole = dft.build_mole(WATER, LEVEL)
    for name, matrix in water[0].matrices.references.items():
        assert np.abs(dft.reference_fock(mole, LEVEL, name) - matrix).max() < 1e-11
    with pytest.raises(InputError, match="unknown reference"):
        dft.reference_fock(mole, LEVEL, "nosuch")


@pytest.mark.parametrize(
    ("molecule", "level"),
    [
        (Molecule(WATER.numbers, WATER.positions, charge=1, spin=1), {"density_fit": True, "method": "uks"}),
        (
            Molecule.from_angstrom([53, 1], [[0, 0, 0], [0.1, 0, 1.6]]),
            {"density_fit": True, "basis": "def2-svp"},
        ),
        (Molecule(WATER.numbers[:2], WATER.positions[:2], charge=-1), {"xc": "pbe0"}),
    ],
)
def test_reference_at_prediction_is_that_of_the_label_to_the_last_bit(
    molecule: Molecule, level: dict
) -> None:
    given = LevelConfig(**{"basis": "sto-3g", "grid_level": 0, "conv_tol": 1e-6} | level)
    names = [name for name in dft.FOCK_BUILDS if name != "sap" or 53 not in molecule.numbers]
    sample, _ = dft.run(molecule, given, id="x", references=names)
    stored = dft.level_of_theory(given, method=dft.method_for(given, molecule.spin))
    again = dft.level_from(type(stored).from_json(stored.to_json()))
    for name in names:
        alone = dft.reference_fock(dft.build_mole(molecule, again), again, name)
        assert np.array_equal(alone, sample.matrices.references[name]), name


def test_sap_refuses_core_potentials() -> None:
    mole = dft.build_mole(Molecule.from_angstrom([53, 1], [[0, 0, 0], [0, 0, 1.6]]), LEVEL)
    with pytest.raises(InputError, match="ECP"):
        dft.reference_fock(mole, LEVEL, "sap")


def test_minao_step_is_nearer_turns_with_the_molecule_and_follows_its_formula() -> None:
    sample, _ = dft.run(WATER, LEVEL, id="w", references=("minao", "minao-step"))
    minao, step = sample.matrices.references["minao"], sample.matrices.references["minao-step"]
    fock = sample.matrices.fock
    assert np.abs(step - fock).mean() < 0.4 * np.abs(minao - fock).mean()
    # Half the density of the orbitals of the cheap Fock matrix, half the minao density.
    mole = dft.build_mole(WATER, LEVEL)
    mf = dft.mean_field(mole, LEVEL)
    shells = dft.house_shells(mole)
    coarse = from_house(dft.reference_fock(mole, LEVEL, "minao-df"), shells, "pyscf")
    _, coefficients = scipy.linalg.eigh(coarse, mole.intor_symmetric("int1e_ovlp"))
    occupied = coefficients[:, : mole.nelectron // 2]
    mixed = occupied @ occupied.T + 0.5 * mf.init_guess_by_minao()
    built = to_house(np.asarray(mf.get_fock(dm=mixed)), shells, "pyscf")
    np.testing.assert_allclose(built, step, atol=1e-8)
    turned = Molecule(WATER.numbers, WATER.positions @ Rotation.random(random_state=1).as_matrix())
    other = dft.reference_fock(dft.build_mole(turned, LEVEL), LEVEL, "minao-step")
    overlaps = [dft.overlap(dft.build_mole(molecule, LEVEL)) for molecule in (WATER, turned)]
    energies = [
        scipy.linalg.eigh(*pair, eigvals_only=True) for pair in zip((step, other), overlaps, strict=True)
    ]
    # The grids do not turn with the molecule.
    assert np.abs(energies[0] - energies[1]).max() < 1e-4


def test_unrestricted_open_shell() -> None:
    radical = Molecule.from_angstrom([8, 1], [[0, 0, 0], [0, 0, 0.97]], spin=1)
    sample, _ = dft.run(radical, LEVEL, id="oh", references=("minao", "sap"), density=True)
    assert sample.matrices.fock.shape == (2, 19, 19)
    electrons = np.sum(sample.matrices.density * sample.matrices.overlap, axis=(1, 2))
    assert np.allclose(electrons, [5, 4], atol=1e-9)
    for matrix in sample.matrices.references.values():
        assert np.array_equal(matrix[0], matrix[1])
    closed, _ = dft.run(WATER, LEVEL, id="w")
    both, _ = dft.run(WATER, LEVEL.model_copy(update={"method": "uks"}), id="w")
    assert np.abs(both.matrices.fock - closed.matrices.fock).max() < 1e-5


def test_density_fitting_is_close_to_exact(water: tuple[Sample, BasisSet]) -> None:
    fitted, _ = dft.run(WATER, LEVEL.model_copy(update={"density_fit": True}), id="w")
    assert 1e-7 < abs(fitted.energy - water[0].energy) < 1e-4


def test_fitted_integrals_are_kept_where_they_fit_and_change_nothing() -> None:
    config = LEVEL.model_copy(update={"density_fit": True})
    kept, not_kept = (dft.mean_field(dft.build_mole(WATER, config), config) for _ in range(2))
    keep_fitted_integrals(kept, config)
    keep_fitted_integrals(not_kept, config.model_copy(update={"max_memory_mb": 100e-6}))
    assert kept.with_df._cderi is not None
    assert not_kept.with_df._cderi is None
    assert abs(kept.kernel() - not_kept.kernel()) < 1e-10


def test_what_does_not_converge_is_no_label() -> None:
    with pytest.raises(ConvergenceError, match="3 cycles"):
        dft.run(WATER, LEVEL.model_copy(update={"max_cycle": 3}), id="w")


def test_no_electrons() -> None:
    with pytest.raises(InputError, match="no electrons"):
        dft.run(Molecule(np.array([1]), np.zeros((1, 3)), charge=1), LEVEL, id="proton")


def _labels() -> dict[str, object]:
    level = LevelConfig(xc="hf", basis="sto-3g")
    mole = dft.build_mole(WATER, level)
    mf = dft.mean_field(mole, level)
    mf.kernel()
    return {
        "converged": bool(mf.converged),
        "fock": mf.get_fock(),
        "overlap": mf.get_ovlp(),
        "density": mf.make_rdm1(),
        "mo_energy": mf.mo_energy,
        "n_electrons": 10,
        "tolerance": level.gradient_tolerance,
    }


def _mixed(labels: dict[str, np.ndarray]) -> np.ndarray:
    """Return a density of the right size, with a little of the LUMO in the HOMO."""
    _, orbitals = scipy.linalg.eigh(labels["fock"], labels["overlap"])
    orbitals[:, 4] = np.cos(0.01) * orbitals[:, 4] + np.sin(0.01) * orbitals[:, 5]
    return 2 * orbitals[:, :5] @ orbitals[:, :5].T


FAULTS = {
    "converge": lambda d: {"converged": False},
    "finite": lambda d: {"fock": np.where(np.eye(7), np.nan, d["fock"])},
    "Fᵀ": lambda d: {"fock": d["fock"] + 1e-6 * np.triu(np.ones((7, 7)), 1)},
    "electrons": lambda d: {"density": 1.001 * d["density"]},
    "linearly dependent": lambda d: {"mo_energy": d["mo_energy"][:-1]},
    "orbital energies": lambda d: {"fock": d["fock"] + 1e-3 * np.eye(7)},
    "FDS - SDF": lambda d: {"density": _mixed(d)},
}


def test_sound_labels_pass() -> None:
    dft.check_labels(**_labels())


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault: str) -> None:
    labels = _labels()
    with pytest.raises(ConvergenceError, match=fault):
        dft.check_labels(**{**labels, **FAULTS[fault](labels)})


def test_cheap_forms_of_minao_are_near_it_and_leave_the_labels_alone() -> None:
    names = ("minao-coarse", "minao-df", "minao")
    cheap, _ = dft.run(WATER, LEVEL, id="w", references=names)
    plain, _ = dft.run(WATER, LEVEL, id="w", references=("minao",))
    mole = dft.build_mole(WATER, LEVEL)
    for name, distance in (("minao-df", 1e-5), ("minao-coarse", 1e-4)):
        there = np.abs(cheap.matrices.references[name] - cheap.matrices.references["minao"]).mean()
        assert 1e-9 < there < distance
        again = dft.reference_fock(mole, LEVEL, name)
        np.testing.assert_allclose(again, cheap.matrices.references[name], atol=1e-10)
    np.testing.assert_allclose(cheap.matrices.fock, plain.matrices.fock, atol=1e-9)
