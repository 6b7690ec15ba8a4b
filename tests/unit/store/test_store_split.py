from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helmol.errors import InputError
from helmol.store import random_split

IDS = [f"m{k}" for k in range(100)]


@given(a=st.integers(0, 50), b=st.integers(0, 50), seed=st.integers(0, 5))
def test_sizes_are_kept_and_splits_disjoint(a, b, seed):
    splits = random_split(IDS, sizes={"train": a, "test": b}, seed=seed)
    assert [len(splits[name]) for name in ("train", "test")] == [a, b]
    drawn = splits["train"] + splits["test"]
    assert len(set(drawn)) == a + b
    assert set(drawn) <= set(IDS)


def test_depends_on_seed_and_ids_but_not_on_their_order():
    first = random_split(IDS, sizes={"train": 50}, seed=0)
    assert first == random_split(IDS[::-1], sizes={"train": 50}, seed=0)
    assert first != random_split(IDS, sizes={"train": 50}, seed=1)


@given(n=st.integers(0, 60), share=st.sampled_from([0.1, 0.3, 0.7, 0.8]))
def test_fractions_of_one_use_everybody(n, share):
    splits = random_split(IDS[:n], fractions={"train": share, "test": 1 - share})
    assert sorted(splits["train"] + splits["test"]) == sorted(IDS[:n])
    assert abs(len(splits["train"]) - share * n) < 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either"),
        ({"sizes": {"a": 1}, "fractions": {"a": 1.0}}, "either"),
        ({"sizes": {"a": 60, "b": 41}}, "cannot draw 60 a \\+ 41 b from 100"),
        ({"sizes": {"a": -1}}, "cannot draw"),
        ({"fractions": {"a": 0.7, "b": 0.7}}, "at most 1"),
        ({"fractions": {}}, "at most 1"),
    ],
)
def test_refuses_what_cannot_be(arguments, message):
    with pytest.raises(InputError, match=message):
        random_split(IDS, **arguments)


def test_refuses_an_id_twice():
    with pytest.raises(InputError, match="twice"):
        random_split(["a", "a"], sizes={"x": 1})
