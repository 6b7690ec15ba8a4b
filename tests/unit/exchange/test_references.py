"""A store without cheap Fock matrices gets them, the same as if they had been made with the labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helmol import dft
from helmol.dft import LevelConfig
from helmol.errors import InputError, StoreError
from helmol.exchange import add_references, references
from helmol.store import Store
from helmol.system import Molecule

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
