"""Training molecules are prepared together, and are what they would be one by one, to the last bit."""

from dataclasses import replace

import numpy as np
import pytest

from helmol.config import parse
from helmol.errors import InputError
from helmol.graph import prepare
from helmol.store import Store
from helmol.target import target_matrix
from helmol.train import TrainConfig, data, run
from helmol.train.plan import make_plan
from store_samples import BASIS, LEVEL, water
from toy_store import make_store, settings, toy_samples


def prepared(path, **changes):
    plan = make_plan(parse(TrainConfig, settings(path, linear="none", **changes)))
    store = Store.open(path)
    return store, plan, data.prepare_data(store, plan, data.choose_split(store, plan.config.data))


def same(item, known):
    return item.buckets.keys() == known.buckets.keys() and all(
        np.array_equal(item.buckets[key].target, known.buckets[key].target)
        and np.array_equal(item.buckets[key].index, known.buckets[key].index)
        and np.array_equal(item.buckets[key].reverse, known.buckets[key].reverse)
        for key in known.buckets
    )


@pytest.mark.parametrize("changes", [{}, {"cache_mb": 0.01}, {"model": {"cutoff": 2.0}}])
@pytest.mark.parametrize("values", [data.VALUES_PER_PORTION, 3 * 24**2])
def test_items_are_bit_for_bit_those_prepared_one_by_one(toy, monkeypatch, changes, values):
    monkeypatch.setattr(data, "VALUES_PER_PORTION", values)
    store, plan, found = prepared(toy, **changes)
    with store:
        cutoff = plan.network.cutoff
        samples = [store[store.row(id)] for id in found.split.train]
        known = [
            prepare(s.molecule, store.basis, cutoff=cutoff, matrix=target_matrix(s, "fock-minus-minao"))
            for s in samples
        ]
        assert len(found.items) == len(known)
        assert all(same(item, one) for item, one in zip(found.items, known, strict=True))
        assert [item.n_edges for item in known] == found.n_edges
        order = [len(known) - 1, 0, 1, 0]
        assert all(same(i, known[k]) for i, k in zip(found.items.many(order), order, strict=True))
        known[0].buckets[next(iter(known[0].buckets))].target[0, 0, 0] += 1e-15
        assert not same(found.items[0], known[0])


def test_target_is_the_best_that_all_molecules_have_unless_it_is_asked_for(tmp_path):
    samples = [
        replace(
            s,
            matrices=replace(s.matrices, references=s.matrices.references | {"minao-step": s.matrices.fock}),
        )
        for s in toy_samples(24)
    ]
    make_store(tmp_path / "all.h5", samples)
    make_store(tmp_path / "some.h5", [*samples[:23], toy_samples(24)[23]])
    for name, wanted, found in (
        ("all", "auto", "fock-minus-minao-step"),
        ("some", "auto", "fock-minus-minao"),
        ("all", "fock", "fock"),
    ):
        store, _, data = prepared(tmp_path / f"{name}.h5", train=20, target=wanted)
        store.close()
        assert data.domain.target == found
    result = run(parse(TrainConfig, settings(tmp_path / "some.h5", max_steps=2)), out=tmp_path / "run")
    assert result["target"] == "fock-minus-minao"
    store, _, data = prepared(tmp_path / "all.h5", init=str(tmp_path / "run"))
    store.close()
    assert data.domain.target == "fock-minus-minao"


def test_a_sample_without_its_reference_is_named(tmp_path):
    bare = water(3)
    bare = type(bare)(bare.id, bare.molecule, type(bare.matrices)(bare.matrices.fock), bare.energy)
    with Store.create(tmp_path / "x.h5", level=LEVEL, basis=BASIS) as store:
        store.append([water(0), water(1), water(2), bare])
        store.set_splits({"train": [f"water-{k}" for k in (0, 1, 3)], "val": ["water-2"]})
    with pytest.raises(InputError, match=r"'water-3' of .* has no reference matrix 'minao'.*: minao"):
        prepared(tmp_path / "x.h5", train="train", val="val", target="fock-minus-minao")
