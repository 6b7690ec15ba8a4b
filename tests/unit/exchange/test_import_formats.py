"""Every format there and back to the last bit, and every planted fault is caught and named."""

import sqlite3

import numpy as np
import pytest

import foreign_files as foreign
from foreign_files import BOHR, FLUORIDE, WATER, label
from helmol.errors import InputError, StoreError
from helmol.exchange import import_file
from helmol.store import Store

SECOND = tuple((z, 1.02 * x, y, z_ - 0.03 * y) for z, x, y, z_ in WATER)
WRITERS = {
    "md17": foreign.write_md17,
    "qh9-stable": foreign.write_qh9_stable,
    "qh9-dynamic": foreign.write_qh9_dynamic,
    "nabladft": foreign.write_nabladft,
    "omol-csh": foreign.write_omol,
}
XC = {
    "md17": "pbe",
    "qh9-stable": "b3lyp5",
    "qh9-dynamic": "b3lyp5",
    "nabladft": "HYB_GGA_XC_WB97X_D",
    "omol-csh": "wb97m-v",
}


def labels(format, *atoms):
    forces = format in ("md17", "nabladft")
    if format == "omol-csh":
        return [label(a, "wb97m-v", "def2-tzvpd", density_fit=True) for a in atoms or (FLUORIDE,)]
    return [label(a, XC[format], forces=forces) for a in atoms or (WATER, SECOND)]


def imported(format, path, out, **options):
    result = import_file(format, path, out=out, **options)
    with Store.open(out) as store:
        return result, list(store), store.level, store.splits


@pytest.mark.parametrize("format", WRITERS)
def test_there_and_back_to_the_last_bit(format, tmp_path):
    known = labels(format)
    WRITERS[format](tmp_path / "set.db", known)
    result, samples, level, _ = imported(format, tmp_path / "set.db", tmp_path / "x.h5")
    assert result["n_stored"] == len(known)
    assert level.xc == XC[format].lower()
    # The density fit of the check has another auxiliary basis than the label.
    assert result["checks"]["fock_error_Eh"] < (5e-3 if format == "omol-csh" else 1e-5)
    single = format in ("md17", "nabladft")
    for one, sample in zip(known, samples, strict=True):
        matrices = [(one.fock, sample.matrices.fock)]
        assert (sample.matrices.overlap is not None) is single
        assert (sample.energy is not None) is single
        assert (sample.forces is not None) is single
        if single:
            matrices.append((one.overlap, sample.matrices.overlap))
            assert sample.energy == one.energy
            assert np.array_equal(sample.forces, one.forces.astype(np.float32))
            assert result["checks"]["overlap_error"] < 1e-6
            assert result["forces"] == "Eh/bohr"
        for mine, theirs in matrices:
            mine = mine.astype(np.float32 if single else np.float64).astype(np.float64)
            assert np.array_equal(foreign.house(mine, one.shells), theirs)
        assert sample.matrices.fock.dtype == np.float64
        assert np.allclose(sample.molecule.positions_ang, one.positions_ang, atol=1e-6 if single else 1e-14)


def test_md17_in_the_other_encoding_is_the_same(tmp_path):
    known = labels("md17")
    foreign.write_md17(tmp_path / "set.db", known)
    _, old, _, _ = imported("md17", tmp_path / "set.db", tmp_path / "old.h5")
    (tmp_path / "set.db").unlink()
    foreign.write_md17(tmp_path / "set.db", known, blobs=True)
    _, new, _, _ = imported("md17", tmp_path / "set.db", tmp_path / "new.h5")
    for left, right in zip(old, new, strict=True):
        assert np.array_equal(left.matrices.fock, right.matrices.fock)
        assert np.array_equal(left.forces, right.forces)


def test_md17_energies_and_forces_are_decided_by_calculation(tmp_path):
    known = labels("md17")
    foreign.write_md17(tmp_path / "set.db", known, energy_mean=-76.0, force_factor=1 / BOHR)
    result, samples, _, _ = imported("md17", tmp_path / "set.db", tmp_path / "x.h5")
    assert result["energies"] == "mean_energy added"
    assert result["forces"] == "Eh/Å"
    assert samples[0].energy == pytest.approx(known[0].energy, abs=1e-9)
    assert np.allclose(samples[1].forces, known[1].forces, atol=1e-7)


def test_what_cannot_be_understood_is_left_out_and_said(tmp_path):
    foreign.write_md17(tmp_path / "set.db", labels("md17"), force_factor=7.0)
    with sqlite3.connect(tmp_path / "set.db") as db:
        db.execute("UPDATE systems SET data = replace(data, '\"_dtype_energy\"', '\"_dtype_other\"')")
        db.execute("UPDATE systems SET data = replace(data, '\"energy\"', '\"other\"')")
    result, samples, _, _ = imported("md17", tmp_path / "set.db", tmp_path / "x.h5")
    assert result["energies"] == "missing"
    assert result["forces"].startswith("left out")
    assert all(s.energy is None and s.forces is None for s in samples)


def test_null_stays_missing(tmp_path):
    foreign.write_nabladft(tmp_path / "set.db", labels("nabladft")[:1], missing=("E", "F", "S"))
    result, (sample,), _, _ = imported("nabladft", tmp_path / "set.db", tmp_path / "x.h5")
    assert (sample.energy, sample.forces, sample.matrices.overlap) == (None, None, None)
    assert result["checks"]["overlap_error"] is None
    assert sample.provenance["moses_id"] == 100


FAULTS = {
    "order, by S": ("md17", {"matrices": foreign.house}, "orbitals stand in m = -l"),
    "order, by F": ("qh9-stable", {"matrices": foreign.orca}, "orbitals stand in ORCA's order"),
    "house order where PySCF's is meant": ("qh9-stable", {"matrices": foreign.house}, "stand in m = -l"),
    "bohr for Å, by S": ("md17", {"scale": 1 / BOHR}, "positions are in bohr where Å were expected"),
    "bohr for Å, by F": ("qh9-stable", {"scale": 1 / BOHR}, "positions are in bohr where Å were expected"),
    "Å for bohr": ("qh9-dynamic", {"scale": 1.0}, "positions are in Å where bohr were expected"),
    "Å for bohr, by S": ("nabladft", {"scale": 1.0}, "positions are in Å where bohr were expected"),
    "sorted shells": ("omol-csh", {"matrices": lambda o: foreign.house(o.fock, o.shells)}, "m = -l"),
    "no mistake to undo": (
        "omol-csh",
        {"matrices": lambda o: foreign.published_omol(o, mistaken=False)},
        "diffuse shells last",
    ),
    "truncated blob": ("qh9-stable", {"cut": 8}, "truncated"),
    "truncated triangle": ("omol-csh", {"cut": 1}, "truncated"),
    "version 1": ("nabladft", {"version": 1}, "nablaDFT version 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught_and_named(fault, tmp_path):
    format, options, words = FAULTS[fault]
    WRITERS[format](tmp_path / "set.db", labels(format)[:1], **options)
    with pytest.raises(InputError, match=words):
        import_file(format, tmp_path / "set.db", out=tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    ("name", "xc", "named"), [("a-300k.db", "b3lyp", "b3lyp"), ("a-100k.db", "b3lyp5", "b3lyp5")]
)
def test_the_wrong_b3lyp_is_named(name, xc, named, tmp_path):
    foreign.write_qh9_dynamic(tmp_path / name, [label(WATER, xc)])
    with pytest.raises(InputError, match=f"the functional is {named}, not"):
        import_file("qh9-dynamic", tmp_path / name, out=tmp_path / "x.h5")


def test_the_100k_file_has_the_later_b3lyp(tmp_path):
    foreign.write_qh9_dynamic(tmp_path / "a-100k.db", [label(WATER, "b3lyp")])
    _, _, level, _ = imported("qh9-dynamic", tmp_path / "a-100k.db", tmp_path / "x.h5")
    assert level.xc == "b3lyp"


def test_of_two_rows_with_one_id_the_second_is_skipped(tmp_path):
    known = labels("qh9-dynamic")
    foreign.write_qh9_dynamic(tmp_path / "set.db", known)
    with sqlite3.connect(tmp_path / "set.db") as db:
        db.execute("UPDATE data SET id = (SELECT id FROM data LIMIT 1), geo_id = 0")
    result, samples, _, _ = imported("qh9-dynamic", tmp_path / "set.db", tmp_path / "x.h5")
    assert [s.id for s in samples] == ["qh9d-0-0"]
    (entry,) = result["skipped"]
    assert (entry["item"], entry["row"]) == ("qh9d-0-0", 2)
    assert "another row has the same id" in entry["reason"]


def test_what_did_not_converge_is_left_out(tmp_path):
    foreign.write_qh9_dynamic(tmp_path / "set.db", labels("qh9-dynamic"), converged=[0, 1])
    result, samples, _, _ = imported("qh9-dynamic", tmp_path / "set.db", tmp_path / "x.h5")
    assert result["n_unconverged"] == 1
    (entry,) = result["skipped"]
    assert (entry["item"], entry["row"], entry["reason"]) == (
        "qh9d-0-0", 1, "its SCF did not converge, the file says",
    )  # fmt: skip
    assert [s.id for s in samples] == ["qh9d-1-1"]


def test_a_damaged_row_leaves_the_others_and_a_mended_file_goes_on(tmp_path):
    known = labels("qh9-stable", WATER, SECOND, FLUORIDE, FLUORIDE)
    path, out = tmp_path / "set.db", tmp_path / "x.h5"
    foreign.write_qh9_stable(path, known[:3])
    with sqlite3.connect(path) as db:
        (whole,) = db.execute("SELECT Ham FROM data WHERE id = 1").fetchone()
        db.execute("UPDATE data SET Ham = substr(Ham, 1, 100) WHERE id = 1")
    (entry,) = import_file("qh9-stable", path, out=out, n_checked=1)["skipped"]
    assert (entry["item"], entry["row"]) == ("qh9-1", 1)
    assert entry["reason"].startswith("Ham has 100 bytes")
    with Store.open(out) as store:
        assert store.ids == ["qh9-0", "qh9-2"]
    with sqlite3.connect(path) as db:
        db.execute("UPDATE data SET Ham = ? WHERE id = 1", (whole,))
    result = import_file("qh9-stable", path, out=out)
    assert (result["n_new"], result["n_stored"], result["n_skipped"]) == (1, 3, 0)
    assert import_file("qh9-stable", path, out=out)["n_new"] == 0
    (tmp_path / "other.db").write_bytes(path.read_bytes())
    with pytest.raises(StoreError, match=r"data of set\.db"):
        import_file("qh9-stable", tmp_path / "other.db", out=out)


def test_limit_elements_and_size(tmp_path):
    foreign.write_qh9_stable(tmp_path / "set.db", labels("qh9-stable", WATER, FLUORIDE, SECOND))
    for options, ids in (
        ({"limit": 1}, ["qh9-0"]),
        ({"elements": {1, 9}}, ["qh9-1"]),
        ({"max_atoms": 2}, ["qh9-1"]),
        ({"elements": {1, 8}, "limit": 5}, ["qh9-0", "qh9-2"]),
    ):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        assert [s.id for s in imported("qh9-stable", tmp_path / "set.db", out, **options)[1]] == ids
    with pytest.raises(InputError, match="no molecule"):
        import_file("qh9-stable", tmp_path / "set.db", out=tmp_path / "y.h5", elements={2})


@pytest.mark.parametrize("format", WRITERS)
def test_another_file_is_one_clear_error(format, tmp_path):
    (tmp_path / "text.db").write_text("this is no data base\n" * 100)
    with pytest.raises(InputError, match="cannot be read"):
        import_file(format, tmp_path / "text.db", out=tmp_path / "x.h5")
    other = "qh9-stable" if format != "qh9-stable" else "nabladft"
    WRITERS[other](tmp_path / "other.db", labels(other)[:1])
    with pytest.raises(InputError, match=r"lacks|cannot be read"):
        import_file(format, tmp_path / "other.db", out=tmp_path / "x.h5")


def test_omol_split_and_charge_come_from_the_file(tmp_path):
    foreign.write_omol(tmp_path / "test_common.h5", labels("omol-csh"))
    _, (sample,), level, splits = imported("omol-csh", tmp_path / "test_common.h5", tmp_path / "x.h5")
    assert splits == {"test": [sample.id]}
    assert (sample.molecule.charge, sample.molecule.spin) == (0, 0)
    assert level.ecp == "def2-tzvpd"
