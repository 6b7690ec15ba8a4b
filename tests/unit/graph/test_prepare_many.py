"""Many molecules at once are the same as one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from physics_tools import made_up_basis, random_molecule

from helmol.errors import InputError
from helmol.graph import collate, prepare, prepare_many
from helmol.system import Molecule

BASIS = made_up_basis()


def same_atoms(rng, n, spread=2.0):
    numbers = (8, 1, 16, 1, 6, 6)
    return [random_molecule(rng, numbers=numbers, spread=spread) for _ in range(n)]


def matrices(rng, molecules, n_spins):
    nao = int(BASIS.offsets(molecules[0].numbers)[-1])
    full = rng.normal(size=(len(molecules), n_spins, nao, nao))
    return full + full.swapaxes(-1, -2)


def packed(full):
    rows, columns = np.triu_indices(full.shape[-1])
    return np.ascontiguousarray(full[..., rows, columns]).reshape(len(full), -1)


def assert_equal(mine, reference):
    for name in ("numbers", "positions", "charge", "spin", "molecule", "pair_index"):
        assert torch.equal(getattr(mine, name), getattr(reference, name))
    assert [b.key for b in mine.buckets] == [b.key for b in reference.buckets]
    for left, right in zip(mine.buckets, reference.buckets, strict=True):
        assert torch.equal(left.index, right.index)
        assert (left.target is None) == (right.target is None)
        if left.target is not None:
            assert left.target.shape == right.target.shape
            assert torch.equal(left.target, right.target)


@pytest.mark.parametrize("n_spins", [1, 2])
@pytest.mark.parametrize("cutoff", [100.0, 4.0, 1.6])
def test_the_same_as_one_by_one(n_spins, cutoff):
    rng = np.random.default_rng(0)
    molecules = same_atoms(rng, 5)
    full = matrices(rng, molecules, n_spins)
    one_by_one = [
        prepare(m, BASIS, cutoff=cutoff, matrix=f[0] if n_spins == 1 else f)
        for m, f in zip(molecules, full, strict=True)
    ]
    together = prepare_many(molecules, BASIS, cutoff=cutoff, packed=packed(full))
    assert [i.n_edges for i in together] == [i.n_edges for i in one_by_one]
    assert_equal(collate(together), collate(one_by_one))


def test_without_matrices_and_with_one_atom():
    rng = np.random.default_rng(1)
    molecules = same_atoms(rng, 3)
    together = prepare_many(molecules, BASIS, cutoff=5.0)
    assert_equal(collate(together), collate([prepare(m, BASIS, cutoff=5.0) for m in molecules]))
    atom = [Molecule([8], np.zeros((1, 3)))]
    assert_equal(
        collate(prepare_many(atom, BASIS, cutoff=5.0)), collate([prepare(atom[0], BASIS, cutoff=5.0)])
    )


def test_a_swapped_element_is_seen():
    rng = np.random.default_rng(2)
    molecules = same_atoms(rng, 2)
    full = matrices(rng, molecules, 1)
    wrong = packed(full)
    wrong[1, 7] += 1e-6
    reference = collate(
        [prepare(m, BASIS, cutoff=9.0, matrix=f[0]) for m, f in zip(molecules, full, strict=True)]
    )
    with pytest.raises(AssertionError):
        assert_equal(collate(prepare_many(molecules, BASIS, cutoff=9.0, packed=wrong)), reference)


def test_other_atoms_and_sizes_are_refused():
    rng = np.random.default_rng(3)
    molecules = same_atoms(rng, 2)
    with pytest.raises(InputError, match="same atoms"):
        prepare_many([molecules[0], random_molecule(rng)], BASIS, cutoff=9.0)
    with pytest.raises(InputError, match="do not fit"):
        prepare_many(molecules, BASIS, cutoff=9.0, packed=np.zeros((2, 11)))
