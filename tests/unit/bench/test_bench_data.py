from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from helmol.bench import CASES, data_rate, store_rate, usual_target
from helmol.cli.bench import bench
from helmol.store import Store
from store_samples import BASIS, LEVEL, water


@pytest.fixture
def path(tmp_path):
    with Store.create(tmp_path / "x.h5", level=LEVEL, basis=BASIS) as store:
        store.append([water(k) for k in range(70)])
    return tmp_path / "x.h5"


def test_rates_of_a_case_and_of_a_store(path):
    found = data_rate(CASES["water"], cutoff=28.0, repeats=1)
    assert found["samples_per_second"] * found["microseconds_per_sample"] == pytest.approx(1e6)
    assert found["n_samples"] == 1024
    assert usual_target(path) == "fock-minus-minao"
    assert store_rate(path, target="fock", cutoff=28.0, repeats=1)["n_samples"] == 70


def test_bench_shows_data_beside_a_training_step(path, tmp_path):
    app = typer.Typer()
    app.command()(bench)
    arguments = ["--case", "water", "--channels", "4", "--repeats", "1", "--store", str(path)]
    result = CliRunner().invoke(app, [*arguments, "--json", str(tmp_path / "bench.json")])
    assert result.exit_code == 0, result.output
    assert "samples/s from the store's file" in result.output
    data = json.loads((tmp_path / "bench.json").read_text())["data"]
    assert data["target"] == "fock-minus-minao"
    assert data["training_step_microseconds_per_sample"] > 0
