"""A store without cheap Fock matrices gets them, the same as if they had been made with the labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helmol import dft
from helmol.config import parse
from helmol.dft import LevelConfig
from helmol.errors import InputError, StoreError
from helmol.exchange import add_references, references
from helmol.store import Store, merge
from helmol.system import Molecule, outdated_references
from helmol.train import TrainConfig
from helmol.train.data import Split, prepare_data
from helmol.train.plan import make_plan

LEVEL = LevelConfig(xc="pbe", basis="sto-3g", grid_level=1)
WATER = np.array([[0.0, 0.0, 0.1], [0.0, 1.43, -0.98], [0.0, -1.43, -0.98]])


def _store(path: Path, n: int = 3, **options: object) -> Path:
    labelled = [
        dft.run(Molecule([8, 1, 1], WATER * (1 + 0.02 * k)), LEVEL, id=f"w{k}", **options) for k in range(n)
    ]
    with Store.create(path, level=dft.level_of_theory(LEVEL, method="rks"), basis=labelled[0][1]) as store:
        store.append([sample for sample, _ in labelled])
        store.set_splits({"train": [f"w{n - 1}"], "val": store.ids[: n - 1]})
    return path


def test_added_references_are_those_of_generation(tmp_path: Path) -> None:
    bare = _store(tmp_path / "bare.h5", references=("minao",))
    whole = _store(tmp_path / "whole.h5", references=("minao", "minao-step", "sap"))
    result = add_references(bare, ["minao", "minao-step", "sap"], out=tmp_path / "new.h5")
    assert (result["n_molecules"], result["n_new"]) == (3, 6)
    with Store.open(tmp_path / "new.h5") as new, Store.open(whole) as wanted:
        assert new.splits == wanted.splits
        for left, right in zip(new, wanted, strict=True):
            assert left.id == right.id
            assert left.energy == pytest.approx(right.energy, abs=1e-9)
            assert left.matrices.references.keys() == right.matrices.references.keys()
            for name, matrix in right.matrices.references.items():
                np.testing.assert_allclose(left.matrices.references[name], matrix, atol=1e-10)


def test_parts_of_an_array_make_the_whole(tmp_path: Path) -> None:
    bare = _store(tmp_path / "bare.h5", references=())
    add_references(bare, ["minao-lite"], out=tmp_path / "whole.h5")
    parts = [tmp_path / f"{k}.h5" for k in (1, 2)]
    for k, part in enumerate(parts, 1):
        add_references(bare, ["minao-lite"], out=part, shard=(k, 2))
    with Store.open(parts[0]) as first, Store.open(parts[1]) as second:
        assert (first.ids, second.ids) == (["w0", "w2"], ["w1"])
    merge(parts, tmp_path / "joined.h5")
    with Store.open(tmp_path / "joined.h5") as joined, Store.open(tmp_path / "whole.h5") as whole:
        assert joined.content_hash == whole.content_hash
        assert {name: set(ids) for name, ids in joined.splits.items()} == {
            name: set(ids) for name, ids in whole.splits.items()
        }
    for wrong, why in (((0, 2), "i from 1 to n"), ((3, 2), "i from 1 to n"), ((4, 4), "is empty")):
        with pytest.raises(InputError, match=why):
            add_references(bare, ["minao-lite"], out=tmp_path / "x.h5", shard=wrong)


def test_a_stop_loses_only_what_was_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, out = _store(tmp_path / "bare.h5", references=()), tmp_path / "new.h5"
    monkeypatch.setattr(references, "SAMPLES_PER_APPEND", 1)
    compute, calls = dft.reference_fock, []

    def interrupted(mole: object, level: object, name: str) -> object:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(mole, level, name)

    monkeypatch.setattr(references.dft, "reference_fock", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_references(bare, ["minao"], out=out)
    assert not out.exists()
    result = add_references(bare, ["minao"], out=out)
    assert (result["n_molecules"], result["n_new"]) == (3, 1)
    with Store.open(out) as store:
        assert store.ids == ["w0", "w1", "w2"]
        assert store.verify() == []


def test_what_cannot_be_added_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    bare = _store(tmp_path / "bare.h5", n=1, references=())
    for names, message in ((["nosuch"], "known are minao"), ([], "name a reference")):
        with pytest.raises(InputError, match=message):
            add_references(bare, names, out=tmp_path / "new.h5")
    with pytest.raises(StoreError, match="exists already"):
        add_references(bare, ["minao"], out=bare)
    assert [path.name for path in tmp_path.iterdir()] == ["bare.h5"]


def test_references_of_densities_that_lacked_electrons_are_made_anew(tmp_path: Path) -> None:
    level = LevelConfig(xc="lda,vwn", grid_level=0, conv_tol=1e-6)
    names = ("minao", "minao-coarse", "sap")
    iodide, basis = dft.run(
        Molecule([53, 1], [[0, 0, 0], [0, 0, 3.04]]), level, id="hi", references=names[:2]
    )
    water, other = dft.run(Molecule([8, 1, 1], WATER), level, id="w", references=names)
    older = {key: value for key, value in iodide.provenance.items() if key != "reference_densities"}
    wrong = {name: matrix + np.eye(matrix.shape[-1]) for name, matrix in iodide.matrices.references.items()}
    iodide = replace(iodide, provenance=older, matrices=replace(iodide.matrices, references=wrong))
    assert outdated_references(names, np.array([53, 1]), basis, older) == names[:2]
    path, new = tmp_path / "old.h5", tmp_path / "new.h5"
    theory = dft.level_of_theory(level, method="rks")
    with Store.create(path, level=theory, basis=basis.merged(other)) as store:
        store.append([iodide, water])
        store.set_splits({"train": ["hi", "w"]})
    with pytest.raises(InputError, match=r"'minao' of 'hi'.* lacks electrons.*'--add minao'"):
        _prepare(path)
    result = add_references(path, ["minao"], out=new)
    # The other outdated one, too, and nothing of water.
    assert (result["n_new"], result["n_renewed"]) == (2, 2)
    with Store.open(new) as store:
        found = store[0]
        for name, matrix in found.matrices.references.items():
            np.testing.assert_allclose(matrix, wrong[name] - np.eye(matrix.shape[-1]), atol=1e-9)
        assert store[1].matrices.references.keys() == set(names)
        assert outdated_references(names, np.array([53, 1]), store.basis, found.provenance) == ()
    _prepare(new)
    assert add_references(new, ["minao"], out=tmp_path / "again.h5")["n_new"] == 0


def _prepare(path: Path) -> None:
    """Read a store for training."""
    flat = {
        "data": str(path),
        "train": "train",
        "target": "fock-minus-minao",
        "preset": "nano",
        "linear": "none",
    }
    with Store.open(path) as store:
        prepare_data(store, make_plan(parse(TrainConfig, flat)), Split(train=["hi", "w"], val=[]))
