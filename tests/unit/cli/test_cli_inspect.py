from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from helmol.cli.inspect import inspect
from helmol.store import Store
from helmol.system import Matrices
from store_samples import BASIS, LEVEL, bare_hydrogen, water


@pytest.fixture
def invoke():
    app = typer.Typer()
    app.command()(inspect)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def _make(path, samples):
    with Store.create(path, level=LEVEL, basis=BASIS) as store:
        store.append(samples)
        store.set_splits({"train": store.ids[:2]})
    return path


def test_shows_and_writes_the_card(tmp_path, invoke):
    path = _make(tmp_path / "store.h5", [*(water(s) for s in range(8)), bare_hydrogen(9)])
    result = invoke(path, "--out", tmp_path / "card", "--json", tmp_path / "card.json")
    assert result.exit_code == 0, result.output
    assert "RKS PBE/def2-svp" in result.output
    assert f"next: helmol train CONFIG --set data={path}" in result.output.replace("\n", " ")
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["n_molecules"] == 9
    assert card["n_atoms"] == {"min": 2, "mean": pytest.approx(26 / 9), "max": 3}
    assert card["elements"]["O"]["n_atoms"] == 8
    assert card["elements"]["H"]["shells"] == "2s1p"
    assert card["labels"]["energy"] == 8
    assert card["labels"]["reference_minao"] == 8
    assert card["splits"] == {"train": 2}
    assert card["content_hash_ok"] is True
    assert card["damaged"] == []
    assert {p.name for p in (tmp_path / "card").iterdir()} == {
        *("card.md", "sizes.png", "block_norms.png", "shell_pairs.png", "gaps_and_energies.png")
    }
    page = (tmp_path / "card" / "card.md").read_text()
    for key in ("n_molecules", "content_hash", "memory_labels_float32_MB", "n_negative_gaps"):
        assert key in card
        assert key in page
        assert key in result.output


def test_names_damaged_samples_and_fails(tmp_path, invoke):
    path = _make(tmp_path / "store.h5", [water(s) for s in range(4)])
    data = bytearray(path.read_bytes())
    data[data.find(water(2).matrices.fock[0, :3].tobytes())] ^= 1
    path.write_bytes(data)
    result = invoke(path, "--json", tmp_path / "card.json")
    assert result.exit_code == 1
    assert "water-2" in result.output
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["n_in_fock_statistics"] == 3
    assert not card["content_hash_ok"]


def test_an_overlap_that_cannot_be_one_is_named(tmp_path, invoke):
    impossible = Matrices(np.eye(24), -np.eye(24))
    path = _make(tmp_path / "store.h5", [water(0), water(1, matrices=impossible)])
    result = invoke(path)
    assert result.exit_code == 0
    assert "'water-1': the overlap matrix is not positive definite" in result.output


def test_damaged_molecule_columns_do_not_stop_the_card(tmp_path, invoke):
    path = _make(tmp_path / "store.h5", [water(s) for s in range(4)])
    data = bytearray(path.read_bytes())
    data[data.find(water(1).molecule.positions.tobytes()) + 6] ^= 0xFF
    path.write_bytes(data)
    result = invoke(path, "--out", tmp_path / "card")
    assert result.exit_code == 1
    assert "water-1" in result.output
    assert (tmp_path / "card" / "sizes.png").exists()


@pytest.mark.parametrize("content", [None, b"", b"no store", b"\x89HDF\r\n\x1a\n" + bytes(99)])
def test_what_is_no_store_is_one_line(tmp_path, invoke, content):
    path = tmp_path / "store.h5"
    if content is not None:
        path.write_bytes(content)
    result = invoke(path, "--json", tmp_path / "card.json")
    assert result.exit_code == 1
    assert str(path) in result.output
    assert result.output.count("\n") == 1
    assert not (tmp_path / "card.json").exists()


def test_an_empty_store_and_one_without_labels_have_cards(tmp_path, invoke):
    assert invoke(_make(tmp_path / "empty.h5", []), "--out", tmp_path / "a").exit_code == 0
    path = _make(tmp_path / "few.h5", [bare_hydrogen(0)])
    result = invoke(path, "--json", tmp_path / "card.json", "--out", tmp_path / "b")
    assert result.exit_code == 0, result.output
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["energy_fit"] == {"skipped": "no energies"}
    assert card["gap_min_Eh"] is None
    assert np.isfinite(card["fock"]["diagonal"]["H 1s"]["mean_Eh"])
