"""Blocks of samples from a store are the samples, in the order asked for, and damage is seen."""

from __future__ import annotations

import numpy as np
import pytest

from helmol.errors import ConfigError, InputError, StoreError
from helmol.graph import collate, prepare
from helmol.store import Store
from helmol.system import Matrices, Molecule
from helmol.target import stored_items, target_matrix
from helmol.target.matrix import smeared_density
from store_samples import BASIS, LEVEL, symmetric, water


def hydrogen(seed):
    rng = np.random.default_rng(seed)
    molecule = Molecule([1, 1], [[0, 0, 0], [0, 0, 1.4 + rng.uniform()]])
    matrices = Matrices(symmetric(rng, 10), None, {"minao": symmetric(rng, 10)})
    return water(seed, id=f"h2-{seed}", molecule=molecule, matrices=matrices, forces=None)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "x.h5"
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        # More than one chunk of the file, compositions in turn.
        store.append([make(k) for k in range(130) for make in (water, hydrogen)])
    return path


@pytest.mark.parametrize("target", ["fock", "fock-minus-minao", None])
def test_items_are_those_of_the_samples(path, target):
    rows = np.random.default_rng(0).permutation(260)[:150].tolist()
    with Store.open(path) as store:
        items = stored_items(store, rows, cutoff=9.0, target=target)
        for row, item in zip(rows, items, strict=True):
            sample = store[row]
            matrix = None if target is None else target_matrix(sample, target)
            known = prepare(sample.molecule, BASIS, cutoff=9.0, matrix=matrix)
            assert np.array_equal(item.molecule.positions, sample.molecule.positions)
            assert not item.molecule.positions.flags.writeable
            assert (item.molecule.charge, item.molecule.spin) == (0, 0)
            assert item.molecule.formula == sample.molecule.formula
            assert item.buckets.keys() == known.buckets.keys()
            for key, bucket in known.buckets.items():
                assert np.array_equal(item.buckets[key].index, bucket.index)
                if target is not None:
                    assert np.array_equal(item.buckets[key].target, bucket.target)
        assert collate(items).n_edges == sum(item.n_edges for item in items)


@pytest.mark.parametrize("inputs", [("reference",), ("overlap",), ("overlap", "reference", "density")])
def test_matrices_that_the_network_reads_come_along(path, inputs):
    rows = list(range(0, 80, 2))  # waters, which have an overlap matrix
    with Store.open(path) as store:
        items = stored_items(store, rows, cutoff=9.0, target="fock-minus-minao", inputs=inputs)
        for row, item in zip(rows, items, strict=True):
            sample = store[row]
            h0, overlap = sample.matrices.references["minao"], sample.matrices.overlap
            wanted = {"reference": h0, "overlap": overlap, "density": smeared_density(h0, overlap, 10)}
            known = prepare(
                sample.molecule,
                BASIS,
                cutoff=9.0,
                matrix=target_matrix(sample, "fock-minus-minao"),
                inputs=np.stack([wanted[name] for name in inputs]),
            )
            for key, bucket in known.buckets.items():
                assert np.array_equal(item.buckets[key].target, bucket.target)
                assert np.array_equal(item.buckets[key].inputs, bucket.inputs)
        with pytest.raises(InputError, match="lacks the overlap matrix"):
            stored_items(store, [1], cutoff=9.0, target="fock-minus-minao", inputs=("overlap",))
        with pytest.raises(ConfigError, match="has no reference"):
            stored_items(store, rows, cutoff=9.0, target="fock", inputs=("reference",))


def test_a_damaged_sample_is_named_and_the_others_are_not(path, tmp_path):
    data = bytearray(path.read_bytes())
    data[data.find(water(77).matrices.fock[0, :3].tobytes())] ^= 1
    (tmp_path / "y.h5").write_bytes(data)
    with Store.open(tmp_path / "y.h5") as store:
        stored_items(store, [150, 152, 156], cutoff=9.0, target="fock")
        with pytest.raises(StoreError, match="row 154 does not match its checksum"):
            stored_items(store, [150, 152, 154, 156], cutoff=9.0, target="fock")


def test_a_missing_reference_is_refused(tmp_path):
    with Store.create(tmp_path / "x.h5", level=LEVEL, basis=BASIS) as store:
        store.append([water(0), water(1, matrices=Matrices(np.eye(24)))])
        stored_items(store, [0], cutoff=9.0, target="fock-minus-minao")
        with pytest.raises(StoreError, match="different size in 'reference_minao'"):
            stored_items(store, [0, 1], cutoff=9.0, target="fock-minus-minao")
        with pytest.raises(InputError, match="'water-1' lacks the reference 'minao'"):
            stored_items(store, [1], cutoff=9.0, target="fock-minus-minao")


def test_a_block_of_different_atoms_is_refused(path):
    with Store.open(path) as store, pytest.raises(StoreError, match="different size in 'numbers'"):
        store.read_block([0, 1], ["fock"])
