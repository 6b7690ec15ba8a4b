"""Energies and forces of a file become labels of the level that the user names, or of none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import write as ase_write

from helmol import dft, structures
from helmol.cli.main import main
from helmol.errors import InputError, StoreError
from helmol.exchange import import_energies, named_level
from helmol.store import Store
from helmol.units import EV_PER_ANGSTROM_PER_AU, EV_PER_HARTREE

LEVEL = named_level("pbe/sto-3g", grid_level=1)
Frame = tuple[Atoms, float, np.ndarray]


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """Water and its cation's relatives with energies (Eh) and forces (Eh/bohr) at the level."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(3):
        positions = np.array([[0, 0, 0.119], [0, 0.763, -0.477], [0, -0.763, -0.477]])
        atoms = Atoms("OH2", positions=positions + 0.05 * rng.normal(size=(3, 3)))
        sample, _ = dft.run(structures.from_atoms(atoms), LEVEL, id="w", forces=True, references=())
        found.append((atoms, sample.energy, sample.forces))
    return found


def written(path: Path, frames: list[Frame], *, unit: str = "eV", prefix: str = "", **header: Any) -> Path:
    """Write the frames as MACE (with a prefix) or ASE do."""
    energy_unit, force_unit = {"eV": (EV_PER_HARTREE, EV_PER_ANGSTROM_PER_AU), "Eh": (1.0, 1.0)}[unit]
    made = []
    for atoms, energy, forces in frames:
        copy = atoms.copy()
        copy.info.update(header)
        if prefix:
            copy.info[f"{prefix}energy"] = energy * energy_unit
            copy.arrays[f"{prefix}forces"] = forces * force_unit
        else:
            copy.calc = SinglePointCalculator(copy, energy=energy * energy_unit, forces=forces * force_unit)
        made.append(copy)
    if path.suffix == ".db":
        database = connect(path)
        for copy in made:
            database.write(copy)
    else:
        ase_write(path, made, format="extxyz")
    return path


@pytest.mark.parametrize(
    ("name", "unit", "prefix", "units"),
    [
        ("f.extxyz", "eV", "", ("eV", "eV/Å")),
        ("f.db", "eV", "", ("eV", "eV/Å")),
        ("f.extxyz", "Eh", "REF_", ("Eh", "Eh/bohr")),
        ("f.extxyz", "eV", "dft_", ("eV", "eV/Å")),
    ],
)
def test_labels_come_in_atomic_units(
    tmp_path: Path, frames: list[Frame], name: str, unit: str, prefix: str, units: tuple[str, str]
) -> None:
    path = written(tmp_path / name, frames, unit=unit, prefix=prefix)
    result = import_energies(path, out=tmp_path / "out.h5", level=LEVEL)
    assert (result["n_stored"], result["n_skipped"]) == (3, 0)
    assert (result["energies"], result["force_unit"]) == units
    assert (result["energy"], result["forces"]) == (f"{prefix}energy", f"{prefix}forces")
    assert abs(result["energy_difference_Eh"]) < 1e-7
    with Store.open(tmp_path / "out.h5") as store:
        for k, (_, energy, forces) in enumerate(frames):
            sample = store[k]
            assert sample.energy == pytest.approx(energy, abs=1e-7)
            np.testing.assert_allclose(sample.forces, forces, atol=1e-6)
            assert not sample.matrices.fock.size
        assert store.level.xc_resolved == "1*101 + 1*130"
        assert store.level.code == f"not stated ({name})"
    again = import_energies(path, out=tmp_path / "out.h5", level=LEVEL)
    assert (again["n_new"], again["content_hash"]) == (0, result["content_hash"])


def test_another_level_is_refused(tmp_path: Path, frames: list[Frame]) -> None:
    path = written(tmp_path / "f.extxyz", frames)
    for level in ("b3lyp/sto-3g", "pbe/3-21g"):
        with pytest.raises(InputError, match=r"is in no unit that of .*: another level"):
            import_energies(path, out=tmp_path / "out.h5", level=named_level(level, grid_level=1))
        assert not (tmp_path / "out.h5").exists()
    turned = [(atoms, energy, forces[:, [1, 2, 0]]) for atoms, energy, forces in frames]
    with pytest.raises(InputError, match="the forces agree in no known unit"):
        import_energies(written(tmp_path / "g.extxyz", turned), out=tmp_path / "out.h5", level=LEVEL)


def test_several_labels_must_be_named(tmp_path: Path, frames: list[Frame]) -> None:
    path = written(tmp_path / "f.extxyz", frames, xtb_energy=-5.07)
    with pytest.raises(
        InputError, match=r"several labels of energy: .*name those of the level with --energy"
    ):
        import_energies(path, out=tmp_path / "out.h5", level=LEVEL)
    with pytest.raises(InputError, match="no energy called 'mp2_energy': there are"):
        import_energies(path, out=tmp_path / "out.h5", level=LEVEL, energy="mp2_energy")
    with pytest.raises(InputError, match="another level"):
        import_energies(path, out=tmp_path / "out.h5", level=LEVEL, energy="xtb_energy")
    assert import_energies(path, out=tmp_path / "out.h5", level=LEVEL, energy="energy")["n_stored"] == 3
    bare = tmp_path / "bare.xyz"
    ase_write(bare, frames[0][0])
    with pytest.raises(InputError, match="has no energies"):
        import_energies(bare, out=tmp_path / "none.h5", level=LEVEL)


def test_what_cannot_be_read_is_skipped_and_named(tmp_path: Path, frames: list[Frame]) -> None:
    path = written(tmp_path / "f.extxyz", [*frames, *frames[:2]])
    lines = path.read_text().splitlines()
    lines[6] = lines[6].replace("energy=", "energy=nan was=")
    lines[11] += " solvent=water"
    path.write_text("\n".join(lines) + "\n")
    result = import_energies(path, out=tmp_path / "out.h5", level=LEVEL)
    assert (result["n_selected"], result["n_stored"], result["n_skipped"]) == (5, 3, 2)
    assert [(entry["item"], entry["row"]) for entry in result["skipped"]] == [("f-00002", 3), ("f-00001", 2)]
    assert "solvent" in result["skipped"][0]["reason"]
    assert "its energy is nan" in result["skipped"][1]["reason"]
    assert {entry["file"] for entry in result["skipped"]} == {str(path)}
    with pytest.raises(InputError, match=r"row 3, 'f-00002': .*solvent"):
        import_energies(path, out=tmp_path / "strict.h5", level=LEVEL, strict=True)


def test_a_store_of_something_else_is_left_alone(tmp_path: Path, frames: list[Frame]) -> None:
    out = tmp_path / "out.h5"
    import_energies(written(tmp_path / "f.extxyz", frames), out=out, level=LEVEL)
    other = LEVEL.model_copy(update={"xc": "b3lyp"})
    with pytest.raises(StoreError, match="another level"):
        import_energies(tmp_path / "f.extxyz", out=out, level=other, n_checked=0)
    trusted = import_energies(
        written(tmp_path / "f.extxyz", frames[:1]), out=tmp_path / "t.h5", level=LEVEL, n_checked=0
    )
    assert (trusted["checked"], trusted["energy_difference_Eh"]) == ([], None)
    with pytest.raises(StoreError, match="which is not in the file"):
        import_energies(tmp_path / "f.extxyz", out=out, level=LEVEL, n_checked=0)


@pytest.mark.parametrize("text", ["pbe", "/def2-svp", "pbe/", "omol25"])
def test_a_level_has_a_functional_and_a_basis(text: str) -> None:
    with pytest.raises(InputError, match="expected FUNCTIONAL/BASIS"):
        named_level(text)
    assert (named_level("wb97m-v/def2-tzvpd").xc, named_level("omol").basis) == ("wb97m-v", "def2-tzvpd")


def test_the_command_asks_for_the_level(
    tmp_path: Path, frames: list[Frame], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "f.extxyz", frames)
    given = ["import", "extxyz", str(path), "--out", str(tmp_path / "out.h5")]
    for more, code, text in (
        ([], 1, "does not say at which level its energies were computed"),
        (["--level", "pbe/sto-3g", "--split", "id"], 1, "has no official split"),
        (["--level", "pbe/sto-3g"], 0, "energy in eV, forces in eV/Å"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*given, *more])
        said = capsys.readouterr()
        assert stopped.value.code == code
        assert text in said.out + said.err
