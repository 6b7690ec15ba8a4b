"""A merge that is killed leaves no store under the final name, and the same call goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from helmol.errors import StoreError
from helmol.store import Store, merge, packed
from store_samples import BASIS, LEVEL, assert_same, water

MERGE = sys.modules["helmol.store.merge"]

KILLED = """
import os, signal, sys
from pathlib import Path
from helmol.store import Store, merge
import helmol.store.merge
sys.modules["helmol.store.merge"].SAMPLES_PER_APPEND = 2
append, done = Store.append, 0
def killing(self, samples):
    global done
    append(self, samples)
    done += len(samples)
    if done >= 5:
        os.kill(os.getpid(), signal.SIGKILL)
Store.append = killing
folder = Path(sys.argv[1])
merge([folder / "a.h5", folder / "b.h5"], folder / "c.h5")
"""


def make(path, samples, splits=None):
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append(samples)
        store.set_splits(splits or {})
    return path


@pytest.fixture
def two(tmp_path):
    samples = [water(k) for k in range(9)]
    # Two of them stand in both stores.
    make(tmp_path / "a.h5", samples[:5], {"train": ["water-0", "water-3"]})
    make(tmp_path / "b.h5", samples[3:], {"train": ["water-8"], "test": ["water-6"]})
    return tmp_path, samples


def test_after_a_kill_the_same_call_goes_on(two, monkeypatch):
    folder, samples = two
    killed = subprocess.run([sys.executable, "-P", "-c", KILLED, str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "c.h5").exists()
    appended = []
    append = packed.Store.append
    monkeypatch.setattr(packed.Store, "append", lambda s, new: (appended.extend(new), append(s, new))[1])
    result = merge([folder / "a.h5", folder / "b.h5"], folder / "c.h5")
    assert 0 < len(appended) < len(samples)
    assert (result["n_molecules"], result["n_twice"]) == (9, 2)
    with Store.open(folder / "c.h5") as store:
        assert store.verify() == []
        assert store.splits == {"train": ["water-0", "water-3", "water-8"], "test": ["water-6"]}
        for left, right in zip(samples, store, strict=True):
            assert_same(left, right)
    assert {p.name for p in folder.iterdir()} == {"a.h5", "b.h5", "c.h5"}


def test_what_is_left_of_another_merge_is_not_gone_on_with(two):
    folder, samples = two
    subprocess.run([sys.executable, "-P", "-c", KILLED, str(folder)], check=False)
    os.remove(folder / "a.h5")
    make(folder / "a.h5", [replace(water(20), id="water-0"), *samples[1:5]])
    merge([folder / "a.h5", folder / "b.h5"], folder / "c.h5")
    with Store.open(folder / "c.h5") as store:
        assert np.array_equal(store[0].matrices.fock, water(20).matrices.fock)
    assert {p.name for p in folder.iterdir()} == {"a.h5", "b.h5", "c.h5"}


def test_a_full_disk_keeps_what_is_done_and_a_wrong_store_nothing(two, monkeypatch):
    folder, _ = two
    monkeypatch.setattr(MERGE, "SAMPLES_PER_APPEND", 2)
    append = packed.Store.append

    def full(self, samples):
        if len(self) >= 4:
            raise OSError(28, "No space left on device")
        append(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(packed.Store, "append", full)
        with pytest.raises(OSError, match="No space"):
            merge([folder / "a.h5", folder / "b.h5"], folder / "c.h5")
    (part,) = folder.glob(".c.h5.*.part")
    with Store.open(part) as store:
        assert len(store) == 4
    make(folder / "d.h5", [replace(water(30), id="water-1")])
    with pytest.raises(StoreError, match="different samples called 'water-1'"):
        merge([folder / "a.h5", folder / "d.h5"], folder / "c.h5")
    assert {p.name for p in folder.iterdir()} == {"a.h5", "b.h5", "d.h5"}


def test_forces_that_one_store_lacks_stay_missing_there(tmp_path):
    some = make(tmp_path / "a.h5", [water(0), replace(water(1), forces=None)])
    none = make(tmp_path / "b.h5", [replace(water(k), forces=None) for k in (2, 3)])
    for order, name in (((some, none), "c.h5"), ((none, some), "d.h5")):
        merge(order, tmp_path / name)
        with Store.open(tmp_path / name) as store:
            assert store.verify() == []
            there = {id: store[store.row(id)].forces for id in store.ids}
            assert np.array_equal(there.pop("water-0"), water(0).forces)
            assert all(forces is None for forces in there.values())
            has = dict(zip(store.ids, store.has("forces").tolist(), strict=True))
            assert [id for id, yes in has.items() if yes] == ["water-0"]
