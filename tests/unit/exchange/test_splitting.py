from __future__ import annotations

import json

import numpy as np
import pytest

from helmol.errors import InputError
from helmol.exchange import parse_sizes, split_store
from helmol.files import beside
from helmol.store import Store, group_split
from helmol.store.card import CARD, SPLITS, remove_beside, write_beside
from helmol.structures.scaffold import scaffold
from helmol.system import Matrices, Molecule
from store_samples import BASIS, LEVEL, symmetric, water

THIRDS = {"train": 0.5, "val": 0.25, "test": 0.25}


def oxygen(seed, **changes):
    rng = np.random.default_rng(seed)
    molecule = Molecule([8, 8], [[0, 0, 0], [0, 0, 2.3 + 0.1 * rng.uniform()]])
    return water(
        seed,
        id=f"o2-{seed}",
        molecule=molecule,
        matrices=Matrices(symmetric(rng, 28)),
        forces=None,
        **changes,
    )


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "x.h5"
    smiles = ["O", "O", "c1ccccc1O", "c1ccccc1CC", "C1CCCC1", "OC1CCCC1"]
    with Store.create(path, level=LEVEL, basis=BASIS) as made:
        made.append([water(k, provenance={"smiles": s}) for k, s in enumerate(smiles)])
        made.append([oxygen(k, provenance={}) for k in range(6)])
    return path


def test_random_is_explicit_and_follows_the_seed(store):
    first = split_store(store, sizes={"train": 6, "val": 2})
    assert first["splits"] == {"train": 6, "val": 2}
    assert first["n_unused"] == 4
    with Store.open(store) as opened:
        ids = opened.splits
    split_store(store, sizes={"train": 6, "val": 2}, seed=1)
    with Store.open(store) as opened:
        assert opened.splits != ids


def test_molecules_stay_together(store):
    result = split_store(store, by="molecule", fractions=THIRDS)
    assert result["n_groups"] == 6
    with Store.open(store) as opened:
        owner = {id: name for name, ids in opened.splits.items() for id in ids}
    assert owner["water-0"] == owner["water-1"]
    assert len({owner[f"o2-{k}"] for k in range(6)}) == 1
    assert len(owner) == 12


def test_the_largest_molecules_come_last(store):
    split_store(store, by="size", fractions={"train": 0.5, "test": 0.5})
    with Store.open(store) as opened:
        assert all(id.startswith("o2") for id in opened.splits["train"])
        assert all(id.startswith("water") for id in opened.splits["test"])


def test_scaffolds_stay_together_and_need_smiles(store, tmp_path):
    with pytest.raises(InputError, match="no SMILES for 'o2-0'"):
        split_store(store, by="scaffold", fractions=THIRDS)
    with Store.open(store) as opened:
        samples = [opened[k] for k in range(6)]
    with Store.create(tmp_path / "y.h5", level=LEVEL, basis=BASIS) as made:
        made.append(samples)
    result = split_store(tmp_path / "y.h5", by="scaffold", fractions={"train": 0.66, "test": 0.34})
    assert result["n_groups"] == 3
    with Store.open(tmp_path / "y.h5") as opened:
        for pair in (("water-0", "water-1"), ("water-2", "water-3"), ("water-4", "water-5")):
            assert any(set(pair) <= set(ids) for ids in opened.splits.values())


def test_scaffold_of_known_molecules():
    assert scaffold("CCO") == ""
    assert scaffold("Cc1ccccc1") == scaffold("Oc1ccccc1") == "c1ccccc1"
    with pytest.raises(InputError, match="cannot be read"):
        scaffold("C1CC")


def test_groups_that_cannot_be_divided_are_refused():
    with pytest.raises(InputError, match="would be empty"):
        group_split(dict.fromkeys("abcdef", "one"), fractions=THIRDS)
    with pytest.raises(InputError, match="cannot draw"):
        group_split({"a": 1}, sizes={"train": 2})


def test_no_group_is_ever_divided():
    rng = np.random.default_rng(0)
    groups = {str(k): int(rng.integers(30)) for k in range(400)}
    for order in ("random", "ascending", "largest-first"):
        splits = group_split(groups, fractions=THIRDS, order=order)
        owners = [{groups[id] for id in ids} for ids in splits.values()]
        assert sum(map(len, owners)) == len(set.union(*owners)) == len(set(groups.values()))
        assert sum(map(len, splits.values())) == 400
        assert abs(len(splits["train"]) - 200) < 30


def test_sizes_on_the_command_line():
    assert parse_sizes("train=500, val=20") == ({"train": 500, "val": 20}, None)
    assert parse_sizes("train=0.8,val=.2") == (None, {"train": 0.8, "val": 0.2})
    assert parse_sizes("all=1.0") == (None, {"all": 1.0})
    assert parse_sizes("train=9e-1,val=1e-1") == (None, {"train": 0.9, "val": 0.1})
    for bad in ("train", "train=x", "=3", "train=0.5,val=3", "a=1,a=2", "", "train=nan", "train=inf"):
        with pytest.raises(InputError, match="sizes"):
            parse_sizes(bad)


def test_a_smiles_that_cannot_be_read_names_its_sample(tmp_path):
    with Store.create(tmp_path / "x.h5", level=LEVEL, basis=BASIS) as made:
        made.append([water(0, provenance={"smiles": "O"}), water(1, provenance={"smiles": "C1CC"})])
    with pytest.raises(InputError, match=r"x\.h5, 'water-1': SMILES 'C1CC' cannot be read"):
        split_store(tmp_path / "x.h5", by="scaffold", fractions=THIRDS)


def test_unknown_kind(store):
    with pytest.raises(InputError, match="random, molecule, size, scaffold"):
        split_store(store, by="colour", fractions=THIRDS)


def test_what_describes_a_store_follows_its_splits(store):
    card, splits = beside(store, CARD), beside(store, SPLITS)
    split_store(store, sizes={"train": 6, "val": 2})
    assert not card.exists()  # nobody asked for them
    with Store.open(store) as opened:
        write_beside(opened)
    result = split_store(store, sizes={"train": 5, "test": 3}, seed=1)
    with Store.open(store) as opened:
        assert json.loads(splits.read_text()) == opened.splits
    assert result["splits"] == {"train": 5, "test": 3}
    assert "| splits | train (5), test (3) |" in card.read_text()
    remove_beside(store)
    assert not card.exists()
    assert not splits.exists()
