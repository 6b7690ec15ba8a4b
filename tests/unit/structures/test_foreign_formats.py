"""Files of other programs: the geometry, and charge and spin where each format has its place for them."""

import gzip
import json
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write as ase_write

from helmol import structures
from helmol.errors import InputError
from helmol.structures import Structure
from helmol.units import ANGSTROM_PER_BOHR

POSITIONS = np.array([[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
WATER = Atoms("OH2", positions=POSITIONS)
ROWS = "O 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"


def read(path: Path, text: str | bytes) -> list[Structure]:
    if isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text)
    return structures.read(path)


def is_water(structure: Structure, charge: int, spin: int) -> None:
    molecule = structure.molecule
    assert (molecule.formula, molecule.charge, molecule.spin) == ("H2O", charge, spin)
    distances = np.linalg.norm(molecule.positions_ang[:, None] - molecule.positions_ang[None], axis=-1)
    wanted = np.linalg.norm(POSITIONS[:, None] - POSITIONS[None], axis=-1)
    assert np.abs(distances - wanted).max() < 2e-4


SDF = """water
  program           3D

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.1190 O   0  {code}
    0.0000    0.7630   -0.4770 H   0  0
    0.0000   -0.7630   -0.4770 H   0  0
  1  2  1  0
  1  3  1  0
{properties}M  END
"""


@pytest.mark.parametrize(
    ("code", "properties", "state"),
    [
        (0, "", (0, 0)),
        (3, "M  RAD  1   1   2\n", None),
        (0, "M  CHG  1   1   2\n", (2, 0)),
        # Property lines replace the codes of the atom block, all of them.
        (5, "M  CHG  2   1   1   2   1\n", (2, 0)),
        (0, "M  CHG  1   1   1\nM  RAD  1   1   2\n", (1, 1)),
        (0, "M  RAD  1   1   3\n", (0, 2)),
        (2, "", (2, 0)),
        (6, "", (-2, 0)),
    ],
)
def test_molfiles(tmp_path: Path, code: int, properties: str, state: tuple[int, int] | None) -> None:
    text = SDF.format(code=code, properties=properties)
    if state is None:
        with pytest.raises(InputError, match=r"10 electrons cannot have 1 unpaired .M +CHG = 0; M +RAD = 1"):
            read(tmp_path / "w.mol", text)
        return
    for name in ("w.mol", "w.sdf"):
        (structure,) = read(tmp_path / name, text)
        is_water(structure, *state)


def test_sdf_has_many_records_with_data_items(tmp_path: Path) -> None:
    plain = SDF.format(code=0, properties="")
    charged = (
        SDF.format(code=0, properties="M  CHG  1   1   2\n")
        + "> <PUBCHEM_TOTAL_CHARGE>\n2\n\n> <logP>\n0.3\n\n"
    )
    found = read(tmp_path / "w.sdf", plain + "$$$$\n" + charged + "$$$$\n")
    is_water(found[0], 0, 0)
    is_water(found[1], 2, 0)
    assert found[1].provenance["logP"] == "0.3"
    # Other names that say the same as the molfile do no harm.
    more = charged + "> <Formal Charge>\n2\n\n> <n_electrons>\n8\n\n"
    is_water(read(tmp_path / "w.sdf", more + "$$$$\n")[0], 2, 0)
    wrong = charged.replace("CHARGE>\n2", "CHARGE>\n0")
    with pytest.raises(InputError, match=r"frame 2 of 2: total_charge = 0 and M +CHG = 2 contradict"):
        read(tmp_path / "w.sdf", plain + "$$$$\n" + wrong + "$$$$\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("3D", "2D"), "a drawing in two dimensions"),
        (("V2000", "V3000"), "V3000 are not read"),
        (("M  END", "M  RAD  2   1   2   2   2\nM  END"), "2 radical centres"),
        (("M  END", "M  CHG  2   1   2\nM  END"), "has not the 2 pairs"),
    ],
)
def test_molfiles_that_are_refused(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path / "w.mol", SDF.format(code=0, properties="").replace(*change))


def test_gaussian_input(tmp_path: Path) -> None:
    # ASE takes a first coordinate "0" for a Z-matrix.
    rows = "".join(f"{s} {' '.join(f'{x:.6f}' for x in p)}\n" for s, p in zip("OHH", POSITIONS, strict=True))
    head = "%mem=1GB\n#P PBEPBE/def2SVP {}\n\ntitle\n\n"
    is_water(read(tmp_path / "w.gjf", head.format("") + "1 2\n" + rows + "\n")[0], 1, 1)
    is_water(read(tmp_path / "w.com", head.format("") + "2 1\n" + rows + "\n")[0], 2, 0)
    is_water(read(tmp_path / "w.com", head.format("") + " 2,1 2,1\n" + rows + "\n")[0], 2, 0)
    for word in ("scrf=(solvent=water)", "field=x+10", "charge"):
        with pytest.raises(InputError, match="asks for"):
            read(tmp_path / "w.gjf", head.format(word) + "0 1\n" + rows + "\n")
    with pytest.raises(InputError, match="bohr"):
        read(tmp_path / "w.gjf", head.format("units=au") + "0 1\n" + rows + "\n")
    with pytest.raises(InputError, match="nuclear charges"):
        read(tmp_path / "w.gjf", head.format("") + "0 1\n" + rows.replace("O ", "O(ZNuc=7.5) ") + "\n")
    with pytest.raises(InputError, match="several jobs"):
        read(tmp_path / "w.gjf", (head.format("") + "0 1\n" + rows + "\n") + "--Link1--\n")


GAUSSIAN_OUTPUT = """ Entering Gaussian System, Link 0=g16
 Charge =  {charge} Multiplicity = {multiplicity}
                         Input orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
      1          8           0        0.000000    0.000000    0.119000
      2          1           0        0.000000    0.763000   -0.477000
      3          1           0        0.000000   -0.763000   -0.477000
 ---------------------------------------------------------------------
 SCF Done:  E(RPBE-PBE) =  -76.3    A.U. after    8 cycles
"""

ORCA_OUTPUT = """                                 * O   R   C   A *
 Total Charge           Charge          ....    {charge}
 Multiplicity           Mult            ....    {multiplicity}
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  O      0.000000    0.000000    0.119000
  H      0.000000    0.763000   -0.477000
  H      0.000000   -0.763000   -0.477000

Number of atoms                             ...      3
FINAL SINGLE POINT ENERGY       -76.3
                             ****ORCA TERMINATED NORMALLY****
"""


@pytest.mark.parametrize(("text", "name"), [(GAUSSIAN_OUTPUT, "w.log"), (ORCA_OUTPUT, "w.out")])
def test_outputs(tmp_path: Path, text: str, name: str) -> None:
    is_water(read(tmp_path / name, text.format(charge=1, multiplicity=2))[0], 1, 1)
    is_water(read(tmp_path / name, text.format(charge=-2, multiplicity=1))[0], -2, 0)
    lost = "\n".join(line for line in text.split("\n") if "harge" not in line)
    with pytest.raises(InputError, match="does not say its charge"):
        read(tmp_path / name, lost)


def test_orca_input(tmp_path: Path) -> None:
    text = "! PBE def2-SVP\n* xyz 1 2\n" + ROWS + "*\n"
    is_water(read(tmp_path / "w.inp", text)[0], 1, 1)
    is_water(read(tmp_path / "w.inp", text.replace("* xyz", "*XYZ"))[0], 1, 1)
    bohr = "".join(
        f"{s} {' '.join(map(str, p))}\n" for s, p in zip("OHH", POSITIONS / ANGSTROM_PER_BOHR, strict=True)
    )
    is_water(read(tmp_path / "w.inp", text.replace(ROWS, bohr).replace("! PBE", "! Bohrs PBE"))[0], 1, 1)
    for change, message in (
        (("! PBE", "! CPCM(water) PBE"), "asks for 'CPCM"),
        (("* xyz 1 2", "* xyzfile 1 2 w.xyz"), "stands in another place"),
        (("* xyz", "* int"), "not exactly one block"),
        (("O 0 0 0.119", "O: 0 0 0.119"), "expected a symbol and three numbers"),
        (("O 0 0 0.119", "Q 0.5 0 0 0.119"), "expected a symbol and three numbers"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "w.inp", text.replace(*change))


def test_qchem_input(tmp_path: Path) -> None:
    text = "$molecule\n1 2\n" + ROWS + "$end\n$rem\nmethod pbe\n$end\n"
    is_water(read(tmp_path / "w.in", text)[0], 1, 1)
    fragments = "$molecule\n0 1\n--\n0 1\n" + ROWS + "$end\n"
    is_water(read(tmp_path / "w.in", fragments)[0], 0, 0)
    for change, message in (
        (("1 2\n", "read\n"), "does not begin with charge and multiplicity"),
        (("method pbe", "solvent_method pcm"), "asks for"),
        (("O 0", "@O 0"), "expected a symbol and three numbers"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "w.in", text.replace(*change))


def test_turbomole(tmp_path: Path) -> None:
    rows = "".join(
        "  ".join(f"{x:.12E}".replace("E", "D") for x in position) + f"  {symbol}\n"
        for symbol, position in zip("ohh", POSITIONS / ANGSTROM_PER_BOHR, strict=True)
    )
    is_water(read(tmp_path / "coord", f"$coord\n{rows}$end\n")[0], 0, 0)
    is_water(read(tmp_path / "coord", f"$coord\n{rows}$eht charge=1 unpaired=1\n$end\n")[0], 1, 1)
    # xTB reads its own groups from the same file.
    is_water(read(tmp_path / "coord", f"$coord\n{rows}$chrg -2\n$spin 2\n$end\n")[0], -2, 2)
    with pytest.raises(InputError, match=r"\$eht charge = 1 and \$chrg = 2 contradict"):
        read(tmp_path / "coord", f"$coord\n{rows}$eht charge=1\n$chrg 2\n$end\n")
    with pytest.raises(InputError, match=r"has \$gbsa"):
        read(tmp_path / "coord", f"$coord\n{rows}$gbsa\n  solvent=water\n$end\n")
    with pytest.raises(InputError, match="coord angs"):
        read(tmp_path / "coord", f"$coord angs\n{rows}$end\n")
    with pytest.raises(InputError, match=r"has \$periodic"):
        read(tmp_path / "coord", f"$coord\n{rows}$periodic 3\n$end\n")
    angstrom = "".join(f"{' '.join(map(str, p))} {s}\n" for s, p in zip("ohh", POSITIONS, strict=True))
    with pytest.raises(InputError, match="converted once too often"):
        read(tmp_path / "coord", f"$coord\n{angstrom}$end\n")


def test_aims(tmp_path: Path) -> None:
    rows = [f"atom {' '.join(map(str, p))} {s}\n" for s, p in zip("OHH", POSITIONS, strict=True)]
    path = tmp_path / "geometry.in"
    is_water(read(path, "".join(rows))[0], 0, 0)
    is_water(read(path, rows[0] + "  initial_charge 2.0\n" + rows[1] + rows[2])[0], 2, 0)
    for line in ("homogeneous_field 0 0 0.1", "multipole 0 0 5 0 1.0", "empty 0 0 3 H"):
        with pytest.raises(InputError, match=f"the file has {line.split()[0]}: helmol knows"):
            read(path, "".join(rows) + line + "\n")


def test_chemical_json_and_pdb(tmp_path: Path) -> None:
    data = {
        "atoms": {"elements": {"number": [8, 1, 1]}, "coords": {"3d": POSITIONS.ravel().tolist()}},
        "properties": {"totalCharge": 1, "totalSpinMultiplicity": 2},
    }
    is_water(read(tmp_path / "w.cjson", json.dumps(data))[0], 1, 1)
    rows = [
        f"HETATM{k:5d}  {s}   HOH     1    {p[0]:8.3f}{p[1]:8.3f}{p[2]:8.3f}  1.00  0.00          {s:>2}"
        for k, (s, p) in enumerate(zip("OHH", POSITIONS, strict=True), 1)
    ]
    is_water(read(tmp_path / "w.pdb", "\n".join(rows) + "\nEND\n")[0], 0, 0)
    rows[0] += "2+"
    is_water(read(tmp_path / "w.pdb", "\n".join(rows) + "\nEND\n")[0], 2, 0)


def test_formats_that_lose_charge_and_spin_are_refused_by_name(tmp_path: Path) -> None:
    ase_write(tmp_path / "w.nwi", WATER, format="nwchem-in")
    with pytest.raises(InputError, match="'nwchem-in', and its reader loses charge and spin"):
        structures.read(tmp_path / "w.nwi")
    with pytest.raises(InputError, match="a Molden file has orbitals and no charge"):
        read(tmp_path / "w.molden", "[Molden Format]\n[Atoms] AU\nO 1 8 0 0 0\n")


QM9 = """3
gdb 900001\t100.1\t100.2\t100.3\t1.85\t6.31\t-0.29\t0.06\t0.36\t19.0\t0.02\t-76.4\t-76.4\t-76.4\t-76.42\t6.0
O\t 0.00000001\t 1.19*^-1\t 7.8*^-6\t-0.59
H\t 0.763\t-0.477\t 0.0000\t 0.29
H\t-0.763\t-0.477\t 1.1*^-5\t 0.29
1671.4\t3803.6\t3907.6
O\tO
InChI=1S/H2O/h1H2\tInChI=1S/H2O/h1H2
"""


def test_raw_qm9(tmp_path: Path) -> None:
    found = read(tmp_path / "q.xyz", QM9 + QM9)
    for structure in found:
        is_water(structure, 0, 0)
        assert structure.molecule.positions_ang[0, 1] == pytest.approx(0.119, abs=1e-12)
        assert (structure.provenance["smiles"], structure.provenance["gdb"]) == ("O", 900001)
    assert [s.id for s in found] == ["q-00000", "q-00001"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + f"3\nwater\n{ROWS}".encode(),
        f"3\nwater\n{ROWS}".encode("utf-16"),
        f"3\nwasser in \xc5\n{ROWS}".encode("latin-1"),
        f"3\nwater\n{ROWS}".replace("\n", "\r\n").encode(),
        f"\n\n3\nwater\n{ROWS}\n\n".encode(),
        f"3\nwater\n{ROWS}".replace("0.763", "7.63D-01").replace("0.477", "4.77d-1").encode(),
        f"3\nwater\n{ROWS}".replace("O ", "8 ").replace("H ", "1 ").encode(),
        f'3\npbc="F F F"\n{ROWS}'.encode(),
    ],
)
def test_forms_of_xyz(tmp_path: Path, data: bytes) -> None:
    is_water(read(tmp_path / "w.xyz", data)[0], 0, 0)


def test_frames_after_a_blank_line_and_compressed_ones(tmp_path: Path) -> None:
    # ASE's reader stops at the blank line.
    text = f"3\na\n{ROWS}\n3\nb\n{ROWS}"
    assert len(read(tmp_path / "w.xyz", text)) == 2
    found = read(tmp_path / "w.xyz.gz", gzip.compress(text.encode()))
    assert [s.provenance["comment"] for s in found] == ["a", "b"]


def test_heavy_water_is_said_to_be_heavy(tmp_path: Path) -> None:
    for header in ("heavy", "Properties=species:S:1:pos:R:3"):
        (structure,) = read(tmp_path / "w.xyz", f"3\n{header}\n{ROWS}".replace("H ", "D ", 1))
        is_water(structure, 0, 0)
        assert structure.provenance["isotopes"] == ["D"]


def test_truth_values_of_extended_xyz(tmp_path: Path) -> None:
    header = 'Properties=species:S:1:pos:R:3:move_mask:L:1 pbc="F F F" converged=T'
    rows = "\n".join(row + flag for row, flag in zip(ROWS.splitlines(), (" T", " F", " T"), strict=True))
    is_water(read(tmp_path / "w.xyz", f"3\n{header}\n{rows}\n")[0], 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("844769900\nx\nH 0 0 0\n", "line 1 says 844769900 atoms, 1 lines follow"),
        ("99999999999999999999999\nx\nH 0 0 0\n", "is no number of atoms"),
        ("-3\nx\n" + ROWS, "is no number of atoms"),
        ("0\nx\n", "a frame of 0 atoms"),
        ("3\nx\n" + ROWS + "what is this\n", "line 6: 'what is this' is no number of atoms"),
        (
            "3\nx\n" + ROWS.replace("H 0 0.763", "H 0"),
            "line 4: 'H 0 -0.477', expected a symbol and three numbers",
        ),
        ("4\nx\n" + ROWS + "X 0 0 3\n", r"atom 4 \(X\) is a dummy or ghost atom"),
        ("4\nx\n" + ROWS + "Bq 0 0 3\n", "unknown element 'Bq'"),
    ],
)
def test_counts_and_lines_are_checked_at_once(tmp_path: Path, text: str, message: str) -> None:
    begin = time.process_time()
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path / "w.xyz", text)
    assert "w.xyz" in str(error.value)
    assert time.process_time() - begin < 60


def test_one_bad_frame_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "w.xyz").write_text(f"3\na\n{ROWS}1\ncharge=0\nH 0 0 0\n3\nb\n{ROWS}")
    found = list(structures.each(tmp_path / "w.xyz"))
    assert [isinstance(entry, InputError) for entry in found] == [False, True, False]
    assert "frame 2 of 3" in str(found[1])


def test_an_at_sign_in_a_name_is_no_index(tmp_path: Path) -> None:
    ase_write(tmp_path / "w.traj", [WATER])
    (tmp_path / "w.traj").rename(tmp_path / "w@1.traj")
    is_water(structures.read(tmp_path / "w@1.traj")[0], 0, 0)
