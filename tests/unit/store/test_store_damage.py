"""Damage is an error that names the place, never another sample, never a label that is missing."""

import os
import random
import zlib

import h5py
import numpy as np
import pytest

from forked import tried
from helmol.errors import StoreError
from helmol.store import Store
from store_samples import BASIS, LEVEL, assert_same, water

pytestmark = pytest.mark.faults

LABELS = ("energy", "forces", "dipole", "overlap", "reference_minao", "fock")


def make(path, n):
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append([water(k) for k in range(n)])
        store.set_splits({"train": ["water-0"], "test": ["water-1"]})
    return path


def look(path):
    """Read all that a store says without its matrices, and with them."""
    with Store.open(path) as store:
        assert store.ids == [f"water-{k}" for k in range(3)]
        assert store.splits == {"train": ["water-0"], "test": ["water-1"]}
        assert store.n_atoms.tolist() == [3, 3, 3]
        for row in range(3):
            assert store.row(f"water-{row}") == row
            assert store.numbers(row).tolist() == [8, 1, 1]
            assert store.composition(row) == np.array([8, 1, 1], dtype="<i2").tobytes()
            assert store.provenance(row)["frame"] == row
            assert np.array_equal(store.molecule(row).positions, water(row).molecule.positions)
        assert all(store.has(label).all() for label in LABELS)
        for row in range(3):
            assert_same(store[row], water(row))


def test_no_flipped_bit_reads_as_something_else(tmp_path, many):
    """Over the whole file: ids, indices, splits and labels are right, or there is one line."""
    path = make(tmp_path / "x.h5", 3)
    data, rng, caught = path.read_bytes(), random.Random(2), 0
    used = [k for k in range(len(data)) if data[k]]
    turns = many(200, 20_000)
    for position in rng.choices(used, k=turns):
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        caught += tried(look, path)[1] is not None
    assert caught > turns // 2


def test_no_zeroed_sector_reads_as_something_else(tmp_path, many):
    """What a disk loses is a sector; zeros are what HDF5 returns for what it cannot find."""
    path = make(tmp_path / "x.h5", 3)
    data, caught = path.read_bytes(), 0
    starts = [k for k in range(0, len(data), 512) if any(data[k : k + 512])]
    for start in starts[:: many(3, 1)]:
        damaged = bytearray(data)
        damaged[start : start + 512] = bytes(len(damaged[start : start + 512]))
        path.write_bytes(damaged)
        caught += tried(look, path)[1] is not None
    assert caught > len(starts) // many(6, 2)


@pytest.mark.parametrize("column", ["energy", "forces", "fock", "id", "reference_minao"])
@pytest.mark.parametrize("rows", [slice(0, 1), slice(2, 3), slice(0, 3)])
def test_a_damaged_index_is_no_missing_label(tmp_path, column, rows):
    path = make(tmp_path / "x.h5", 3)
    with h5py.File(path, "r+") as file:
        index = file[f"columns/{column}/index"]
        values = index[:]
        # As if these labels had never been there: no values, and a checksum that says so.
        lengths = np.diff(values[:, 0], prepend=0)
        lengths[rows] = 0
        values[:, 0], values[rows, 1] = np.cumsum(lengths), 0
        index[:] = values
    with pytest.raises(StoreError, match=f"the index of column '{column}' does not match its checksum"):
        Store.open(path)


def test_a_damaged_id_is_no_unknown_sample(tmp_path):
    path = make(tmp_path / "x.h5", 3)
    data = bytearray(path.read_bytes())
    place = data.find(b"water-0water-1")
    assert place > 0
    data[place + 6] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="id does not match its checksum"):
        Store.open(path)


def test_a_store_of_helmol_0_1_has_no_checksums_of_its_indices_until_the_next_append(tmp_path):
    path = make(tmp_path / "x.h5", 2)
    with h5py.File(path, "r+") as file:
        for column in file["columns"].values():
            del column["index"].attrs["checksum"]
    with Store.open(path, "a") as store:
        assert_same(store[0], water(0))
        store.append([water(2)])
    look(path)
    with h5py.File(path, "r") as file:
        for column in file["columns"].values():
            n, checksum = column["index"].attrs["checksum"]
            assert (n, checksum) == (3, zlib.crc32(column["index"][:].tobytes()))


def test_rows_that_helmol_0_1_has_appended_are_taken_as_they_are(tmp_path):
    """It knows nothing of the checksum, which is of the rows of before."""
    path = make(tmp_path / "x.h5", 3)
    with h5py.File(path, "r+") as file:
        for column in file["columns"].values():
            rows = column["index"][:2]
            column["index"].attrs.modify("checksum", np.array([2, zlib.crc32(rows.tobytes())], dtype="<i8"))
    look(path)
    with Store.open(path, "a") as store:
        store.append([water(3)])
    with Store.open(path) as store:
        assert store.verify() == []
        assert len(store) == 4


@pytest.mark.parametrize("n", [4, 10**6, 10**9, 10**12, -1, 2**62])
def test_a_number_of_samples_that_cannot_be_is_refused_at_once(tmp_path, n):
    path = make(tmp_path / "x.h5", 3)
    with h5py.File(path, "r+") as file:
        file.attrs["n_samples"] = n
        if n > 3:
            for column in file["columns"].values():
                column["index"].resize(min(n, 2**58), axis=0)
                column["values"].resize(min(n, 2**58), axis=0)
    with pytest.raises(StoreError, match="damaged"):
        Store.open(path)


def test_text_that_claims_to_be_huge_is_refused_at_once(tmp_path):
    path = make(tmp_path / "x.h5", 3)
    with h5py.File(path, "r+") as file:
        file["metadata"].resize(10**12, axis=0)
    with pytest.raises(StoreError, match="claims 1000000000000 bytes"):
        Store.open(path)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b"\xff", b"5", b"{}", b'{"schema": 1}', b'{"schema": 1, "level": 3}']
)
@pytest.mark.parametrize("name", ["metadata", "splits"])
def test_edited_text_is_one_line(tmp_path, name, text):
    if (name, text) == ("splits", b"{}"):
        return
    path = make(tmp_path / "x.h5", 3)
    with h5py.File(path, "r+") as file:
        file[name].resize(len(text), axis=0)
        file[name][:] = np.frombuffer(text, dtype=np.uint8)
        file[name].attrs["crc32"] = zlib.crc32(text)
    assert tried(Store.open, path)[1] is not None


def test_a_place_that_can_be_no_store_is_one_line(tmp_path):
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "folder.h5").mkdir()
    long = tmp_path / ("x" * 300)
    for path in (tmp_path / "loop.h5", tmp_path / "folder.h5", long):
        for mode in ("r", "a"):
            assert tried(Store.open, path, mode)[1] is not None
    for path in (tmp_path / "folder.h5", tmp_path / "folder.h5" / "x.h5" / "y.h5"):
        (tmp_path / "folder.h5" / "x.h5").touch()
        with pytest.raises(StoreError):
            Store.create(path, level=LEVEL, basis=BASIS)
    assert not list(tmp_path.rglob("*.lock"))


def test_an_id_that_is_no_text_is_refused(tmp_path):
    from dataclasses import replace

    with Store.create(tmp_path / "x.h5", level=LEVEL, basis=BASIS) as store:
        with pytest.raises(StoreError, match="cannot be stored as text"):
            store.append([replace(water(0), id=os.fsdecode(b"w\xff"))])
        assert len(store) == 0
