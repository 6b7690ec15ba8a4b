"""Several processes and one store: one writer at a time, and readers in forked children."""

import multiprocessing
import os
import pickle
import random
import subprocess
import sys

import pytest

from forked import in_child, killed_after, together
from helmol.errors import StoreError
from helmol.store import Store, merge
from store_samples import BASIS, LEVEL, assert_same, water

pytestmark = pytest.mark.faults


def make(path, first=0, n=3):
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append([water(k) for k in range(first, first + n)])
    return path


def check(path):
    """Read everything; return the ids."""
    with Store.open(path) as store:
        assert store.verify() == []
        for sample in store:
            assert_same(sample, water(int(sample.id.removeprefix("water-"))))
        return store.ids


def test_of_processes_that_make_one_store_one_does(tmp_path, many):
    path = tmp_path / "x.h5"
    for _ in range(many(12, 300)):
        outcomes = together([lambda k=k: str(make(path, first=10 * k)) for k in range(3)])
        made = [k for k, outcome in enumerate(outcomes) if "ok" in outcome]
        assert len(made) == 1
        assert check(path) == [f"water-{10 * made[0] + k}" for k in range(3)]
        for outcome in outcomes:
            assert "ok" in outcome or "in use" in outcome["refused"] or "exists already" in outcome["refused"]
        path.unlink()
        assert list(tmp_path.iterdir()) == []


def test_of_processes_that_continue_one_store_each_adds_all_or_is_refused(tmp_path, many):
    path = make(tmp_path / "x.h5", n=1)

    def add(start):
        with Store.open(path, "a") as store:
            store.append([water(k) for k in range(start, start + 3)])

    wanted, start = {"water-0"}, 100
    for _ in range(many(12, 300)):
        starts = [start, start + 10, start + 20]
        outcomes = together([lambda first=first: add(first) for first in starts])
        for first, outcome in zip(starts, outcomes, strict=True):
            if "ok" in outcome:
                wanted |= {f"water-{first + k}" for k in range(3)}
            else:
                assert "in use: process" in outcome["refused"]
        start += 30
    assert len(wanted) > 12
    assert set(check(path)) == wanted


def test_of_merges_into_one_store_one_is_done(tmp_path, many):
    paths = [make(tmp_path / "a.h5"), make(tmp_path / "b.h5", first=5)]
    for _ in range(many(5, 100)):
        outcomes = together([lambda: merge(paths, tmp_path / "c.h5")["n_molecules"]] * 2)
        assert sum("ok" in outcome for outcome in outcomes) == 1
        assert len(check(tmp_path / "c.h5")) == 6
        (tmp_path / "c.h5").unlink()
        assert {path.name for path in tmp_path.iterdir()} == {"a.h5", "b.h5"}


def test_killed_writers_lose_nothing_that_was_committed(tmp_path, many):
    path, rng = make(tmp_path / "x.h5", n=1), random.Random(3)

    def write():
        with Store.open(path, "a") as store:
            while True:
                store.append([water(k) for k in range(len(store), len(store) + 2)])

    n = 1
    for _ in range(many(15, 500)):
        killed_after(write, rng.uniform(0.01, 0.12))
        ids = check(path)
        assert ids == [f"water-{k}" for k in range(len(ids))]
        assert len(ids) >= n
        n = len(ids)
        if n > 300:
            path.unlink()
            make(path, n=1)
            n = 1
    Store.open(path, "a").close()
    assert {file.name for file in tmp_path.iterdir()} == {"x.h5"}


def test_who_reads_is_said_to_who_wants_to_write(tmp_path):
    path = make(tmp_path / "x.h5")
    with Store.open(path):
        with pytest.raises(StoreError, match="is in use: it is open for reading") as caught:
            Store.open(path, "a")
        if sys.platform == "linux":
            assert f"by process {os.getpid()};" in str(caught.value)
    Store.open(path, "a").close()


def test_an_open_store_works_in_forked_children(tmp_path):
    path = make(tmp_path / "x.h5")
    with Store.open(path) as store:
        assert_same(store[1], water(1))

        def read():
            for row in range(3):
                assert_same(store[row], water(row))
            assert store.read_block([0, 1], ["fock"])[1]["fock"].shape[0] == 2
            with pytest.raises(StoreError, match="in use"):
                Store.open(path, "a")
            return store.molecule(2).n_atoms

        assert together([read] * 3) == [{"ok": 3}] * 3
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(store.row, ["water-0", "water-2"]) == [0, 2]
        assert_same(store[0], water(0))


def test_a_child_does_not_end_what_its_parent_holds(tmp_path):
    path = make(tmp_path / "x.h5")
    with Store.open(path, "a") as store:
        in_child(store.close)
        assert "in use" in in_child(lambda: Store.open(path))["refused"]
        store.append([water(3)])
    assert len(check(path)) == 4


def test_a_child_of_a_writer_is_told_what_to_do(tmp_path):
    path = make(tmp_path / "x.h5")
    with Store.open(path, "a") as store:
        for use in (lambda: store[0].id, lambda: store.append([water(7)])):
            assert "open it here for reading after it was closed there" in in_child(use)["refused"]
        store.append([water(3)])
    assert len(check(path)) == 4


def test_a_child_does_not_read_another_store_for_its_own(tmp_path):
    path = make(tmp_path / "x.h5")
    store = Store.open(path)
    read, write = os.pipe()

    def late():
        os.read(read, 1)
        return store[0].id

    from forked import answer, child

    process = child(late)
    store.close()
    path.unlink()
    make(path, first=20)
    os.write(write, b".")
    assert "has changed since this process was forked" in answer(*process)["refused"]
    os.close(read)
    os.close(write)


def test_a_store_is_pickled_as_its_path(tmp_path):
    path = make(tmp_path / "x.h5")
    with Store.open(path) as store, pickle.loads(pickle.dumps(store)) as again:
        assert_same(again[2], water(2))
    with Store.open(path, "a") as store, pytest.raises(StoreError, match="pass its path to other processes"):
        pickle.dumps(store)


def test_separate_programs_are_refused_as_forked_ones_are(tmp_path):
    """Locks are the kernel's: between programs that know nothing of each other as well."""
    path = make(tmp_path / "x.h5")
    code = (
        "import sys, time\nfrom helmol.store import Store\n"
        "with Store.open(sys.argv[1], 'a'):\n    print('open', flush=True)\n    time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    for mode in ("a", "r"):
        with pytest.raises(StoreError, match=f"in use: process {holder.pid} on"):
            Store.open(path, mode)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    Store.open(path, "a").close()
