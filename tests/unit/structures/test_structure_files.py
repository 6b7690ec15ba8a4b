"""Structure files: charge and spin at the door, one clear line for every bad file."""

from pathlib import Path

import numpy as np
import pytest

from helmol import structures
from helmol.errors import InputError
from helmol.structures import Structure
from helmol.system import Molecule

H2 = "2\n{}\nH 0 0 0\nH 0 0 {}\n"
PROPERTIES = "Properties=species:S:1:pos:R:3"


def _write(folder: Path, text: str, name: str = "m.xyz") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("header", "charge", "spin"),
    [
        ("a comment", 0, 0),
        (f"{PROPERTIES} charge=0 spin=1", 0, 0),
        (f"{PROPERTIES} charge=1 spin=2", 1, 1),
        (f"{PROPERTIES} charge=-1 spin_multiplicity=2", -1, 1),
        (f"{PROPERTIES} charge=0 uhf=2", 0, 2),
        (f"{PROPERTIES} charge=0 uhf=2 spin=3", 0, 2),
    ],
)
def test_charge_and_spin(tmp_path: Path, header: str, charge: int, spin: int) -> None:
    (structure,) = structures.read(_write(tmp_path, H2.format(header, 0.74)))
    assert (structure.molecule.charge, structure.molecule.spin) == (charge, spin)
    assert structure.id == "m"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("hello\nworld\n", "cannot read"),
        ("1\n\nXx 0 0 0\n", "unknown element 'Xx'"),
        ("3\n\nH 0 0 0\n", "says 3 atoms, 1 lines follow"),
        ("2\n\nH 0 0 0\nH nan 0 0\n", "not a finite number"),
        ("1\n\nH 0 0 0\n", "unpaired"),
        (H2.format("", 0.1), "0.100 Å apart"),
        (H2.format("", 0.74) + H2.format("", 0.1), "frame 2 of 2"),
        (H2.format(f"{PROPERTIES} charge=0.5", 0.74), "whole number"),
        (H2.format(f"{PROPERTIES} spin=0", 0.74), "multiplicity"),
        (H2.format(f"{PROPERTIES} spin=1 uhf=2", 0.74), "contradict"),
        (H2.format(f'{PROPERTIES} Lattice="5 0 0 0 5 0 0 0 5" pbc="T T T"', 0.74), "periodic"),
    ],
)
def test_bad_file_is_one_line_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        structures.read(_write(tmp_path, text))
    assert "m.xyz" in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file_and_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        structures.read(tmp_path / "none.xyz")
    with pytest.raises(InputError, match="no file format"):
        structures.read(_write(tmp_path, "abc", "m.foo"))


def test_ids_are_names_if_every_frame_has_its_own(tmp_path: Path) -> None:
    frames = [H2.format(f"{PROPERTIES} name={name}", 0.74) for name in ("a", "b")]
    assert [s.id for s in structures.read(_write(tmp_path, "".join(frames)))] == ["a", "b"]
    assert [s.id for s in structures.read(_write(tmp_path, frames[0] * 2))] == ["m-00000", "m-00001"]


def test_there_and_back(tmp_path: Path, rng: np.random.Generator) -> None:
    written = [
        Structure(f"s{k}", Molecule(np.array([8, 1]), rng.normal(size=(2, 3)) * 4, charge, spin))
        for k, (charge, spin) in enumerate([(-1, 0), (0, 1), (1, 2)])
    ]
    structures.write(tmp_path / "s.extxyz", written)
    again = structures.read(tmp_path / "s.extxyz")
    for before, after in zip(written, again, strict=True):
        assert after.id == before.id
        assert np.array_equal(after.molecule.numbers, before.molecule.numbers)
        assert np.abs(after.molecule.positions - before.molecule.positions).max() < 2e-10
        assert (after.molecule.charge, after.molecule.spin) == (before.molecule.charge, before.molecule.spin)
