"""Kill writers, fill disks, damage bytes: the store opens, and holds whole molecules only."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import store_samples
from helmol.errors import StoreError
from helmol.store import Store, journal
from store_samples import BASIS, LEVEL, assert_same, water

HERE = Path(store_samples.__file__).parent

WRITER = """
import sys
sys.path.insert(0, {here!r})
from store_samples import water
from helmol.store import Store
with Store.open({path!r}, "a") as store:
    print("open", flush=True)
    while True:
        start = len(store)
        store.append([water(seed) for seed in range(start, start + 1 + start % 3)])
        print(len(store), flush=True)
"""


def _check(path: Path, at_least: int) -> int:
    """Open a store for reading, compare every sample with its seed; return how many there are."""
    with Store.open(path) as store:
        assert len(store) >= at_least
        assert store.verify() == []
        for row, sample in enumerate(store):
            assert_same(sample, water(row))
        return len(store)


def test_kill_9_at_random_moments(path):
    Store.create(path, level=LEVEL, basis=BASIS).close()
    rng, committed = random.Random(0), 0
    code = WRITER.format(here=str(HERE), path=str(path))
    for turn in range(10):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        first = process.stdout.readline() if turn % 2 else ""  # a slow machine gets somewhere as well
        time.sleep(rng.uniform(0.0, 0.15))
        process.send_signal(signal.SIGKILL)
        lines = (first + process.stdout.read()).splitlines(keepends=True)
        told = [int(line) for line in lines if line.endswith("\n")]
        process.stdout.close()
        process.wait()
        committed = _check(path, max([committed, *told]))
    assert committed >= 5
    assert not journal.journal_path(path).exists()


class _Dying:
    """Stand in for ``os`` in the journal; at the n-th change of the disk the process is gone."""

    def __init__(self, n: int, *, torn: bool) -> None:
        self.n, self.torn = n, torn

    def __getattr__(self, name: str):
        function = getattr(os, name)
        if name not in ("pwrite", "ftruncate", "fsync"):
            return function

        def counted(*arguments):
            self.n -= 1
            if self.n == 0:
                if self.torn and name == "pwrite":
                    fd, view, offset = arguments
                    os.pwrite(fd, view[: len(view) // 2], offset)
                os._exit(9)
            return function(*arguments)

        return counted


def _die_at(path: Path, n: int, *, torn: bool, before=lambda: None) -> bool:
    """Append two samples in a child that dies at its n-th change; return whether it died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, from Python 3.12
        child = os.fork()
    if child == 0:
        try:
            before()
            with Store.open(path, "a") as store:
                journal.os = _Dying(n, torn=torn)
                store.append([water(2), water(3)])
            os._exit(0)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


def _every_crash(path: Path, *, torn: bool, before=lambda: None) -> set[int]:
    """Die once at every change of the disk; return the numbers of samples found afterwards."""
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append([water(0), water(1)])
    original, found = path.read_bytes(), set()
    for n in range(1, 1000):
        path.write_bytes(original)
        died = _die_at(path, n, torn=torn, before=before)
        found.add(_check(path, 2 if died else 4))
        with Store.open(path, "a") as store:  # and it can be continued
            store.append([water(seed) for seed in range(len(store), 6)])
        assert _check(path, 6) == 6
        if not died:
            return found
    raise AssertionError("the append never finished")


@pytest.mark.parametrize("torn", [False, True])
def test_death_at_every_single_write(path, torn):
    assert _every_crash(path, torn=torn) == {2, 4}


def test_the_crash_test_catches_a_store_without_a_journal(path):
    def no_journal():
        journal.TransactionFile._change = lambda self, offset, view: os.pwrite(self._lock.fd, view, offset)
        journal._write_journal = lambda *a, **k: None

        def commit(self):
            journal.os.fsync(self._lock.fd)

        journal.TransactionFile.commit = commit
        write = journal._write_all
        journal.TransactionFile.write = lambda self, view: (
            write(self._lock.fd, view, self._position), self.seek(len(view), 1),
            setattr(self, "_size", max(self._size, self._position)), len(view))[-1]  # fmt: skip

    with pytest.raises((StoreError, AssertionError)):
        _every_crash(path, torn=True, before=no_journal)


def test_full_disk_at_every_write_keeps_what_was_committed(path, monkeypatch):
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append([water(0), water(1)])
        size, failures, real = path.stat().st_size, 0, os.pwrite
        new = [water(seed) for seed in range(2, 200)]  # more than fits into the chunks that are there
        for n in range(1, 1000):
            left = [n]

            def full(fd, view, offset, left=left):
                left[0] -= 1
                if left[0] == 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(fd, view, offset)

            monkeypatch.setattr(journal.os, "pwrite", full)
            try:
                store.append(new)
            except OSError:
                monkeypatch.undo()
                failures += 1
                assert len(store) == 2
                assert path.stat().st_size == size
                assert_same(store[1], water(1))
            else:  # either no write failed, or one so late that the journal mended it
                monkeypatch.undo()
                assert len(store) == 200
                break
    assert failures >= 3
    assert _check(path, 200) == 200


def test_full_disk_for_real(path):
    resource = pytest.importorskip("resource")
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append([water(0)])
    code = (
        "import resource, signal, sys\n"
        f"sys.path.insert(0, {str(HERE)!r})\n"
        "from store_samples import water\n"
        "from helmol.store import Store\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({path.stat().st_size + 100_000},) * 2)\n"
        f"with Store.open({str(path)!r}, 'a') as store:\n"
        "    try:\n"
        "        while True: store.append([water(len(store))])\n"
        "    except OSError as error:\n"
        "        print(len(store), error.errno)\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, number = (int(word) for word in run.stdout.split())
    assert number == errno.EFBIG
    assert count > 1
    assert _check(path, count) == count


def test_interrupt_in_the_middle_of_an_append(store, path, monkeypatch):
    store.append([water(0)])

    def interrupted(column, entries):
        raise KeyboardInterrupt

    monkeypatch.setattr("helmol.store.packed.Column.append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.append([water(1)])
    monkeypatch.undo()
    store.append([water(1)])
    store.close()
    assert _check(path, 2) == 2


def test_a_killed_parent_does_not_leave_its_lock_with_forked_children(path):
    Store.create(path, level=LEVEL, basis=BASIS).close()
    code = (
        "import os, sys, time\n"
        "from helmol.store import Store\n"
        f"store = Store.open({str(path)!r}, 'a')\n"
        "ready, say = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.write(say, b'.')\n"
        "    os.close(1)\n"
        "    time.sleep(30)\n"
        "    os._exit(0)\n"
        "os.read(ready, 1)\n"
        "print(child, flush=True)\n"
        "time.sleep(30)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    with pytest.raises(StoreError, match="in use"):
        Store.open(path, "a")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    try:
        Store.open(path, "a").close()
    finally:
        os.kill(child, signal.SIGKILL)


def test_truncated_files_are_refused(store, path):
    store.append([water(s) for s in range(5)])
    store.close()
    data = path.read_bytes()
    for size in [*range(0, len(data), len(data) // 40), len(data) - 1]:
        path.write_bytes(data[:size])
        for mode in ("r", "a"):
            with pytest.raises(StoreError) as caught:
                Store.open(path, mode)
            assert "\n" not in str(caught.value)
        assert path.read_bytes() == data[:size]


def test_damaged_bytes_are_found_and_named(store, path):
    store.append([water(s) for s in range(5)])
    store.close()
    data = bytearray(path.read_bytes())
    where = data.find(water(3).matrices.fock[0, :3].tobytes())
    assert where > 0
    data[where + 4] ^= 1
    path.write_bytes(data)
    with Store.open(path) as damaged:
        with pytest.raises(StoreError, match=r"sample 'water-3' \(row 3\): fock does not match its checksum"):
            damaged[3]
        assert_same(damaged[2], water(2))
        problems = damaged.verify()
        assert len(problems) == 1
        assert "water-3" in problems[0]


def test_no_damaged_byte_goes_unnoticed(store, path):
    """Flip single bytes: every sample that is returned is right, or there is a StoreError."""
    store.append([water(s) for s in range(3)])
    store.close()
    data, rng, caught = path.read_bytes(), random.Random(1), 0
    used = [k for k in range(len(data)) if data[k]]
    for position in rng.sample(used, 150):
        damaged = bytearray(data)
        damaged[position] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            with Store.open(path) as opened:
                for row in range(len(opened)):
                    assert_same(opened[row], water(row))
        except StoreError:
            caught += 1
    assert caught > 75
