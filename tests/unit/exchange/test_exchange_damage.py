"""Damaged bytes in foreign files and in helmol's own containers: right numbers, or one line."""

from __future__ import annotations

import json
import random
import sqlite3
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import foreign_files as foreign
from foreign_files import FLUORIDE, WATER, label
from forked import killed_after, together, tried
from helmol import dft
from helmol.errors import InputError
from helmol.exchange import export_store, import_file, import_store
from helmol.exchange.importing import _expected
from helmol.exchange.readers import READERS, read_sample, select
from helmol.skipped import Skips
from helmol.store import Store
from helmol.system import Molecule
from store_samples import assert_same

pytestmark = pytest.mark.faults

KINDS = ("npz", "qh9", "extxyz")


def written(path, kind):
    """Write a small file of a published format; return the format's name."""
    if kind.startswith("md17"):
        foreign.write_md17(path, [label(FLUORIDE, "pbe"), label(WATER, "pbe")], blobs=kind == "md17 blobs")
    elif kind == "qh9-stable":
        foreign.write_qh9_stable(path, [label(FLUORIDE, "b3lyp5"), label(WATER, "b3lyp5")])
    elif kind == "qh9-dynamic":
        foreign.write_qh9_dynamic(path, [label(FLUORIDE, "b3lyp5"), label(WATER, "b3lyp5")])
    elif kind == "nabladft":
        foreign.write_nabladft(path, [label(FLUORIDE, "pbe"), label(WATER, "pbe")])
    else:
        foreign.write_omol(path, [label(FLUORIDE, "pbe", "def2-tzvpd")])
    return kind.split()[0]


def read_all(format, path, limit=10):
    """Read every sample of a file, without recomputing anything."""
    with READERS[format](path) as reader:
        entries = select(reader, limit=limit, skips=Skips(strict=True))
        if not entries:
            raise InputError("nothing to read")
        arrangement, _ = _expected(reader, entries)
        for scheme in reader.schemes:
            tried(reader.splits, scheme, [entry.id for entry in entries])
        reader.energy_shifts()
        return [read_sample(reader, entry, arrangement) for entry in entries]


@pytest.mark.parametrize("kind", ["md17", "md17 blobs", "qh9-stable", "qh9-dynamic", "nabladft", "omol-csh"])
def test_a_damaged_published_file_is_read_or_refused_in_one_line(kind, tmp_path, many):
    path = tmp_path / ("set.h5" if kind == "omol-csh" else "set.db")
    format = written(path, kind)
    assert len(read_all(format, path)) == (1 if kind == "omol-csh" else 2)
    data, rng, refused = path.read_bytes(), random.Random(kind), 0
    used = [k for k in range(len(data)) if data[k]]
    # The heads of pages, cells and groups are where a format is told; matrices are most of the bytes.
    heads = [k for k in used if k % 4096 < 200 or data[k - 20 : k + 20].isascii()]
    turns = many(40, 3000)
    for turn in range(turns):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.choice(heads if turn % 3 else used)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged if turn % 7 else damaged[: rng.randrange(len(damaged))])
        refused += tried(read_all, format, path)[1] is not None
    assert refused > turns // 20


HUGE = [10**12, 10**30, -1, "x", None, [1], 1.5]


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("name", ["_shape_hamiltonian", "_dtype_hamiltonian", "hamiltonian", "energy"])
def test_md17_cells_that_claim_what_is_not_there(name, value, tmp_path):
    written(tmp_path / "set.db", "md17")
    with sqlite3.connect(tmp_path / "set.db") as db:
        (text,) = db.execute("SELECT data FROM systems WHERE id = 2").fetchone()
        value = [value, 3] if name.startswith("_shape") else value
        db.execute(
            "UPDATE systems SET data = ? WHERE id = 2", (json.dumps({**json.loads(text), name: value}),)
        )
    result, refusal = tried(read_all, "md17", tmp_path / "set.db")
    assert refusal or (name == "energy" and len(result) == 2)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "\x00", "5", "null"])
def test_md17_cells_that_are_nested_or_no_object(text, tmp_path):
    written(tmp_path / "set.db", "md17")
    with sqlite3.connect(tmp_path / "set.db") as db:
        db.execute("UPDATE systems SET data = ? WHERE id = 2", (text,))
        db.execute("UPDATE information SET value = ?", (text,))
    assert tried(read_all, "md17", tmp_path / "set.db")[1]


@pytest.mark.parametrize("value", [10**12, 2**62, -5, 0, "x", None, 1.5])
def test_qh9_numbers_of_atoms_that_cannot_be(value, tmp_path):
    written(tmp_path / "set.db", "qh9-stable")
    with sqlite3.connect(tmp_path / "set.db") as db:
        db.execute("UPDATE data SET N = ? WHERE id = 1", (value,))
    assert tried(read_all, "qh9-stable", tmp_path / "set.db")[1]


@pytest.mark.parametrize("name", ["fock", "elements", "coords"])
def test_omol_shapes_of_a_million_million_are_refused_at_once(name, tmp_path):
    written(tmp_path / "set.h5", "omol-csh")
    with h5py.File(tmp_path / "set.h5", "r+") as file:
        group = file["part0/mol0"]
        del group[name]
        group.create_dataset(name, shape=(10**12,), chunks=(1000,), dtype="<f8")
    with pytest.raises(InputError, match="claims more than the file can hold"):
        read_all("omol-csh", tmp_path / "set.h5")


def test_omol_groups_in_a_circle_end(tmp_path):
    written(tmp_path / "set.h5", "omol-csh")
    with h5py.File(tmp_path / "set.h5", "r+") as file:
        file["part0/back"] = file["/"]
    with READERS["omol-csh"](tmp_path / "set.h5") as reader:
        assert len(list(reader.entries())) < 10


@pytest.mark.parametrize("format", sorted(READERS))
def test_what_is_no_file_of_the_format_is_one_line(format, tmp_path):
    (tmp_path / "text").write_text("no data")
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    sqlite3.connect(tmp_path / "other.db").close()
    for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "missing"):
        assert tried(import_file, format, path, out=tmp_path / "out" / "x.h5")[1]
    assert not (tmp_path / "out").exists()


# helmol's own containers


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two labelled waters."""
    level = dft.LevelConfig(xc="hf", basis="sto-3g", method="rks")
    path = tmp_path_factory.mktemp("store") / "x.h5"
    positions = np.array([[0.0, 0.0, 0.1], [0.0, 1.43, -0.98], [0.0, -1.43, -0.98]])
    labelled = [
        dft.run(Molecule([8, 1, 1], positions * (1 + 0.02 * k)), level, id=f"mol/{k}", forces=True)
        for k in range(2)
    ]
    basis = labelled[0][1]
    with Store.create(path, level=dft.level_of_theory(level, method="rks"), basis=basis) as made:
        made.append([sample for sample, _ in labelled])
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_bit_does_not_come_back_as_a_label(kind, store, tmp_path, many):
    """Neither HDF5 nor SQLite know when a byte of an array changes; the digest does."""
    export_store(store, kind, out=tmp_path / "out")
    path = tmp_path / "out"
    if kind != "qh9":
        path = sorted(path.glob("mol_1.*"))[0]
    data, rng, refused = path.read_bytes(), random.Random(1), 0
    with Store.open(store) as opened:
        samples = list(opened)
    turns = many(25, 2000)
    for turn in range(turns):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged if turn % 6 else damaged[: rng.randrange(len(damaged))])
        back = tmp_path / "back.h5"
        refusal = tried(import_store, tmp_path / "out", out=back, strict=True)[1]
        refused += refusal is not None
        assert back.exists() != bool(refusal)
        if back.exists():
            with Store.open(back) as opened:
                for left, right in zip(samples, opened, strict=True):
                    assert_same(replace(left, provenance={}), replace(right, provenance={}))
            back.unlink()
        assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert refused > turns // 10


def test_a_changed_number_is_named(store, tmp_path):
    export_store(store, "npz", out=tmp_path / "out")
    path = tmp_path / "out" / "mol_1.npz"
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "fock": arrays["fock"] * (1 + 1e-15)})
    with pytest.raises(InputError, match=r"sample 'mol/1': molecule or labels have changed since"):
        import_store(tmp_path / "out", out=tmp_path / "back.h5", strict=True)
    np.savez(path, **{name: value for name, value in arrays.items() if name != "digest"})
    import_store(tmp_path / "out", out=tmp_path / "back.h5")  # written by helmol 0.1


@pytest.mark.parametrize(
    "header",
    [
        "{",
        "[]",
        "{}",
        '{"format": "helmol store 1"}',
        '{"format": "helmol store 1", "files": 3}',
        "[" * 99_999,
    ],
)
@pytest.mark.parametrize("files", [None, ["../../x.npz"], ["/etc/passwd"], [3], "x"])
def test_a_header_that_is_none_is_one_line(store, tmp_path, header, files):
    export_store(store, "npz", out=tmp_path / "out")
    path = tmp_path / "out" / "store.json"
    path.write_text(header if files is None else json.dumps({**json.loads(path.read_text()), "files": files}))
    assert tried(import_store, tmp_path / "out", out=tmp_path / "back.h5")[1]
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("kind", KINDS)
def test_temporary_files_of_an_earlier_start_block_no_conversion(kind, store, tmp_path):
    out = tmp_path / "out"
    if kind == "qh9":
        (tmp_path / ".out.part").write_bytes(b"half")
        (tmp_path / ".out.elsewhere-1-00000000.part").touch()
    else:
        out.mkdir()
        for name in (".unfinished-x1y2z3w4", ".unfinished.elsewhere-1-00000000.part", ".lock"):
            (out / name).touch()
    export_store(store, kind, out=out)
    assert import_store(out, out=tmp_path / "back.h5")["n_molecules"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_processes_one_writes_a_container(kind, store, tmp_path, many):
    for turn in range(many(2, 50)):
        out = tmp_path / f"{turn}"
        outcomes = together([lambda out=out: export_store(store, kind, out=out)["n_molecules"]] * 3)
        assert [outcome.get("ok") for outcome in outcomes].count(2) == 1
        assert all("ok" in o or "in use" in o["refused"] or "there already" in o["refused"] for o in outcomes)
        assert import_store(out, out=tmp_path / f"{turn}.h5")["n_molecules"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_conversion_killed_at_any_moment_goes_on(kind, store, tmp_path, many):
    rng = random.Random(2)
    for turn in range(many(2, 50)):
        out, kills = tmp_path / f"{turn}", 0
        while "ok" not in (
            outcome := killed_after(
                lambda out=out: export_store(store, kind, out=out)["n_molecules"],
                rng.uniform(0, 0.03) * 1.4**kills,
            )
        ):
            # It may have been done a moment before it was killed.
            if "refused" in outcome:
                assert "there already" in outcome["refused"]
                break
            kills += 1
        back = tmp_path / f"{turn}.h5"
        while "ok" not in killed_after(
            lambda out=out, back=back: made(out, back), rng.uniform(0, 0.2) * 1.4**kills
        ):
            kills += 1
        with Store.open(store) as before, Store.open(back) as after:
            assert after.content_hash == before.content_hash
    assert {path.name[:1] for path in tmp_path.iterdir() if path.name.endswith(".part")} <= {"."}


def made(out: Path, back: Path) -> bool:
    """Bring a container back, unless that is done."""
    return back.exists() or import_store(out, out=back)["n_molecules"] == 2
