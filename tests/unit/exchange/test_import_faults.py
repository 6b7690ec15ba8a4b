"""Rows that are damaged in odd ways: one line with file and molecule, nothing taken for a label."""

import base64
import json
import re
import sqlite3

import h5py
import numpy as np
import pytest

import foreign_files as foreign
from foreign_files import FLUORIDE, WATER, label
from helmol.errors import InputError
from helmol.exchange import import_file, importing
from helmol.store import Store

N_PACKED = 49 * 50 // 2
"""Packed matrix of hydrogen fluoride in def2-TZVPD."""


def qh9(tmp_path, change, *values):
    path = tmp_path / "set.db"
    foreign.write_qh9_stable(path, [label(FLUORIDE, "b3lyp5"), label(WATER, "b3lyp5")])
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE data SET {change} WHERE id = 1", values)
    return "qh9-stable", path


def md17(tmp_path, change, *, labels=None, row=2):
    path = tmp_path / "set.db"
    foreign.write_md17(path, labels or [label(FLUORIDE, "pbe"), label(WATER, "pbe")])
    with sqlite3.connect(path) as db:
        (text,) = db.execute("SELECT data FROM systems WHERE id = ?", (row,)).fetchone()
        data = json.loads(text)
        for name, array in change.items():
            del data[name], data[f"_shape_{name}"], data[f"_dtype_{name}"]
            if array is not None:
                data[name] = base64.b64encode(array.tobytes()).decode()
                data[f"_shape_{name}"], data[f"_dtype_{name}"] = list(array.shape), str(array.dtype)
        db.execute("UPDATE systems SET data = ? WHERE id = ?", (json.dumps(data), row))
    return path


@pytest.mark.parametrize(
    ("change", "value", "words"),
    [
        ("N = ?", None, "N is None, expected a number of atoms"),
        ("Z = ?", None, "Z is missing"),
        ("pos = ?", None, "pos is missing"),
        ("Ham = ?", None, "Ham is missing"),
        ("Z = ?", np.array([8, 1, 0], "<i4").tobytes(), "atomic number 0 is not an element"),
        ("Z = ?", np.array([255, 1, 1], "<i4").tobytes(), "atomic number 255 is not"),
        ("Z = ?", np.array([7, 1, 1], "<i4").tobytes(), "9 electrons .* cannot"),
        ("Z = ?", np.array([92, 1, 1], "<i4").tobytes(), "no functions for U"),
        ("pos = ?", np.full((3, 3), np.nan).tobytes(), r"atom 1 \(O\) has a coordinate"),
        ("pos = ?", np.zeros((3, 3)).tobytes(), r"atoms 1 .* are 0\.000 Å apart"),
        ("Ham = ?", np.full((24, 24), np.nan).tobytes(), "Ham holds values that are not finite"),
        ("Ham = ?", np.full((24, 24), np.inf).tobytes(), "Ham holds values that are not finite"),
        ("Ham = ?", np.zeros((24, 24)).tobytes(), "Ham holds nothing but zeros"),
        ("Ham = ?", np.triu(np.ones((24, 24))).tobytes(), "Ham differs from its transpose"),
    ],
)
def test_a_damaged_row_of_qh9_is_skipped_and_named(change, value, words, tmp_path):
    format, path = qh9(tmp_path, change, value)
    result = import_file(format, path, out=tmp_path / "x.h5")
    assert (result["n_selected"], result["n_stored"]) == (2, 1)
    is_skipped(result, path, "qh9-1", 1, words)
    with pytest.raises(InputError, match=rf"set\.db, row 1, 'qh9-1': .*{words}"):
        import_file(format, path, out=tmp_path / "y.h5", strict=True)


def is_skipped(result, path, item, row, words):
    """Compare the one record of what was skipped."""
    (entry,) = result["skipped"]
    assert result["n_skipped"] == 1
    assert (entry["item"], entry["file"], entry["row"]) == (item, str(path), row)
    assert re.search(words, entry["reason"])
    assert str(path) not in entry["reason"]


def test_rows_of_qh9_dynamic_have_ids(tmp_path):
    path = tmp_path / "set.db"
    foreign.write_qh9_dynamic(path, [label(FLUORIDE, "b3lyp5"), label(WATER, "b3lyp5")])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE data SET id = NULL WHERE geo_id = 1")
    result = import_file("qh9-dynamic", path, out=tmp_path / "x.h5")
    is_skipped(result, path, "row 2", 2, "it has no id")


def test_a_file_of_damaged_rows_leaves_nothing(tmp_path):
    path = tmp_path / "set.db"
    foreign.write_qh9_stable(path, [label(FLUORIDE, "b3lyp5"), label(WATER, "b3lyp5")])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE data SET Ham = NULL")
    with pytest.raises(InputError, match="'qh9-0': Ham is missing"):
        import_file("qh9-stable", path, out=tmp_path / "x.h5")
    with sqlite3.connect(path) as db:
        db.execute("UPDATE data SET Z = NULL")
    with pytest.raises(InputError, match=r"none of 2 rows can be used; the first: .*row 0, 'qh9-0': Z is"):
        import_file("qh9-stable", path, out=tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


def test_what_was_skipped_is_told_again_by_a_rerun(tmp_path):
    format, path = qh9(tmp_path, "Ham = ?", None)
    first, again = (import_file(format, path, out=tmp_path / "x.h5") for _ in range(2))
    assert (again["n_new"], again["skipped"]) == (0, first["skipped"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"energy": np.zeros(0)}, "energy has shape"),
        ({"energy": np.array([np.nan])}, "energy holds values that are not finite"),
        ({"forces": np.zeros((2, 3), "f4")}, r"forces has shape \(2, 3\), expected \(3, 3\)"),
        ({"forces": np.full((3, 3), np.inf, "f4")}, "forces holds values that are not finite"),
        ({"hamiltonian": np.ones((23, 24), "f4")}, r"hamiltonian has shape \(23, 24\)"),
        ({"hamiltonian": np.ones((23, 23), "f4")}, r"a matrix of shape \(23, 23\)"),
        ({"overlap": np.zeros((0, 0), "f4")}, "overlap holds nothing but zeros"),
        ({"hamiltonian": None}, r"it has no hamiltonian \(it has energy, forces, overlap\)"),
    ],
)
def test_a_damaged_row_of_md17_is_skipped_and_named(change, words, tmp_path):
    path = md17(tmp_path, change)
    result = import_file("md17", path, out=tmp_path / "x.h5")
    assert result["n_stored"] == 1
    is_skipped(result, path, "set-00002", 2, words)


@pytest.mark.parametrize("text", ["{broken", "[]", '{"mean_energy": "much"}'])
def test_damaged_metadata_of_md17_is_one_line(text, tmp_path):
    foreign.write_md17(tmp_path / "set.db", [label(FLUORIDE, "pbe", forces=True)])
    with sqlite3.connect(tmp_path / "set.db") as db:
        db.execute("UPDATE information SET value = ?", (text,))
    with pytest.raises(InputError, match="'metadata' in table 'information' is damaged"):
        import_file("md17", tmp_path / "set.db", out=tmp_path / "x.h5")


def test_labels_that_the_smallest_molecule_lacks_are_kept_for_the_others(tmp_path, caplog):
    known = [label(FLUORIDE, "pbe", forces=True), label(WATER, "pbe", forces=True)]
    path = md17(tmp_path, {"energy": None, "forces": None}, labels=known, row=1)
    result = import_file("md17", path, out=tmp_path / "x.h5")
    assert (result["energies"], result["forces"]) == ("as stored", "Eh/bohr")
    with Store.open(tmp_path / "x.h5") as store:
        assert (store[0].energy, store[0].forces) == (None, None)
        assert store[1].energy == known[1].energy
        assert np.array_equal(store[1].forces, known[1].forces.astype(np.float32))


def test_labels_of_which_nothing_is_known_are_counted(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(importing, "MOST_LOOKED_AT", 1)
    known = [label(FLUORIDE, "pbe", forces=True), label(WATER, "pbe", forces=True)]
    path = md17(tmp_path, {"energy": None, "forces": None}, labels=known, row=1)
    with caplog.at_level("WARNING", "helmol"):
        assert import_file("md17", path, out=tmp_path / "x.h5")["energies"] == "missing"
    assert "energies of 1 molecules left out" in caplog.text
    assert "forces of 1 molecules left out" in caplog.text


def test_forces_of_zeros_are_missing(tmp_path, caplog):
    known = [label(FLUORIDE, "pbe", forces=True), label(WATER, "pbe", forces=True)]
    path = md17(tmp_path, {"forces": np.zeros((3, 3), "f4")}, labels=known)
    with caplog.at_level("WARNING", "helmol"):
        import_file("md17", path, out=tmp_path / "x.h5")
    assert "forces of 'set-00002' are all zero" in caplog.text
    with Store.open(tmp_path / "x.h5") as store:
        assert store[0].forces is not None
        assert store[1].forces is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("elements", np.array([9.5, 1.0]), "elements has shape"),
        ("elements", np.array([[9, 1]]), r"elements has shape \(1, 2\)"),
        ("elements", np.array([b"F", b"H"]), "elements holds no numbers"),
        ("elements", 9, r"elements has shape \(\)"),
        ("elements", np.array([300, 1]), "atomic number 300 is not an element"),
        ("coords", np.array([[b"x"] * 3] * 2), "coords holds no numbers"),
        ("fock", None, "fock cannot be read"),
        ("fock", np.zeros(N_PACKED), "nothing but zeros"),
        ("charge", np.nan, "charge is nan, expected a whole number"),
        ("spin", "one", "spin holds no numbers"),
        ("spin", 3, "multiplicity 2S.1. is 3, expected 1"),
        ("spin", 0, "multiplicity 2S.1. is 0, expected 1"),
    ],
)
def test_a_damaged_molecule_of_omol_is_named(name, value, words, tmp_path):
    with h5py.File(tmp_path / "set.h5", "w") as file:
        group = file.create_group("a/b")
        group["elements"], group["coords"] = np.array([9, 1]), np.array([[0, 0, 0], [0, 0, 0.92]])
        group["fock"] = np.ones(N_PACKED)
        group.attrs["charge"], group.attrs["spin"] = 0, 1
        if name in group:
            del group[name]
            if value is None:
                group.create_group(name)
            else:
                group[name] = value
        else:
            group.attrs[name] = value
    with pytest.raises(InputError, match=rf"set\.h5.*a/b.*({words})"):
        import_file("omol-csh", tmp_path / "set.h5", out=tmp_path / "x.h5")


def test_omol_groups_are_walked_once_and_names_are_words(tmp_path):
    known = label(FLUORIDE, "wb97m-v", "def2-tzvpd", density_fit=True)
    for name, split in (("small_train.h5", "train"), ("omol_test_all.h5", "test")):
        foreign.write_omol(tmp_path / name, [known])
        with h5py.File(tmp_path / name, "a") as file:
            file["part0/circle"] = h5py.SoftLink("/")
            file["readme"] = "other things may lie there"
        with importing.READERS["omol-csh"](tmp_path / name) as reader:
            assert [entry.id for entry in reader.entries()] == ["part0/mol0"]
            assert reader.schemes[0] == split


def test_a_split_that_does_not_fit_is_refused_before_anything_is_read(tmp_path):
    foreign.write_qh9_stable(tmp_path / "set.db", [label(WATER, "b3lyp5")])
    for split in ("id", "ood"):
        with pytest.raises(InputError, match=rf"set\.db, split '{split}': .* the official split"):
            import_file("qh9-stable", tmp_path / "set.db", out=tmp_path / "x.h5", split=split)
    assert not (tmp_path / "x.h5").exists()
