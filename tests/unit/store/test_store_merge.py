from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helmol.basis import BasisSet, ElementBasis
from helmol.errors import InputError, StoreError
from helmol.store import Store, merge
from helmol.system import Matrices, Molecule, Sample
from store_samples import BASIS, HYDROGEN, LEVEL, OXYGEN, assert_same, symmetric, water


def make(path, samples, *, level=LEVEL, basis=BASIS, splits=None):
    with Store.create(path, level=level, basis=basis) as store:
        store.append(samples)
        store.set_splits(splits or {})
    return path


def test_all_samples_arrive_to_the_last_bit_and_equal_ones_once(tmp_path):
    samples = [water(k) for k in range(5)]
    a = make(tmp_path / "a.h5", samples[:3], splits={"train": ["water-0", "water-2"], "val": ["water-1"]})
    b = make(tmp_path / "b.h5", samples[2:], splits={"train": ["water-2", "water-3"], "test": ["water-4"]})
    result = merge([a, b], tmp_path / "c.h5")
    assert (result["n_molecules"], result["n_twice"], result["n_renamed"]) == (5, 1, 0)
    with Store.open(tmp_path / "c.h5") as store:
        for left, right in zip(samples, store, strict=True):
            assert_same(left, right)
        assert store.splits == {
            "train": ["water-0", "water-2", "water-3"],
            "val": ["water-1"],
            "test": ["water-4"],
        }
        assert store.verify() == []
        direct = make(tmp_path / "d.h5", samples[::-1])
        with Store.open(direct) as other:
            assert other.content_hash == store.content_hash == result["content_hash"]
    assert {p.name for p in tmp_path.iterdir()} == {"a.h5", "b.h5", "c.h5", "d.h5"}


def test_other_samples_of_one_id_are_refused_or_renamed(tmp_path):
    a = make(tmp_path / "a.h5", [water(0)])
    b = make(tmp_path / "b.h5", [water(1, id="water-0")], splits={"test": ["water-0"]})
    with pytest.raises(StoreError, match="different samples called 'water-0'"):
        merge([a, b], tmp_path / "c.h5")
    assert {p.name for p in tmp_path.iterdir()} == {"a.h5", "b.h5"}
    merge([a, b], tmp_path / "c.h5", rename=True)
    with Store.open(tmp_path / "c.h5") as store:
        assert store.ids == ["water-0", "b/water-0"]
        assert store.splits == {"test": ["b/water-0"]}
        assert np.array_equal(store[1].matrices.fock, water(1).matrices.fock)


def test_a_sample_in_two_splits_leaves_no_split(tmp_path, caplog):
    a = make(tmp_path / "a.h5", [water(0), water(1)], splits={"train": ["water-0"]})
    b = make(tmp_path / "b.h5", [water(0)], splits={"test": ["water-0"]})
    assert merge([a, b], tmp_path / "c.h5")["splits"] == {}
    assert "different splits" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"level": replace(LEVEL, xc_resolved="1*402")}, "xc_resolved"),
        ({"level": replace(LEVEL, density_fit=True)}, "density_fit"),
        ({"level": replace(LEVEL, grid_level=2)}, "grid_level"),
        ({"level": replace(LEVEL, auxbasis="def2-universal-jfit")}, "auxbasis"),
        ({"level": replace(LEVEL, dispersion="chai-head-gordon")}, "dispersion"),
        (
            {"basis": BasisSet("def2-svp", {1: ElementBasis((0, 0, 1), 0, "x"), 8: OXYGEN})},
            "basis of H differs",
        ),
    ],
)
def test_other_levels_and_bases_are_refused(change, words, tmp_path):
    a, b = make(tmp_path / "a.h5", [water(0)]), make(tmp_path / "b.h5", [water(1)], **change)
    with pytest.raises(StoreError, match=words):
        merge([a, b], tmp_path / "c.h5")


def hydrogen():
    molecule = Molecule([1, 1], [[0, 0, 0], [0, 0, 1.4]])
    return Sample(id="h2", molecule=molecule, matrices=Matrices(symmetric(np.random.default_rng(0), 10)))


def test_bases_are_joined_and_programs_noted(tmp_path):
    a = make(tmp_path / "a.h5", [water(0)])
    level = replace(LEVEL, conv_tol=1e-6, code="orca")
    b = make(tmp_path / "b.h5", [hydrogen()], level=level, basis=BasisSet("def2-svp", {1: HYDROGEN}))
    merge([b, a], tmp_path / "c.h5")
    with Store.open(tmp_path / "c.h5") as store:
        assert store.level.conv_tol == 1e-6
        assert store.level.code == "orca; pyscf 2.14.0"
        assert set(store.basis.elements) == {1, 8}


def test_one_store_twice_is_refused(tmp_path):
    a = make(tmp_path / "a.h5", [water(0)])
    with pytest.raises(InputError, match="two or more different"):
        merge([a, a], tmp_path / "c.h5")
