"""Baselines where a store has none, published errors of one set, what is said aloud, and no old files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from energy_store import energy_samples, make_energy_store
from helmol import dft
from helmol.basis import BasisSet, ElementBasis
from helmol.evaluate import METRICS, ErrorTable, energies_from_fock, report
from helmol.evaluate.baselines import made_baseline, spread
from helmol.evaluate.published import comparable, published, set_name
from helmol.evaluate.remarks import no_better, no_gain, remarks
from helmol.evaluate.run import evaluate_store
from helmol.model import ModelConfig, build
from helmol.store import Store
from helmol.system import Matrices, Molecule, Sample
from helmol.target import Domain
from toy_store import BASIS, LEVEL, TINY, make_store, toy_samples

STO3G = dft.LevelConfig(xc="pbe", basis="sto-3g", grid_level=1)


def untrained(target="fock-minus-minao", **heads):
    return build(ModelConfig(**TINY, **heads), Domain(LEVEL, BASIS, target, (0,), (0,)))


def without_references(samples):
    return [replace(s, matrices=replace(s.matrices, references={})) for s in samples]


# baselines


def test_a_cheap_matrix_is_made_where_the_store_has_none():
    water = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.74, -0.5]])
    sample, basis = dft.run(water, STO3G, id="w", references=["minao"])
    level = dft.level_of_theory(STO3G, method="rks")
    (bare,) = without_references([sample])
    tables, note = made_baseline([bare], basis, level, store="d.h5", total=1)
    own = np.abs(sample.matrices.references["minao"] - sample.matrices.fock).mean()
    assert tables["minao"]["h_mae_uEh"] == pytest.approx(1e6 * own, rel=1e-9)
    assert note == "minao was made now; 'helmol references d.h5 --add minao --out NEW' adds it to all"
    _, note = made_baseline([bare], basis, level, store="d.h5", total=500)
    assert note.startswith("minao of 1 of 500 molecules, evenly spread was made now")
    # Other functions under the same name: a matrix of those would be compared with one of these.
    other = BasisSet("sto-3g", {**basis.elements, 8: replace(basis.elements[8], hash="other")})
    assert made_baseline([bare], other, level, store="d.h5", total=1) == (
        {},
        "no cheap guess to compare with: the store has none, and PySCF has other functions under the name "
        "'sto-3g'",
    )


def test_why_there_is_no_baseline_is_said(tmp_path):
    data = make_store(tmp_path / "bare.h5", without_references(toy_samples(3)))
    result = evaluate_store(untrained("fock"), data, split="all", out=tmp_path / "e")
    assert result["baselines"] == {}
    assert "no cheap guess to compare with" in result["remarks"][-1]
    assert "unknown basis 'toy'" in result["remarks"][-1]


def test_the_molecules_of_a_baseline_are_spread_over_all():
    assert spread(list(range(100, 103)), 20) == [100, 101, 102]
    assert spread(list(range(39)), 20) == list(range(0, 39, 2))


def test_a_baseline_of_some_molecules_says_so_in_its_head():
    result = {
        "n_molecules": 50,
        "h_mae_uEh": 1.0,
        "baselines": {"minao": {"n_molecules": 20, "h_mae_uEh": 9.0}},
    }
    head, rows = report.error_columns(result)
    assert head == ["mean error", "model", "minao (20 of 50)"]
    assert rows == [["Fock matrix / µEh", 1.0, 9.0]]


# what is said aloud


def test_a_model_that_is_no_better_than_the_cheap_start():
    good = {"h_mae_uEh": 1.0, "eps_occ_mae_uEh": 5.0, "density_error": None}
    minao = {"h_mae_uEh": 18000.0, "eps_occ_mae_uEh": 4.0, "density_error": 0.5}
    assert no_better(good, {"minao": minao}) == [
        "NO BETTER THAN THE CHEAP GUESS 'minao': ε_occ 5 µEh against 4"
    ]
    assert no_better({**good, "eps_occ_mae_uEh": 3.9}, {"minao": minao}) == []
    assert "H nan" in no_better({**good, "h_mae_uEh": float("nan")}, {"minao": minao})[0]


def test_a_start_that_brings_nothing():
    runs = {
        "minao": {"cycles": 9, "fock_builds": 10},
        "model": {"cycles": 8, "fock_builds": 10},
        "vsap": {"cycles": 11, "fock_builds": 12},
    }
    assert no_gain(runs) == ["NO BETTER THAN THE START 'minao': 10 Fock builds in 8 cycles against 10 in 9"]
    assert no_gain({"minao": runs["minao"]}) == []


def test_gaps_that_only_the_prediction_lacks():
    basis = BasisSet("h", {1: ElementBasis((0, 0), 0, "h")})
    molecule = Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1.4]]))
    label = np.diag([-1.0, 0.0, 0.5, 1.0])
    closed = np.diag([-1.0, -0.999, 0.5, 1.0])
    samples = [Sample(f"h{k}", molecule, Matrices(label, np.eye(4))) for k in range(9)]
    samples.append(Sample("metal", molecule, Matrices(closed, np.eye(4))))
    table = ErrorTable(basis)
    for sample in samples:
        table.add(sample, {"model": closed})
    found = table.summary("model")
    assert [flag["id"] for flag in found["flags"]] == [f"h{k}" for k in range(9)]
    assert found["n_flagged"] == 9
    (line,) = remarks({**found, "baselines": {}})
    assert line.startswith(
        "9 of 10 molecules have a small or negative predicted gap where DFT has none (h0: small"
    )
    assert line.endswith("; and 4 more)")


def test_densities_that_are_far_from_their_first_step():
    water = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.48], [0, -0.74, -0.5]])
    sample, _ = dft.run(water, STO3G, id="w", references=["minao"])
    matrices = {"true": [sample.matrices.fock], "core": [np.diag(np.arange(7.0))]}
    tables = energies_from_fock([sample], matrices, dft.level_of_theory(STO3G, method="rks"))
    assert tables["true"]["energy_from_h_flags"] == []
    (flag,) = tables["core"]["energy_from_h_flags"]
    assert flag["id"] == "w"
    assert "density far from its first SCF step" in flag["text"]
    lines = remarks({"baselines": {}, "n_molecules": 1, **tables["core"]})
    assert lines[0].startswith("1 of 1 molecules have a predicted density far from its first SCF step (w: ")


def test_numbers_that_are_of_some_molecules_say_so():
    samples = toy_samples(3)
    samples[1] = replace(samples[1], matrices=replace(samples[1].matrices, overlap=None))
    table = ErrorTable(BASIS)
    for sample in samples:
        table.add(sample, {"model": sample.matrices.references["minao"]})
    found = table.summary("model")
    assert found["gap_mae_uEh"] is not None
    assert found["missing"]["gap_mae_uEh"].startswith("known of 2 of 3 molecules only: ")
    assert found["missing"]["dipole_mae_debye"].startswith("no level of theory")


# published figures


def test_the_table_of_published_errors_is_whole():
    rows = published()
    assert len(rows) == 90
    for row in rows:
        assert row["metric"] in METRICS
        assert row["value"] > 0
        assert row["source"]
        assert row["n_train"] is None or row["n_train"] > 0
    assert len({(r["set"], r["model"], r["metric"], r["n_train"]) for r in rows}) == len(rows)
    water = comparable("MD17 water", xc="PBE", basis="def2-SVP")
    assert {r["model"]: r["value"] for r in water if r["metric"] == "h_mae_uEh"}["HELM"] == 9.33
    assert comparable("MD17 water", xc="b3lyp", basis="def2-svp") == []
    assert comparable(None, xc="pbe", basis="def2-svp") == []


def imported(path, code, samples, **splits):
    level = replace(LEVEL, code=code)
    make_store(path, samples, level=level)
    with Store.open(path, "a") as store:
        store.set_splits(splits)
        return {name: set_name(store, name, store.indices(name)) for name in splits}


def named(names, *, numbers=(8, 1, 1), **provenance):
    samples = toy_samples(len(names), numbers=numbers)
    return [replace(s, id=name, provenance=provenance) for s, name in zip(samples, names, strict=True)]


def test_published_sets_are_told_by_their_import(tmp_path):
    water = named(["a", "b"], source="schnorb_hamiltonian_water.db")
    found = imported(tmp_path / "md17.h5", "orca (SchNOrb release)", water, train=["a"], test=["b"])
    assert found == {"train": None, "test": "MD17 water"}
    # Made here of the same molecule: another set.
    assert imported(tmp_path / "own.h5", "pyscf 2.14.0", water, test=["b"]) == {"test": None}
    peroxide = named(["a"], numbers=(8, 1, 1, 8))
    assert imported(tmp_path / "h2o2.h5", "orca (SchNOrb release)", peroxide, test=["a"]) == {"test": None}
    stable = named(["qh9-1", "qh9-2"])
    assert imported(tmp_path / "qh9.h5", "pyscf (QH9)", stable, test=["qh9-2"]) == {"test": "QH9 stable id"}
    frames = named(["qh9d-1-0", "qh9d-1-1", "qh9d-2-0"])
    same, new = {"train": ["qh9d-1-0"], "test": ["qh9d-1-1"]}, {"train": ["qh9d-1-0"], "test": ["qh9d-2-0"]}
    assert imported(tmp_path / "geo.h5", "pyscf (QH9)", frames, **same)["test"] == "QH9 dynamic geo"
    assert imported(tmp_path / "mol.h5", "pyscf (QH9)", frames, **new)["test"] == "QH9 dynamic mol"
    nabla = named(["nabla-1"], source="test_2k_conformers.db")
    found = imported(tmp_path / "nabla.h5", "psi4 (nablaDFT v2)", nabla, test=["nabla-1"])
    assert found == {"test": "∇²DFT 2k conformers"}


def test_published_errors_stand_in_the_report(tmp_path):
    level = replace(LEVEL, code="orca (SchNOrb release)", basis="def2-svp")
    data = make_store(tmp_path / "md17.h5", toy_samples(3), level=level)
    with Store.open(data, "a") as store:
        store.set_splits({"test": store.ids})
    network = build(ModelConfig(**TINY), Domain(level, BASIS, "fock-minus-minao", (0,), (0,)))
    result = evaluate_store(network, data, out=tmp_path / "e")
    assert result["set"] == "MD17 water"
    text = (tmp_path / "e/report.md").read_text()
    assert "other functions under the name" in result["missing"]["dipole_mae_debye"]
    assert "## Published on MD17 water" in text
    assert f"| HELM | Fock matrix / µEh | 9.33 | {result['h_mae_uEh']:.4g} | 500 | fock | Kaniselvan" in text


# the folder


def test_nothing_of_an_earlier_evaluation_stays(tmp_path):
    samples = energy_samples(4)
    data, out = make_energy_store(tmp_path / "toy.h5", samples), tmp_path / "e"
    evaluate_store(untrained(), data, split="all", out=out)
    pictures = {"parity.png", "shell_pairs.png", "levels.png", "elements.png", "distances.png"}
    assert {path.name for path in out.iterdir()} == {"evaluation.json", "report.md", *pictures}
    text = (out / "report.md").read_text()
    assert all(f"]({name})" in text for name in pictures)
    assert "mean \\|cosine\\|" in text  # a bar in a name does not end a cell
    assert json.loads((out / "evaluation.json").read_text())["remarks"]
    no_overlap = [replace(s, matrices=replace(s.matrices, overlap=None)) for s in samples]
    data = make_energy_store(tmp_path / "bare.h5", no_overlap)
    evaluate_store(untrained(), data, split="all", out=out)
    assert not (out / "levels.png").exists()
    assert "levels.png" not in (out / "report.md").read_text()
