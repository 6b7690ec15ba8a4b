"""Frames of extended xyz: whatever is in a name comes back, units are ASE's."""

import ase.io
import numpy as np
import pytest
from energy_tools import make_energy_network
from physics_tools import random_molecule

from helmol import structures
from helmol.predict import TrainedModel
from helmol.predict.energy_files import predict_energies_of_file
from helmol.structures import Structure
from helmol.system import Molecule
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

NAMES = (
    'a "b" c', "back\\slash\\", '\\"', "two\nlines", "007", "1.50", "1 2 3", "[1,2]", "T", "true", "1e5",
    "_JSON 1", "x=y", "it's", "Ö ß", "{a}",
)  # fmt: skip
H2 = Molecule([1, 1], [[0, 0, 0], [0.1, 0.2, 1.4]])


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back(tmp_path, name):
    path = tmp_path / "one.xyz"
    structures.write(path, [Structure(name, H2, {"note": name})])
    (back,) = structures.read(path)
    assert back.id == name
    assert back.provenance == {"note": name}


def test_units_are_those_of_ase(tmp_path):
    forces = np.array([[0.1, 0.2, 0.3], [-0.1, -0.2, -0.3]])
    doublet = Molecule(H2.numbers, H2.positions, charge=1, spin=1)
    path = tmp_path / "one.xyz"
    path.write_text(structures.extxyz_text("x", doublet, energy=-1.25, forces=forces))
    atoms = ase.io.read(path)
    assert atoms.get_potential_energy() == pytest.approx(-1.25 * EV_PER_HARTREE, abs=1e-11)
    np.testing.assert_allclose(atoms.get_forces(), forces * EV_PER_ANGSTROM_PER_AU, atol=1e-11)
    assert (atoms.info["charge"], atoms.info["spin"]) == (1, 2)
    np.testing.assert_allclose(structures.read(path)[0].molecule.positions, H2.positions, atol=1e-11)


def test_energies_of_molecules_with_such_names(tmp_path):
    molecule = random_molecule(np.random.default_rng(0))
    names = [name for name in NAMES if name == name.strip()]
    structures.write(tmp_path / "in.xyz", [Structure(name, molecule) for name in names])
    model = TrainedModel(make_energy_network())
    predict_energies_of_file([model], tmp_path / "in.xyz", out=tmp_path / "out")
    assert [one.id for one in structures.read(tmp_path / "out/energies.extxyz")] == names
    energy = model.energies(molecule).energy
    atoms = ase.io.read(tmp_path / "out/energies.extxyz")
    assert atoms.get_potential_energy() == pytest.approx(energy * EV_PER_HARTREE, abs=1e-10)
