"""Embeddings: invariant features, scores that find what is separated, the verb."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from energy_store import energy_samples, make_energy_store
from helmol import structures
from helmol.cli.main import app
from helmol.embed.embedding import Embedding, embed, plane, separation, umap_plane
from helmol.embed.run import embed_runs
from helmol.errors import ConfigError, InputError
from helmol.model import build, save_model
from helmol.model.config import ModelConfig
from helmol.system import Molecule
from helmol.target import Domain
from toy_store import BASIS, LEVEL, TINY


@pytest.fixture(scope="module")
def network():
    domain = Domain(LEVEL, BASIS, "fock", (0,), (0,))
    return build(ModelConfig(**TINY), domain, seed=0)


def clusters(spread, n=60, seed=0):
    """Two environments of one element at distance 1, in molecules of many formulas."""
    rng = np.random.default_rng(seed)
    kind = np.arange(n) % 2
    features = np.stack([kind + spread * rng.normal(size=n), rng.normal(size=n)], axis=1)
    return Embedding(
        features, np.array(["C"] * n), np.array(["C(HHH)", "C(HH)"])[kind],
        np.array([f"X{k // 2}" for k in range(n)]), np.arange(n) // 2,
    )  # fmt: skip


def test_environments_are_named_by_neighbours():
    ethene = Molecule.from_angstrom(
        [6, 6, 1, 1, 1, 1],
        [[0, 0, 0.67], [0, 0, -0.67], [0.92, 0, 1.24], [-0.92, 0, 1.24], [0.92, 0, -1.24], [-0.92, 0, -1.24]],
    )
    assert structures.environments(ethene) == ["C(CHH)"] * 2 + ["H(C)"] * 4
    assert structures.environments(Molecule.from_angstrom([8], [[0, 0, 0]])) == ["O()"]


def test_features_do_not_turn_with_the_molecule(network):
    molecule = energy_samples(2)[0].molecule
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    turned = replace(molecule, positions=molecule.positions @ turn.T)
    first, second = (embed(network, [m]).features for m in (molecule, turned))
    assert np.allclose(first, second, atol=1e-5)
    assert not np.allclose(first[0], first[1], atol=1e-2)


def test_scores_see_separation():
    tight, loose = (separation(clusters(spread)) for spread in (0.05, 50.0))
    assert tight["purity"] > 0.95
    assert tight["chance"] == pytest.approx(0.5, abs=0.02)
    assert loose["purity"] == pytest.approx(0.5, abs=0.15)
    assert tight["silhouette"] > loose["silhouette"] + 0.2
    assert tight["by_element"]["C"]["n_environments"] == 2


def test_atoms_of_the_same_formula_do_not_vouch_for_each_other():
    parts = clusters(50.0)
    copies = Embedding(
        np.repeat(parts.features, 4, axis=0), np.repeat(parts.elements, 4), np.repeat(parts.environments, 4),
        np.repeat(parts.formulas, 4), np.arange(4 * len(parts.elements)),
    )  # fmt: skip
    assert separation(copies, neighbours=3)["purity"] == pytest.approx(0.5, abs=0.15)
    # Were conformers counted, three of three neighbours would be copies of the atom itself.
    blind = replace(copies, formulas=np.array([str(k) for k in range(len(copies.elements))]))
    assert separation(blind, neighbours=3)["purity"] > 0.99


def test_silhouette_against_the_slow_way():
    parts = clusters(0.5, n=12)
    x = parts.features / parts.features.std(axis=0)
    values = []
    for i in range(12):
        distance = np.linalg.norm(x - x[i], axis=1)
        same = (parts.environments == parts.environments[i]) & (np.arange(12) != i)
        a, b = distance[same].mean(), distance[parts.environments != parts.environments[i]].mean()
        values.append((b - a) / max(a, b))
    assert separation(parts)["silhouette"] == pytest.approx(np.mean(values))


def test_one_environment_has_no_score():
    parts = replace(clusters(1.0), environments=np.array(["C(HHH)"] * 60))
    assert separation(parts)["purity"] is None
    assert separation(parts)["by_element"] == {}


def test_one_molecule_has_no_purity(network, tmp_path):
    """Nobody is a neighbour there, and the file says so instead of breaking JSON or showing nan."""
    samples = [sample for sample in energy_samples(4) if sample.molecule.n_atoms == 4][:1]
    part = embed(network, [samples[0].molecule])
    part = replace(part, environments=np.array(["O(H)", "H(O)", "H(H)", "O(O)"]))
    scores = separation(part)
    assert scores["by_element"].keys() == {"H", "O"}
    assert scores["purity"] is None
    assert scores["chance"] is None
    assert np.isfinite(scores["silhouette"])
    assert all(entry["purity"] is None for entry in scores["by_element"].values())


def test_principal_components():
    rng = np.random.default_rng(0)
    line = rng.normal(size=(50, 1)) @ np.ones((1, 4))
    places, share = plane(line + 1e-3 * rng.normal(size=(50, 4)))
    assert places.shape == (50, 2)
    assert share[0] > 0.99


def test_the_verb(network, tmp_path):
    data = make_energy_store(tmp_path / "toy.h5")
    for name in ("one", "two"):
        save_model(tmp_path / name, network)
    answer = CliRunner().invoke(
        app,
        [
            *("embed", str(tmp_path / "one"), str(data), "--compare", str(tmp_path / "two")),
            *("--out", str(tmp_path / "out"), "--json", str(tmp_path / "e.json")),
        ],
    )
    assert answer.exit_code == 0, answer.output
    result = json.loads((tmp_path / "e.json").read_text())
    assert result["models"].keys() == {"one", "two"}
    assert result["n_molecules"] == 30
    assert 0 <= result["models"]["one"]["purity"] <= 1
    assert (tmp_path / "out/embedding.png").stat().st_size > 10_000
    with np.load(tmp_path / "out/embedding.npz") as arrays:
        assert arrays["features_1"].shape == (result["n_atoms"], 4)


def test_refusals(network, tmp_path, monkeypatch):
    data = make_energy_store(tmp_path / "toy.h5")
    with pytest.raises(ConfigError, match="pca or umap"):
        embed_runs({"a": network}, data, method="tsne", out=tmp_path)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r"helmol\[embed\]"):
        embed_runs({"a": network}, data, method="umap", out=tmp_path)
    with pytest.raises(InputError, match="at least 5 atoms, the molecules have 3"):
        umap_plane(np.zeros((3, 4)))
    with pytest.raises(InputError, match="no molecules"):
        embed(network, [])
