"""``helmol predict`` with the model that comes along: what a chemist takes home, asked for by name."""

import csv
import json
import sys

import ase.io
import numpy as np
import pytest
from typer.testing import CliRunner

import helmol
from helmol import dft
from helmol.cli.main import app
from helmol.cli.predict import format_writers
from helmol.model import ModelConfig, build
from helmol.predict import PredictionFile, TrainedModel
from helmol.predict.exports import CubeWriter
from helmol.predict.files import predict_file
from helmol.predict.prediction import Prediction
from helmol.target import Domain
from helmol.units import ANGSTROM_PER_BOHR, DEBYE_PER_AU
from toy_store import TINY

XYZ = """3
name=water
O 0.0 0.1 0.0
H 0.8 0.6 0.0
H -0.7 0.7 0.1
4
name=formaldehyde
C 0.0 0.0 0.0
O 1.21 0.05 0.0
H -0.58 0.94 0.0
H -0.58 -0.94 0.1
"""


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verb")
    (folder / "two.xyz").write_text(XYZ)
    return folder


FORMATS = (
    "--cube", "homo,lumo+1", "--cube", "density", "--cube-spacing", "0.8", "--chkfile", "--molden", "--dos",
)  # fmt: skip


@pytest.fixture(scope="module")
def everything(place):
    out = place / "all"
    asked = ("--properties", "charges,bonds", "--properties", "quadrupole", "--extxyz")
    answer = call("predict", "organic", place / "two.xyz", "--out", out, *FORMATS, *asked)
    assert answer.exit_code == 0, answer.output
    assert "2 predicted, 0 already there, 0 skipped" in answer.output
    return out


def test_every_file_that_was_asked_for_is_there(everything):
    suffixes = ("npz", "homo.cube", "lumo+1.cube", "density.cube", "chk", "molden", "dos.png")
    names = {f"{name}.{suffix}" for name in ("water", "formaldehyde") for suffix in suffixes}
    tables = {"summary.csv", "atoms.csv", "bonds.csv", "predictions.extxyz"}
    assert {path.name for path in everything.iterdir()} == names | tables


def test_the_tables_say_what_the_model_says_in_python(everything, place):
    model = helmol.load("organic")
    frames = ase.io.read(everything / "predictions.extxyz", ":")
    with (everything / "summary.csv").open() as file:
        summary = {row["id"]: row for row in csv.DictReader(file)}
    with (everything / "atoms.csv").open() as file:
        atoms = list(csv.DictReader(file))
    for atoms_read in frames:
        name = atoms_read.info["name"]
        prediction = model.predict(atoms_read)
        row = summary[name]
        assert float(row["gap_Eh"]) == pytest.approx(prediction.gap, abs=1e-6)
        assert float(row["quadrupole_xy_debye_angstrom"]) == pytest.approx(
            prediction.quadrupole[0, 1], abs=1e-4
        )
        mine = [entry for entry in atoms if entry["id"] == name]
        for column, values in (
            ("mulliken_charge", prediction.charges),
            ("lowdin_charge", prediction.lowdin_charges),
            ("iao_charge", prediction.iao_charges),
        ):
            assert [float(entry[column]) for entry in mine] == pytest.approx(values.tolist(), abs=1e-5)
        dipole = atoms_read.get_dipole_moment() / ANGSTROM_PER_BOHR * DEBYE_PER_AU
        assert dipole == pytest.approx(prediction.dipole, abs=1e-4)
    with (everything / "bonds.csv").open() as file:
        bonds = {(row["id"], row["element_1"], row["element_2"]): row for row in csv.DictReader(file)}
    assert float(bonds["formaldehyde", "C", "O"]["mayer_bond_order"]) == pytest.approx(2, abs=0.3)


def test_the_same_command_does_nothing_twice_and_fills_what_is_missing(everything, place):
    before = {path.name: path.read_bytes() for path in everything.iterdir()}
    (everything / "water.homo.cube").unlink()
    (everything / "water.chk").unlink()
    asked = ("--properties", "charges,bonds,quadrupole", "--extxyz")
    answer = call("predict", "organic", place / "two.xyz", "--out", everything, *FORMATS, *asked)
    assert "0 predicted, 2 already there" in answer.output
    after = {path.name: path.read_bytes() for path in everything.iterdir()}
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"water.homo.cube", "water.chk"}  # they have a date


@pytest.mark.parametrize("asked", [{"cubes": ["homo"]}, {"chkfile": True}])
def test_without_pyscf_formats_that_need_it_are_refused_before_any_work(monkeypatch, asked):
    monkeypatch.setitem(sys.modules, "helmol.dft", None)
    nothing = {"cubes": [], "spacing": 0.3, "molden": False, "chkfile": False, "dos": False}
    with pytest.raises(ModuleNotFoundError):
        format_writers(helmol.load("organic"), **{**nothing, **asked})


def test_cubes_of_other_points_are_made_anew(place, tmp_path):
    def lines():
        return (tmp_path / "p/water.homo.cube").read_text().splitlines()

    arguments = ("predict", "organic", place / "two.xyz", "--out", tmp_path / "p", "--cube", "homo")
    call(*arguments, "--cube-spacing", "0.8")
    coarse = lines()
    for spacing, same in (("0.8", True), ("0.7", False), ("0.5", False)):
        answer = call(*arguments, "--cube-spacing", spacing)
        assert "0 predicted, 2 already there" in answer.output
        assert (lines() == coarse) == same
        assert CubeWriter("homo", float(spacing)).fits(tmp_path / "p/water.homo.cube")
    assert not CubeWriter("homo", 0.65).fits(tmp_path / "p/water.homo.cube")
    (tmp_path / "p/water.homo.cube").write_text("half")
    call(*arguments, "--cube-spacing", "0.8")
    assert lines()[2:] == coarse[2:]


def test_parts_in_one_file(place, tmp_path):
    names = []
    for k in (1, 2):
        arguments = ("--shard", f"{k}/2", "--one-file", "--no-matrices", "--json", tmp_path / "r.json")
        answer = call("predict", "organic", place / "two.xyz", "--out", tmp_path / f"{k}", *arguments)
        assert answer.exit_code == 0, answer.output
        assert json.loads((tmp_path / "r.json").read_text())["n_molecules"] == 1
        with PredictionFile(tmp_path / f"{k}") as predictions:
            names += list(predictions)
            (arrays,) = (predictions.arrays(name) for name in predictions)
        assert arrays["mo_energy"].shape == arrays["mo_occ"].shape
        assert np.linalg.norm(arrays["dipole"]) > 1
    assert names == ["water", "formaldehyde"]


def test_a_radical_of_an_unrestricted_model(tmp_path):
    """A network of random weights, which adds nothing yet to its reference."""
    config = dft.LevelConfig(xc="pbe", basis="sto-3g")
    level, basis = dft.level_of_theory(config, method="uks"), dft.basis_set(config, {1, 8})
    model = TrainedModel(
        build(ModelConfig(**TINY), Domain(level, basis, "fock-minus-minao-lite", (0,), (1,)))
    )
    (tmp_path / "oh.xyz").write_text("2\nname=oh charge=0 spin=2\nO 0 0 0\nH 0.1 0 0.96\n")
    writers = format_writers(
        model, cubes=["homo", "spin", "lumo-beta"], spacing=0.8, molden=False, chkfile=True, dos=True
    )
    result = predict_file(
        model, tmp_path / "oh.xyz", out=tmp_path / "p", properties=["spins", "charges"], writers=writers
    )
    assert result["n_molecules"] == 1
    cubes = ("homo-alpha.cube", "homo-beta.cube", "spin.cube", "lumo-beta.cube")
    suffixes = {*cubes, "chk", "dos.png", "npz"}
    names = {"summary.csv", "atoms.csv", *(f"oh.{suffix}" for suffix in suffixes)}
    assert {path.name for path in (tmp_path / "p").iterdir()} == names
    with (tmp_path / "p/atoms.csv").open() as file:
        rows = list(csv.DictReader(file))
    for column, total in (("mulliken_spin", 1), ("lowdin_spin", 1), ("iao_charge", 0)):
        assert sum(float(row[column]) for row in rows) == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cube", "homo,elf"), "cannot make a cube of 'elf'"),
        (("--cube", "spin"), "no spin density"),
        (("--cube", "homo", "--cube-spacing", "0"), "distance above 0"),
        (("--cube", "homo", "--no-matrices"), "need the matrices"),
        (("--properties", "charge"), "unknown property 'charge'"),
        (("--properties", "spins"), "unrestricted models"),
        (("--shard", "half"), "cannot read --shard 'half'"),
        (("--shard", "3/2"), "i from 1 to n"),
    ],
)
def test_what_cannot_be_had_is_one_line_and_leaves_nothing(place, tmp_path, arguments, said):
    answer = call("predict", "organic", place / "two.xyz", "--out", tmp_path / "p", *arguments)
    assert answer.exit_code == 1
    assert said in " ".join(answer.output.split())
    assert not (tmp_path / "p").exists()


def test_energies_and_forces_are_those_of_dft(place):
    out = place / "energies"
    answer = call("predict", "organic", place / "two.xyz", "--out", out, "--properties", "energy,forces")
    assert answer.exit_code == 0, answer.output
    with (out / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    model = helmol.load("organic")
    for row in rows:
        prediction = Prediction.load(out / row["file"])
        level = dft.level_from(model.domain.level)
        mf = dft.mean_field(dft.build_mole(prediction.molecule, level), level)
        assert float(row["energy_Eh"]) == pytest.approx(mf.kernel(), abs=4e-5)
        assert float(row["energy_error_Eh"]) < 4e-5
        with np.load(out / row["file"]) as arrays:
            assert arrays["forces"] == pytest.approx(-mf.nuc_grad_method().kernel(), abs=5e-4)
