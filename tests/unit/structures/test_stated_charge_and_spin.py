"""Charge and spin under every name in use are read as they are meant, or refused by name; never dropped."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write as ase_write

from helmol import structures
from helmol.errors import InputError

WATER = Atoms("OH2", positions=[[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
OXYGEN = Atoms("O2", positions=[[0, 0, 0], [0, 0, 1.21]])
PROPERTIES = "Properties=species:S:1:pos:R:3"


def frame(header: str, atoms: Atoms = WATER, columns: list[list[object]] | None = None) -> str:
    rows = [
        " ".join(map(str, [symbol, *position, *(columns[k] if columns else [])]))
        for k, (symbol, position) in enumerate(zip(atoms.symbols, atoms.positions, strict=True))
    ]
    return "\n".join([str(len(atoms)), header, *rows]) + "\n"


def read(folder: Path, text: str, name: str = "m.extxyz") -> tuple[int, int]:
    path = folder / name
    path.write_text(text)
    (structure,) = structures.read(path)
    return structure.molecule.charge, structure.molecule.spin


@pytest.mark.parametrize(
    "name", ["charge", "total_charge", "tot_charge", "net_charge", "TotalCharge", "CHARGE"]
)
def test_every_name_of_the_charge(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, frame(f"{PROPERTIES} {name}=2")) == (2, 0)
    assert read(tmp_path, frame(f"{name}=-2.0")) == (-2, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spin", 3),
        ("total_spin", 3),
        ("multiplicity", 3),
        ("spin_multiplicity", 3),
        ("mult", 3),
        ("Multiplicity", 3),
        ("SPIN", 3),
        ("uhf", 2),
        ("UHF", 2),
        ("n_unpaired", 2),
        ("magmom", 2),
    ],
)
def test_every_name_of_the_spin(tmp_path: Path, name: str, value: int) -> None:
    # The multiplicity 2S+1 and the unpaired electrons 2S of triplet oxygen.
    assert read(tmp_path, frame(f"{PROPERTIES} {name}={value}", OXYGEN)) == (0, 2)


@pytest.mark.parametrize(
    ("comment", "state"),
    [
        ("Total charge: -2 ; Unpaired electrons: 2", (-2, 2)),
        ("charge: 1, multiplicity: 2", (1, 1)),
        ("0 1", (0, 0)),
        ("charge distribution of spin polarised water, frame 7", (0, 0)),
        ("charge=1 spin=2 energy of 7 frames", (1, 1)),
    ],
)
def test_comments_in_words(tmp_path: Path, comment: str, state: tuple[int, int]) -> None:
    assert read(tmp_path, frame(comment), "m.xyz") == state


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("2 1", "line 2 is '2 1': if these are charge and multiplicity write 'charge=2 multiplicity=1'"),
        ("charge 2", "the comment says 'charge 2': write charge=NUMBER"),
        ("total charge -1 multiplicity 2", "the comment says 'total charge -1'"),
        (f"{PROPERTIES} charge=1.5 spin=2", "charge = 1.5: expected a whole number"),
        (f"{PROPERTIES} total_charge=2 charge=0", "total_charge = 2 and charge = 0 contradict"),
        (
            f"{PROPERTIES} spin=1 uhf=2",
            r"spin = 1 \(read as the multiplicity 2S\+1\) and uhf = 2 .* contradict",
        ),
        (f"{PROPERTIES} multiplicity=0", r"multiplicity = 0: expected the multiplicity 2S\+1"),
        (f"{PROPERTIES} uhf=-2", "uhf = -2: expected the number of unpaired electrons"),
        (f"{PROPERTIES} mol_charge=2", "mol_charge = 2 is a name that helmol does not know"),
        (f"{PROPERTIES} q=1", "q = 1 is a name that helmol does not know"),
        (f"{PROPERTIES} ground_spin=3", "ground_spin = 3 is a name that helmol does not know"),
        (f"{PROPERTIES} chg=2", "chg = 2 is a name .* if it is the charge of the molecule write charge=2"),
        (f"{PROPERTIES} q_tot=-2", "q_tot = -2 is a name that helmol does not know"),
        (f"{PROPERTIES} multip=3", "write multiplicity=3"),
        (f"{PROPERTIES} 2S=2", "if it is the number of unpaired electrons 2S of the molecule write uhf=2"),
        (
            f"{PROPERTIES} n_electrons=8",
            "n_electrons = 8, nuclei and charge 0 make 10: give the right charge=",
        ),
        (f"{PROPERTIES} spin_state=triplet", "the header says 'triplet': write multiplicity=3"),
        ("water, triplet state", "the header says 'triplet'"),
    ],
)
def test_what_is_not_clear_is_refused_by_name(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, frame(header))


def test_unknown_names_that_say_the_same_do_no_harm(tmp_path: Path) -> None:
    assert read(tmp_path, frame(f"{PROPERTIES} charge=2 mol_charge=2 ground_spin=1 n_electrons=8 q=2")) == (
        2,
        0,
    )
    assert read(tmp_path, frame("singlet at the singlet-triplet crossing")) == (0, 0)
    assert read(tmp_path, frame("spin=1 triplet geometry")) == (0, 0)
    assert read(tmp_path, frame(f"{PROPERTIES} nuclear_charge=8 point_charge=0.3 charge_model=resp")) == (
        0,
        0,
    )


@pytest.mark.parametrize(
    ("header", "message"),
    [
        # The two conventions differ by one, so that the electrons fit one of them only.
        (
            "spin=2",
            r"spin = 2 \(read as the multiplicity 2S\+1\)\): if 2 unpaired electrons are meant write uhf=2",
        ),
        ("total_spin=2", r"total_spin = 2 \(read as the multiplicity 2S\+1\).* write uhf=2"),
        ("uhf=1", r"uhf = 1 \(read as 2S.*\): if the multiplicity 1 is meant write multiplicity=1"),
        ("total_charge=1", "9 electrons cannot have 0 unpaired .total_charge = 1; no spin is stated"),
        ("", ""),
    ],
)
def test_the_message_of_a_wrong_parity_names_key_and_convention(
    tmp_path: Path, header: str, message: str
) -> None:
    if not header:
        with pytest.raises(InputError, match="no charge is stated, so it is 0; no spin is stated"):
            read(tmp_path, frame(PROPERTIES, Atoms("H", positions=[[0, 0, 0]])))
        return
    with pytest.raises(InputError, match=message):
        read(tmp_path, frame(f"{PROPERTIES} {header}"))


def test_charges_of_atoms_add_up(tmp_path: Path) -> None:
    initial = f"{PROPERTIES}:initial_charges:R:1"
    assert read(tmp_path, frame(initial, columns=[[2.0], [0], [0]])) == (2, 0)
    assert read(tmp_path, frame(initial, columns=[[0.0], [0], [0]])) == (0, 0)
    assert read(tmp_path, frame(f"{initial} charge=2", columns=[[1.2], [0.4], [0.4]])) == (2, 0)
    mulliken = f"{PROPERTIES}:charge:R:1"
    assert read(tmp_path, frame(mulliken, columns=[[-0.58], [0.29], [0.29]])) == (0, 0)
    assert read(tmp_path, frame(f"{mulliken} spin=2", columns=[[-1.4], [0.2], [0.21]])) == (-1, 1)
    with pytest.raises(InputError, match=r"charge = 1 and initial_charges .* contradict"):
        read(tmp_path, frame(f"{initial} charge=1 spin=2", columns=[[2.0], [0], [0]]))
    with pytest.raises(InputError, match=r"initial_charges .* sum up to 0.400, no whole number"):
        read(tmp_path, frame(initial, columns=[[0.4], [0], [0]]))
    with pytest.raises(InputError, match=r"charge = 2 and charges .* contradict"):
        read(tmp_path, frame(f"{mulliken} charge=2", columns=[[-0.6], [0.3], [0.3]]))
    with pytest.raises(InputError, match="nuclear_charges are not the atomic numbers"):
        read(tmp_path, frame(f"{PROPERTIES}:nuclear_charges:R:1", columns=[[7.5], [1], [1]]))


def test_moments_of_atoms_add_up(tmp_path: Path) -> None:
    initial = f"{PROPERTIES}:initial_magmoms:R:1"
    assert read(tmp_path, frame(initial, OXYGEN, [[1.0], [1.0]])) == (0, 2)
    # Antiferromagnetic; and a first guess beside a number that is meant.
    assert read(tmp_path, frame(initial, OXYGEN, [[1.0], [-1.0]])) == (0, 0)
    assert read(tmp_path, frame(f"{initial} multiplicity=3", OXYGEN, [[0.6], [0.7]])) == (0, 2)
    with pytest.raises(InputError, match=r"sum up to 1.300, no whole number: state multiplicity="):
        read(tmp_path, frame(initial, OXYGEN, [[0.6], [0.7]]))
    with pytest.raises(InputError, match=r"multiplicity = 1 .* contradict"):
        read(tmp_path, frame(f"{initial} multiplicity=1", OXYGEN, [[1.0], [1.0]]))


@pytest.mark.parametrize("name", ["m.db", "m.json"])
def test_rows_of_a_database(tmp_path: Path, name: str) -> None:
    database = connect(tmp_path / name)
    database.write(WATER, total_charge=2)
    database.write(WATER, data={"charge": 1, "spin": 2})
    charged = WATER.copy()
    charged.set_initial_charges([0, 1, 1])
    database.write(charged)
    states = [(s.molecule.charge, s.molecule.spin) for s in structures.read(tmp_path / name)]
    assert states == [(2, 0), (1, 1), (2, 0)]


def test_a_trajectory_keeps_its_header(tmp_path: Path) -> None:
    charged = WATER.copy()
    charged.info.update(charge=1, spin=2)
    ase_write(tmp_path / "m.traj", [charged, WATER])
    states = [(s.molecule.charge, s.molecule.spin) for s in structures.read(tmp_path / "m.traj")]
    assert states == [(1, 1), (0, 0)]


def test_calculators_say_what_they_were_set_up_with() -> None:
    class Live(Calculator):
        """A calculator whose results are of what it was asked before."""

    atoms = WATER.copy()
    atoms.calc = Live(charge=2, multiplicity=3)
    assert (structures.from_atoms(atoms).charge, structures.from_atoms(atoms).spin) == (2, 2)
    atoms.calc = Live()
    atoms.calc.results["charges"] = np.array([1.0, 0.0, 0.0])
    assert structures.from_atoms(atoms).charge == 0
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, charges=[1.4, 0.3, 0.3], magmom=0.0)
    assert structures.from_atoms(atoms).charge == 2
    atoms.info["charge"] = 0
    with pytest.raises(InputError, match="contradict"):
        structures.from_atoms(atoms)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('electric_field="0 0 0.01"', "electric_field = .* stands for an external field"),
        ('external_field="0 0 0.1"', "external field"),
        ("solvent=water", "solvent = water stands for a solvent"),
        ('point_charges="0.5 0 0 3"', "point charges"),
        ("relativistic=zora", "relativistic terms"),
    ],
)
def test_surroundings_are_refused_by_name(tmp_path: Path, header: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, frame(f"{PROPERTIES} {header}"))


@pytest.mark.parametrize("header", ['electric_field="0 0 0"', "solvent=none", "solvent=vacuum", "solvent"])
def test_no_surroundings_are_none(tmp_path: Path, header: str) -> None:
    assert read(tmp_path, frame(f"{PROPERTIES} {header}")) == (0, 0)


def test_dummies_and_periodic_cells_are_refused() -> None:
    atoms = Atoms("OH2X", positions=[*WATER.positions, [0, 0, 3]])
    with pytest.raises(InputError, match=r"atom 4 \(X\) is a dummy or ghost atom"):
        structures.from_atoms(atoms)
    chain = WATER.copy()
    chain.set_cell([5, 0, 0])
    chain.pbc = (True, False, False)
    with pytest.raises(InputError, match="periodic"):
        structures.from_atoms(chain)
    chain.pbc = False
    assert structures.from_atoms(chain).n_atoms == 3
