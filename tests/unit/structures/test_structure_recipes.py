"""Sampled structures: the distributions and distances asked for, the same from the same seed."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect

from helmol import structures
from helmol.config import parse
from helmol.errors import ConfigError, InputError
from helmol.structures import (
    ComplexesConfig,
    ConformersConfig,
    DimersConfig,
    ModesConfig,
    RandomConfig,
    Structure,
)
from helmol.structures.recipe import ELEMENTS, FILLERS, NOBLE_GASES, filled
from helmol.structures.settle import n_pieces
from helmol.system import Molecule
from helmol.units import KELVIN_PER_HARTREE, WAVENUMBER_PER_HARTREE

WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
CO2 = Molecule.from_angstrom([6, 8, 8], [[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]])


@pytest.fixture(scope="module")
def relaxed() -> tuple[Molecule, np.ndarray]:
    """Return water at its GFN2-xTB minimum, and the Hessian."""
    molecule, _ = structures.relax(WATER, force_ev_ang=1e-3)
    return molecule, structures.hessian(molecule)


def test_frequencies_of_water_and_the_modes_of_a_linear_molecule(relaxed) -> None:
    frequencies = structures.normal_modes(*relaxed)[0] * WAVENUMBER_PER_HARTREE
    # GFN2-xTB's own, as xtb prints them: 1539, 3643, 3651 1/cm.
    assert frequencies == pytest.approx([1539, 3643, 3651], abs=5)
    co2, _ = structures.relax(CO2, force_ev_ang=1e-3)
    assert len(structures.normal_modes(co2, structures.hessian(co2))[0]) == 4


@pytest.mark.parametrize("fault", [1.0, 1.2])
def test_classical_displacements_share_their_energy_equally(relaxed, fault: float) -> None:
    molecule, hessian = relaxed
    config = ModesConfig(n_samples=2000, temperature_k=500, statistics="classical")
    shifts = np.array(
        [fault * (s.molecule.positions - molecule.positions).ravel()
         for s in structures.displaced(molecule, hessian, config, seed=1)]
    )  # fmt: skip
    energy = np.einsum("ka,ab,kb->k", shifts, hessian, shifts).mean() / 2 * KELVIN_PER_HARTREE / 500
    # 3N - 6 = 3 modes with kT/2 each; the standard error is 0.03.
    assert (abs(energy - 1.5) < 0.1) == (fault == 1.0)
    centre = np.einsum("kai,a->ki", shifts.reshape(-1, 3, 3), [15.999, 1.008, 1.008])
    assert np.abs(centre).max() < 1e-8


def test_quantum_displacements_have_zero_point_motion(relaxed) -> None:
    molecule, hessian = relaxed
    frozen = ModesConfig(n_samples=3, temperature_k=0, statistics="classical")
    for sample in structures.displaced(molecule, hessian, frozen):
        assert np.array_equal(sample.molecule.positions, molecule.positions)
    cold = ModesConfig(n_samples=2000, temperature_k=0)
    shifts = [
        (s.molecule.positions - molecule.positions).ravel()
        for s in structures.displaced(molecule, hessian, cold)
    ]
    energy = np.mean([shift @ hessian @ shift / 2 for shift in shifts])
    assert energy == pytest.approx(structures.normal_modes(molecule, hessian)[0].sum() / 4, rel=0.05)
    with pytest.raises(InputError, match="shape"):
        structures.displaced(molecule, hessian[:3, :3], cold)


def test_dimers_stand_at_the_distances_asked_for() -> None:
    water, co2 = Structure("w", WATER), Structure("c", CO2)
    config = DimersConfig(distances_ang=(1.8, 3.0, 12.0), n_orientations=3)
    found = structures.dimers(water, co2, config, seed=1)
    assert len({s.id for s in found}) == 9
    for s in found:
        positions = s.molecule.positions_ang
        closest = np.linalg.norm(positions[:3, None] - positions[None, 3:], axis=-1).min()
        assert closest == pytest.approx(s.provenance["distance_ang"], abs=1e-9)
        # Rigid: also no mirror image came out of the rotation.
        assert np.linalg.norm(positions[1] - positions[2]) == pytest.approx(1.52)
    assert np.ptp([s.molecule.positions[4, 0] for s in found[::3]]) > 0.1


def test_complexes_use_fragments_evenly_and_hold_together() -> None:
    sodium = Structure("na", Molecule(np.array([11]), np.zeros((1, 3)), charge=1))
    fragments = [Structure("w", WATER), Structure("c", CO2), sodium]
    config = ComplexesConfig(n=30, n_fragments=(2, 3), max_atoms=7)
    drawn = structures.draw_fragments(fragments, config, seed=1)
    counts = Counter(f.id for fragment in drawn for f in fragment)
    assert max(counts.values()) - min(counts.values()) <= 8
    assert all(sum(f.molecule.n_atoms for f in c) <= 7 and len(c) > 1 for c in drawn)
    made = structures.complexed(fragments, config, seed=(1, 0), name="x")
    again = structures.complexed(fragments, config, seed=(1, 0), name="x")
    assert made.molecule.charge == 1
    assert made.provenance["fragments"] == ["w", "c", "na"]
    assert np.array_equal(made.molecule.positions, again.molecule.positions)
    assert n_pieces(made.molecule) == 1
    radical = Structure("oh", Molecule.from_angstrom([8, 1], [[0, 0, 0], [0, 0, 1.0]], spin=1))
    with pytest.raises(InputError, match="'oh' has unpaired"):
        structures.draw_fragments([radical], config)


def test_recipe_deals_58_elements_evenly_to_closed_shells() -> None:
    config = RandomConfig(n=500, max_atoms=40, noble_gases=True)
    assert len(ELEMENTS) == len(config.numbers) == 58
    assert (min(config.numbers), max(config.numbers)) == (1, 83)
    dealt = structures.compositions(config, seed=1)
    assert dealt == structures.compositions(config, seed=1)
    assert dealt != structures.compositions(config, seed=2)
    holders = Counter(z for composition in dealt for z in set(composition.dealt))
    assert set(holders) == set(ELEMENTS) - set(FILLERS)
    assert max(holders.values()) - min(holders.values()) <= 2
    random = np.random.default_rng(0)
    for composition in dealt:
        numbers, charge = filled(composition, config, random)
        assert (sum(numbers) - charge) % 2 == 0
        assert config.min_atoms <= len(numbers) <= config.max_atoms
        assert set(composition.dealt) <= set(numbers)
    assert not set(NOBLE_GASES) & set(RandomConfig(n=1).numbers)
    only = RandomConfig(n=20, elements=("Au", "Cl"), charged=0)
    for composition in structures.compositions(only):
        numbers, charge = filled(composition, only, random)
        assert set(numbers) <= {17, 79}
        assert len(numbers) == composition.n_atoms
        assert (sum(numbers) - charge) % 2 == 0


def test_random_molecules_are_whole_gapped_and_reproducible() -> None:
    config = RandomConfig(n=3, max_atoms=9, elements=("H", "C", "O", "Na", "Si", "Br", "Bi"))
    for k, composition in enumerate(structures.compositions(config, seed=4)):
        made = structures.random_molecule(composition, config, seed=(4, k), name=f"r{k}")
        again = structures.random_molecule(composition, config, seed=(4, k), name=f"r{k}")
        assert np.array_equal(made.molecule.positions, again.molecule.positions)
        assert made.molecule.spin == 0
        assert n_pieces(made.molecule) == 1
        assert made.provenance["gap_ev"] >= config.min_gap_ev
    impossible = config.model_copy(update={"min_gap_ev": 90.0, "attempts": 1})
    with pytest.raises(InputError, match=r"in 1 attempts; the last: .* gap"):
        structures.random_molecule(composition, impossible, seed=(4, k))


def test_large_molecules_are_packed_from_pieces() -> None:
    config = RandomConfig(n=200, min_atoms=50, max_atoms=150, charged=0.5)
    holders: Counter[int] = Counter()
    for composition in structures.compositions(config, seed=1):
        pieces = composition.pieces
        assert sum(piece.n_atoms for piece in pieces) == composition.n_atoms
        assert max(piece.n_atoms for piece in pieces) <= config.piece_atoms
        assert sum(piece.charge for piece in pieces) == composition.charge
        assert sorted(z for piece in pieces for z in piece.dealt) == list(composition.dealt)
        holders.update(z for piece in pieces for z in set(piece.dealt))
    assert max(holders.values()) - min(holders.values()) <= 2
    quick = RandomConfig(
        n=2, min_atoms=30, max_atoms=31, elements=("H", "C", "O", "Na", "Br"), relax_steps=0, min_gap_ev=0
    )
    for k, composition in enumerate(structures.compositions(quick, seed=2)):
        made = structures.random_molecule(composition, quick, seed=(2, k), name=f"r{k}")
        again = structures.random_molecule(composition, quick, seed=(2, k), name=f"r{k}")
        assert np.array_equal(made.molecule.positions, again.molecule.positions)
        assert 30 <= made.molecule.n_atoms <= 31
        assert made.provenance["pieces"] == 2
        assert n_pieces(made.molecule) == 1
        assert set(composition.dealt) <= set(made.molecule.numbers.tolist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elements": ["Xx"]}, "unknown element 'Xx'"),
        ({"elements": ["U"]}, "no parameters for U"),
        ({"elements": []}, "elements is empty"),
        ({"min_atoms": 9, "max_atoms": 8}, "smaller"),
    ],
)
def test_bad_recipes_are_refused(changes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(RandomConfig, {"n": 1, **changes})


def test_conformers_are_distinct_sorted_and_reproducible() -> None:
    config = ConformersConfig(n_conformers=4, rmsd_ang=0.4)
    smiles = "CC(C)CC(N)C(=O)O"
    found = structures.conformers(smiles, config, seed=1, name="leu")
    again = structures.conformers(smiles, config, seed=1, name="other")
    assert [s.id for s in found][:2] == ["leu-c00", "leu-c01"]
    for a, b in zip(found, again, strict=True):
        assert np.array_equal(a.molecule.positions, b.molecule.positions)
    energies = [s.provenance["energy_kcal_mol"] for s in found]
    assert energies == sorted(energies)
    assert found[0].provenance["smiles"] == smiles
    # Methane has one conformer, however many are asked for.
    assert len(structures.conformers("C", config)) == 1
    assert len(structures.conformers(smiles, config.model_copy(update={"rmsd_ang": 9.0}))) == 1
    (salt,) = structures.conformers("[NH4+]", ConformersConfig())
    assert (salt.molecule.charge, salt.molecule.formula) == (1, "H4N")
    (radical,) = structures.conformers("[CH3]", ConformersConfig())
    assert radical.molecule.spin == 1
    with pytest.raises(InputError, match="no SMILES"):
        structures.conformers("C1C", config)


def test_smiles_files(tmp_path: Path) -> None:
    path = tmp_path / "some.smi"
    path.write_text("SMILES name\n# comment\nCCO ethanol\n\nC methane\n")
    assert structures.read_smiles(path) == [("ethanol", "CCO", 3), ("methane", "C", 5)]
    path.write_text("CCO\nC\n")
    assert structures.read_smiles(path) == [("some-00001", "CCO", 1), ("some-00002", "C", 2)]
    path.write_text("\n")
    with pytest.raises(InputError, match="no SMILES"):
        structures.read_smiles(path)


def test_databases_and_provenance_come_back(tmp_path: Path) -> None:
    database = connect(tmp_path / "m.db")
    database.write(Atoms("OH", [[0, 0, 0], [0, 0, 1]]), name="a", data={"charge": -1})
    database.write(Atoms("OH", [[0, 0, 0], [0, 0, 1]]), name="b", spin=2)
    database.write(Atoms("Na", [[0, 0, 0]], charges=[1.0]), name="c")
    found = structures.read(tmp_path / "m.db")
    assert [(s.id, s.molecule.charge, s.molecule.spin) for s in found] == [
        ("a", -1, 0),
        ("b", 0, 1),
        ("c", 1, 0),
    ]
    told = {"source": "märchen", "smiles": 'C/C=C\\C "x"', "seed": [1, 2], "gap_ev": 1.5, "relaxed": True}
    structures.write(tmp_path / "p.extxyz", [Structure("p", WATER, told)])
    assert structures.read(tmp_path / "p.extxyz")[0].provenance == told
