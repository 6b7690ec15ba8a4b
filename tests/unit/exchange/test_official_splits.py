"""The official splits have the published sizes, and refuse files that are not the published ones."""

import hashlib

import numpy as np
import pytest

from helmol.errors import InputError
from helmol.exchange.readers import official


def sizes(split):
    everything = np.concatenate(list(split.values()))
    assert len(np.unique(everything)) == len(everything)
    return tuple(len(rows) for rows in split.values())


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (lambda: official.md17(4999), (500, 500, 3999)),
        (lambda: official.md17(30000), (25000, 500, 4500)),
        (lambda: official.md17(26978), (25000, 500, 1478)),
        (lambda: official.qh9_stable_id(130831), (104664, 13083, 13084)),
        (lambda: official.qh9_dynamic_geo(299800), (239840, 29980, 29980)),
        (lambda: official.qh9_dynamic_mol(299800), (239800, 29900, 30100)),
        (lambda: official.qh9_dynamic_geo(99900), (79920, 9990, 9990)),
    ],
)
def test_published_counts(split, expected):
    assert sizes(split()) == expected


def test_out_of_distribution_split_by_size_checks_the_published_counts():
    n_atoms = [20] * 104001 + [21] * 17000 + [22] * 495 + [23] * 9335
    assert sizes(official.qh9_stable_ood(n_atoms)) == (104001, 17495, 9335)
    with pytest.raises(InputError, match="the official split has"):
        official.qh9_stable_ood([*n_atoms[1:], 23])


@pytest.mark.parametrize(
    "split", [official.md17, official.qh9_stable_id, official.qh9_dynamic_geo, official.qh9_dynamic_mol]
)
def test_another_number_of_rows_is_refused(split):
    with pytest.raises(InputError, match="the official split is of"):
        split(1000)


def test_rules_are_those_of_the_published_loaders():
    order = np.random.RandomState(42).permutation(4999)
    assert np.array_equal(official.md17(4999)["val"], order[500:1000])
    last = np.random.RandomState(199).permutation(100)
    assert np.array_equal(official.qh9_dynamic_geo(299800)["train"][80:160], 100 + last[:80])
    whole = official.qh9_dynamic_mol(299800)["test"].reshape(-1, 100)
    assert (whole == whole[:, :1] // 100 * 100 + np.arange(100)).all()


def test_splits_never_change():
    text = b"".join(rows.astype("<i8").tobytes() for rows in official.qh9_stable_id(130831).values())
    assert hashlib.sha256(text).hexdigest()[:16] == "29237f92494957cf"
