"""A journal is applied to the file that it was begun in, under whatever name, and to no other."""

import os
import shutil
import struct
import zlib

import pytest

from forked import in_child, together
from helmol.errors import StoreError
from helmol.store import Store, journal
from store_samples import BASIS, LEVEL, assert_same, water

pytestmark = pytest.mark.faults


def make(path, n):
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append([water(k) for k in range(n)])
    return path


def die_in_a_commit(path, *, n=5, applied=0):
    """Fill up to n samples in a child that dies with its journal on the disk and so many pages applied."""

    def apply(self, fd):
        for offset, (_, page) in list(self.pages.items())[:applied]:
            journal._write_all(fd, memoryview(page), offset)
        os._exit(9)

    def die():
        journal.Journal.apply = apply
        with Store.open(path, "a") as store:
            store.append([water(k) for k in range(len(store), n)])

    assert in_child(die) == {"died": 9}
    assert journal.journal_path(path).exists()


def holds(path, n):
    with Store.open(path) as store:
        assert len(store) == n
        assert store.verify() == []
        for row, sample in enumerate(store):
            assert_same(sample, water(row))
    return True


@pytest.mark.parametrize("applied", [0, 1, 3])
@pytest.mark.parametrize("link", [False, True])
def test_whichever_name_a_store_is_opened_by_its_journal_is_found(tmp_path, applied, link):
    path = make(tmp_path / "x.h5", 3)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.h5").symlink_to(path)
    ways = (path, tmp_path / "elsewhere" / "link.h5")
    die_in_a_commit(ways[link], applied=applied)
    assert holds(ways[not link], 5)
    assert {p.name for p in tmp_path.iterdir()} - {".x.h5.lock"} == {"x.h5", "elsewhere"}


@pytest.mark.parametrize("applied", [0, 2])
def test_a_moved_or_copied_store_takes_its_journal_along(tmp_path, applied):
    path = make(tmp_path / "x.h5", 3)
    die_in_a_commit(path, applied=applied)
    (tmp_path / "copy").mkdir()
    for file in (path, journal.journal_path(path)):
        shutil.copy(file, tmp_path / "copy")
    assert holds(tmp_path / "copy" / "x.h5", 5)
    assert holds(path, 5)


@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("other", ["another", "older", "truncated", "changed"])
def test_a_journal_is_not_applied_to_another_file_of_its_name(tmp_path, caplog, mode, other):
    path = make(tmp_path / "x.h5", 3)
    before = path.read_bytes()
    die_in_a_commit(path, n=200)  # more than fits into what is there: the file grows
    own = path.read_bytes()
    assert len(own) > len(before)
    if other == "another":
        with Store.create(tmp_path / "y.h5", level=LEVEL, basis=BASIS) as store:
            store.append([water(k) for k in range(10, 17)])
        (tmp_path / "y.h5").replace(path)
    elif other == "older":  # put back: all that the journal changes is there, what it adds is not
        path.write_bytes(before)
    elif other == "truncated":
        path.write_bytes(own[:-1])
    else:
        place = len(before) + own[len(before) :].find(water(150).matrices.fock[0, :3].tobytes())
        path.write_bytes(own[:place] + bytes([own[place] ^ 1]) + own[place + 1 :])
    with Store.open(path, mode) as store:
        assert store.verify() == []
        assert store.ids[0] == ("water-10" if other == "another" else "water-0")
        n = len(store)
    assert n == (7 if other == "another" else 3)
    assert "is of another file that had this name" in caplog.text
    aside = tmp_path / "x.h5.journal.of-another-file"
    assert aside.exists()
    # Nothing is lost: beside its own file it completes what was being written.
    path.write_bytes(own)
    aside.replace(journal.journal_path(path))
    assert holds(path, 200)


def test_a_new_store_does_not_inherit_a_journal(tmp_path):
    path = make(tmp_path / "x.h5", 3)
    die_in_a_commit(path)
    path.rename(tmp_path / "moved.h5")
    make(path, 1)
    assert holds(path, 1)
    assert (tmp_path / "x.h5.journal.of-another-file").exists()


def test_a_journal_of_helmol_0_1_is_completed(tmp_path):
    path = make(tmp_path / "x.h5", 3)
    die_in_a_commit(path, applied=1)
    file = journal.journal_path(path)
    found = journal._parse_journal(file.read_bytes())
    parts = [struct.pack("<8sQQ", b"HELMOLJ1", found.size, len(found.pages))]
    for offset, (_, page) in found.pages.items():
        parts += [struct.pack("<QQ", offset, len(page)), page]
    data = b"".join(parts)
    file.write_bytes(data + struct.pack("<I", zlib.crc32(data)))
    assert holds(path, 5)


def test_a_damaged_journal_is_dropped_and_the_store_is_as_before(tmp_path, rng, many):
    path = make(tmp_path / "x.h5", 3)
    die_in_a_commit(path)
    store, whole = path.read_bytes(), journal.journal_path(path).read_bytes()
    for position in rng.integers(0, len(whole), size=many(30, 2000)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(store)
        journal.journal_path(path).write_bytes(damaged[: len(damaged) - int(rng.integers(2)) * int(position)])
        assert holds(path, 3)


def test_many_readers_at_once_complete_a_journal_once(tmp_path, many):
    path = make(tmp_path / "x.h5", 3)
    for turn in range(many(4, 100)):
        die_in_a_commit(path, applied=turn % 3)
        outcomes = together([lambda: holds(path, 5)] * 4)
        assert outcomes == [{"ok": True}] * 4
        path.unlink()
        make(path, 3)


def test_a_damaged_superblock_does_not_cut_the_file(tmp_path, rng, many):
    """The end of the committed part stands there; only a whole superblock may say where to cut."""
    path = make(tmp_path / "x.h5", 3)
    data = path.read_bytes()
    for position in range(48) if many(0, 1) else rng.integers(8, 48, size=20):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(StoreError):
            Store.open(path, "a")
        assert path.read_bytes() == damaged
