"""Distances tell mistaken units, copies and molecules inside each other; odd but real ones are left alone."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.io import write as ase_write

from helmol import structures
from helmol.errors import InputError
from helmol.structures import ConformersConfig, conformers, flat_molecule, read_smiles
from helmol.structures.sense import check_distances
from helmol.units import ANGSTROM_PER_BOHR

WATER = molecule("H2O")


def check(atoms: Atoms, **settings: bool) -> None:
    check_distances(atoms.numbers, atoms.positions, **settings)


@pytest.mark.parametrize("name", ["H2O", "CO2", "C2H2", "C6H6", "CH3CHO", "HCN", "SiH4", "LiF-chain"])
@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (1 / ANGSTROM_PER_BOHR, "likely they are in bohr, where Å are wanted"),
        (ANGSTROM_PER_BOHR, "converted once too often"),
        (0.1, "likely they are in nm"),
        (100.0, "likely they are in pm"),
    ],
)
def test_units_are_told_by_distances(name: str, factor: float, message: str) -> None:
    chain = Atoms("LiFLiF", positions=[[0, 0, 1.7 * k] for k in range(4)])
    atoms = chain if name == "LiF-chain" else molecule(name)
    check(atoms)
    atoms.positions *= factor
    with pytest.raises(InputError, match=message):
        check(atoms)
    if factor > 1:
        check(atoms, unit_stated=True)


def test_a_file_in_bohr_is_refused_and_its_own_word_counts(tmp_path: Path) -> None:
    bohr = WATER.copy()
    bohr.positions /= ANGSTROM_PER_BOHR
    for header, message in (
        ({}, "likely they are in bohr"),
        ({"units": "bohr"}, "positions are wanted in Å"),
    ):
        bohr.info = dict(header)
        ase_write(tmp_path / "w.extxyz", bohr)
        with pytest.raises(InputError, match=message):
            structures.read(tmp_path / "w.extxyz")
    bohr.info = {"units": "angstrom"}
    ase_write(tmp_path / "w.extxyz", bohr)
    assert structures.read(tmp_path / "w.extxyz")[0].molecule.n_atoms == 3
    # An object in memory is what ASE says it is: in dynamics a molecule may fall apart.
    assert structures.from_atoms(bohr).n_atoms == 3


def test_real_molecules_are_left_alone() -> None:
    for name in g2.names:
        check(g2[name])
    far = WATER.copy()
    far.translate([0, 0, 8.0])
    tetrahedron = np.array([[0, 0, 0], [1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    odd = {
        "two atoms on a curve": Atoms("H2", positions=[[0, 0, 0], [0, 0, 1.4]]),
        "noble gases": Atoms("Ar3", positions=[[0, 0, 0], [0, 0, 3.76], [0, 3.3, 1.9]]),
        "transition state": Atoms("H3", positions=[[0, 0, 0], [0, 0, 0.93], [0, 0, 1.86]]),
        "far apart": WATER + far,
        "strong hydrogen bond": Atoms("FHF", positions=[[0, 0, -1.14], [0, 0, 0], [0, 0, 1.14]]),
        "ammonium": Atoms("NH4", positions=0.59 * tetrahedron),
        "bridges": molecule("bicyclobutane"),
    }  # fmt: skip
    for atoms in odd.values():
        check(atoms)


def test_copies_at_one_place_and_molecules_inside_each_other() -> None:
    with pytest.raises(InputError, match=r"6 of 6 atoms lie on another one .* several copies of a molecule"):
        check(WATER + WATER)
    methane, inside = molecule("CH4"), molecule("CH4")
    inside.rotate(40, "x")
    inside.translate([0.35, 0.2, 0.3])
    with pytest.raises(InputError, match="molecules that lie inside each other"):
        check(methane + inside)


@pytest.mark.parametrize("smiles", ["O.O", "O.O.O.O", "[Na+].[Cl-]", "CC(=O)[O-].[Na+]", "[H][H].O", "C.C.C"])
def test_molecules_of_one_smiles_stand_beside_each_other(smiles: str) -> None:
    Chem = pytest.importorskip("rdkit.Chem")
    parts = Chem.GetMolFrags(Chem.AddHs(Chem.MolFromSmiles(smiles)))
    label = np.concatenate([[k] * len(part) for k, part in enumerate(parts)])
    label = label[np.argsort(np.concatenate(parts))]
    for structure in conformers(smiles, ConformersConfig(n_conformers=2), seed=3):
        positions = structure.molecule.positions_ang
        distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
        closest = distances[label[:, None] != label[None]].min()
        # A hydrogen bond, a salt, a van der Waals contact: near, and apart.
        assert 1.6 < closest < 3.5
    again = conformers(smiles, ConformersConfig(n_conformers=2), seed=3)
    assert np.array_equal(again[-1].molecule.positions, structure.molecule.positions)


def test_files_of_smiles(tmp_path: Path) -> None:
    path = tmp_path / "pool.smi"
    path.write_bytes(b"\xef\xbb\xbfO water\n*C dummy\nN,ammonia\nCC |lp:1| ethane\nC\tmethane\n")
    assert read_smiles(path) == [
        ("water", "O", 1), ("dummy", "*C", 2), ("ammonia", "N", 3), ("ethane", "CC", 4), ("methane", "C", 5),
    ]  # fmt: skip
    pytest.importorskip("rdkit")
    with pytest.raises(InputError, match="dummy atom"):
        flat_molecule("*C")
