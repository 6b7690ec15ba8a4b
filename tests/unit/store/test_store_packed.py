from __future__ import annotations

import dataclasses

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helmol.basis import BasisSet, ElementBasis
from helmol.errors import StoreError
from helmol.store import Store, random_split
from helmol.store.columns import pack_triangle, unpack_triangle
from helmol.system import Matrices, Molecule
from store_samples import (
    BASIS,
    HYDROGEN,
    LEVEL,
    UKS,
    assert_same,
    bare_hydrogen,
    hydrogen_cation,
    symmetric,
    water,
)


def test_there_and_back_is_exact_in_every_bit(store, path):
    samples = [water(0), bare_hydrogen(1), water(2, energy=None, forces=None), bare_hydrogen(3)]
    rng = np.random.default_rng(9)
    full = Matrices(symmetric(rng, 24), references={"sap": symmetric(rng, 24)}, density=symmetric(rng, 24))
    samples.append(water(4, matrices=full))
    store.append(samples[:1])
    store.append(samples[1:])
    for row, sample in enumerate(samples):
        assert_same(store[row], sample)
    store.close()
    with Store.open(path) as reopened:
        assert len(reopened) == 5
        for found, sample in zip(reopened, samples, strict=True):
            assert_same(found, sample)
        assert reopened.level == LEVEL
        assert reopened.basis == BASIS
        assert reopened.references == ("minao", "sap")
        assert reopened.has("energy").tolist() == [True, False, False, False, True]
        assert reopened.has("reference_sap").tolist() == [False] * 4 + [True]
        assert reopened.n_atoms.tolist() == [3, 2, 3, 2, 3]
        assert reopened.numbers(1).tolist() == [1, 1]
        assert reopened.verify() == []
        only = reopened.read(0, matrices=("minao",)).matrices
        assert only.overlap is None
        assert list(only.references) == ["minao"]
        assert list(reopened.read(-1, matrices=()).matrices.references) == []


def test_restricted_and_unrestricted_do_not_mix(store, tmp_path):
    with pytest.raises(StoreError, match=r"'h2\+-1': an unrestricted sample .* store of RKS"):
        store.append([water(0), hydrogen_cation(1)])
    assert len(store) == 0
    with Store.create(tmp_path / "uks.h5", level=UKS, basis=BASIS) as open_shells:
        open_shells.append([hydrogen_cation(1), hydrogen_cation(2)])
        assert_same(open_shells[1], hydrogen_cation(2))
        with pytest.raises(StoreError, match=r"'water-0': a restricted sample .* store of UKS"):
            open_shells.append([water(0)])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(nao=st.integers(1, 90), n_spin=st.sampled_from([1, 2]), seed=st.integers(0, 99))
def test_triangles_there_and_back(nao, n_spin, seed):
    matrix = symmetric(np.random.default_rng(seed), nao, n_spin)
    assert unpack_triangle(pack_triangle(matrix), nao).tobytes() == matrix.tobytes()
    with pytest.raises(StoreError, match="fit no matrix"):
        unpack_triangle(np.zeros(nao * nao + nao + 1), nao)


def test_large_samples_span_chunks(store):
    many = Molecule([8] * 40, np.arange(120).reshape(40, 3) * 3.0)
    samples = [
        water(s, molecule=many, matrices=Matrices(symmetric(np.random.default_rng(s), 40 * 14)), forces=None)
        for s in range(3)
    ]
    store.append(samples)
    for row, sample in enumerate(samples):
        assert_same(store[row], sample)


def test_content_hash_forgets_batches_and_order_but_no_label(tmp_path):
    def hash_of(name, *batches):
        with Store.create(tmp_path / name, level=LEVEL, basis=BASIS) as store:
            for batch in batches:
                store.append(batch)
            return store.content_hash

    a, b, c = water(0), water(1), bare_hydrogen(2)
    whole = hash_of("1.h5", [a, b, c])
    assert whole == hash_of("2.h5", [c], [a], [b])
    assert whole != hash_of("3.h5", [a, b])
    assert whole != hash_of("4.h5", [a, b, bare_hydrogen(3)])
    slightly = dataclasses.replace(b, energy=np.nextafter(b.energy, 0.0))
    assert whole != hash_of("5.h5", [a, slightly, c])


def _changed(value):
    """Return a symmetric matrix but for one element."""
    matrix = symmetric(np.random.default_rng(0), 24)
    matrix[3, 5] = np.nextafter(matrix[3, 5], value)
    return matrix


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (water(5, matrices=Matrices(_changed(9.0))), "fock is not symmetric"),
        (water(5, matrices=Matrices(np.eye(24), _changed(-9.0))), "overlap is not symmetric"),
        (water(5, matrices=Matrices(np.full((24, 24), np.nan))), "not finite"),
        (water(5, matrices=Matrices(np.eye(24, dtype=np.float32))), "float32, expected float64"),
        (water(5, matrices=Matrices(np.eye(23))), "fock has 23 orbitals, the store's basis gives 24"),
        (water(5, energy=float("nan")), "energy holds values that are not finite"),
        (water(5, forces=np.zeros((2, 3))), "forces has shape"),
        (water(5, dipole=np.zeros(2)), "dipole has shape"),
        (water(5, id=""), "id that is not empty"),
        (water(0), "has a sample 'water-0' already"),
        (water(5, provenance={"what": object()}), "provenance cannot be written as JSON"),
        (water(5, molecule=Molecule([8, 9, 1], np.diag([0.0, 2, 4]))), "element F is not in the basis"),
    ],
)  # fmt: skip
def test_refuses_a_bad_sample_and_everything_with_it(store, sample, message):
    store.append([water(0)])
    before = store.content_hash
    with pytest.raises(StoreError, match=message):
        store.append([water(1), sample])
    assert store.ids == ["water-0"]
    assert store.content_hash == before
    store.append([water(1)])
    assert_same(store[1], water(1))


def test_refuses_the_same_id_twice_in_one_call(store):
    with pytest.raises(StoreError, match="already"):
        store.append([water(1), water(1)])
    assert len(store) == 0


def test_basis_grows_and_refuses_a_contradiction(store, path):
    fluorine = ElementBasis((0, 1), 0, "hash-f")
    store.extend_basis(BasisSet("def2-svp", {9: fluorine, 1: HYDROGEN}))
    molecule = Molecule([1, 9], [[0, 0, 0], [0, 0, 1.7]])
    sample = water(7, molecule=molecule, matrices=Matrices(np.eye(9)), forces=None)
    store.append([sample])
    with pytest.raises(StoreError, match="basis of H differs"):
        store.extend_basis(BasisSet("other", {1: fluorine}))
    store.close()
    with Store.open(path) as reopened:
        assert sorted(reopened.basis.elements) == [1, 8, 9]
        assert_same(reopened[0], sample)


def test_splits_are_explicit_disjoint_and_known(store, path):
    store.append([water(s) for s in range(10)])
    splits = random_split(store.ids, sizes={"train": 6, "test": 3}, seed=1)
    store.set_splits(splits)
    with pytest.raises(StoreError, match="no sample 'nobody'"):
        store.set_splits({"train": ["nobody"]})
    with pytest.raises(StoreError, match="in split 'a' and again in 'b'"):
        store.set_splits({"a": ["water-1"], "b": ["water-1"]})
    store.close()
    with Store.open(path) as reopened:
        assert reopened.splits == splits
        assert [reopened.ids[row] for row in reopened.indices("test")] == splits["test"]
        with pytest.raises(StoreError, match="no split 'val'"):
            reopened.indices("val")
        with pytest.raises(StoreError, match="open for reading"):
            reopened.set_splits({})
        with pytest.raises(StoreError, match="open for reading"):
            reopened.append([water(99)])


def test_rows_and_labels_are_found_by_name(store):
    store.append([water(0), water(1)])
    assert store.row("water-1") == 1
    assert "water-1" in store
    assert "nobody" not in store
    assert store.values("energy", 1)[0] == water(1).energy
    with pytest.raises(IndexError):
        store[2]
    with pytest.raises(StoreError, match="no sample"):
        store.row("nobody")
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store[0]
    with pytest.raises(StoreError, match="is closed"):
        store.append([water(5)])


def test_create_never_overwrites(store, path):
    with pytest.raises(StoreError, match="exists already"):
        Store.create(path, level=LEVEL, basis=BASIS)


def test_another_schema_is_refused_by_name(store, path, monkeypatch):
    store.close()
    monkeypatch.setattr("helmol.store.packed.SCHEMA", 2)
    with pytest.raises(StoreError, match="has schema 1, this helmol reads 2"):
        Store.open(path)


def test_what_is_no_store_is_refused_in_one_line(tmp_path):
    text = tmp_path / "text.h5"
    text.write_text("no store")
    foreign = tmp_path / "foreign.h5"
    with h5py.File(foreign, "w") as file:
        file["something"] = 1
    for path, message in (
        (tmp_path / "missing.h5", "does not exist"),
        (tmp_path, "is no file"),
        (text, "damaged or no helmol store"),
        (foreign, "damaged or no helmol store"),
    ):
        for mode in ("r", "a"):
            with pytest.raises(StoreError, match=message) as caught:
                Store.open(path, mode)
            assert "\n" not in str(caught.value)
    assert text.read_text() == "no store"
    with pytest.raises(StoreError, match="expected 'r' or 'a'"):
        Store.open(foreign, "w")


def test_one_writer_or_many_readers(store, path):
    with pytest.raises(StoreError, match="is in use: process"):
        Store.open(path, "a")
    with pytest.raises(StoreError, match="has been writing it since"):
        Store.open(path)
    store.close()
    with Store.open(path), Store.open(path), pytest.raises(StoreError, match="in use"):
        Store.open(path, "a")
    Store.open(path, "a").close()
