"""The transfer study as a user types it, on made-up molecules."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import yaml

from energy_store import make_energy_store
from toy_store import TINY

FOLDER = Path(__file__).parents[2] / "benchmarks/transfer"


def test_the_study_runs_continues_and_reports(tmp_path, monkeypatch):
    config = {
        "data": str(make_energy_store(tmp_path / "toy.h5")), "test_molecules": 0.0, "test_conformers": 3,
        "n_val": 4, "budgets": [8], "seeds": [0],
        "common": {"model": TINY, "preset": "nano", "edges_per_batch": 30, "warmup_steps": 1, "n_threads": 1},
        "pretrain": {"max_steps": 3}, "energy": {"max_steps": 3, "readout": "linear"},
        "pretraining": {"delta": {}},
        "arms": {"direct": {}, "frozen": {"init": "delta", "keys": {"freeze": True}}},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.syspath_prepend(str(FOLDER))
    study = importlib.import_module("study")
    command = ["study.py", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", command)
    study.main()
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["split"] == {"val": 4, "train": 20, "test_conformers": 6}
    assert {run["name"] for run in results["runs"]} == {"direct-8-0", "frozen-8-0", "pretrain-delta-0"}
    table = {row["arm"]: row for row in results["table"]}
    mean, half_width = table["frozen"]["test_conformers/energy_mae_meV"]
    assert mean > 0
    assert half_width is None
    # Three steps change next to nothing: both predict the energies of the elements.
    value, low, high = results["ratios"][0]["test_conformers"]
    assert 0.8 < low <= value <= high < 1.25
    assert (tmp_path / "out/figure.png").stat().st_size > 5000
    assert "| frozen | 8 |" in (tmp_path / "out/table.md").read_text()
    # Nothing is left to do the second time.
    before = (tmp_path / "out/results.json").read_text()
    monkeypatch.setattr(study, "run", None)
    study.main()
    assert (tmp_path / "out/results.json").read_text() == before


def test_intervals_and_ratios(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    report = importlib.import_module("report")
    # Student's t for three values of spread 1: 4.303 / √3.
    assert abs(report.half_width([1.0, 2.0, 3.0]) - 2.484) < 1e-3
    rng = np.random.default_rng(0)

    def runs(arm, factor):
        return [
            {
                "arm": arm, "budget": 5, "seed": seed,
                "test_conformers": {"errors_meV": {
                    f"m{m}-{k}": factor * (1 + 0.1 * rng.normal()) for m in range(30) for k in range(3)
                }},
            }
            for seed in range(3)
        ]  # fmt: skip

    data = {
        "split": {"train": 50, "test_conformers": 90},
        "runs": runs("direct", 30.0) + runs("other", -10.0),
    }
    value, low, high = report.ratio_row(data, "other", 5)["test_conformers"]
    assert low < 3 < high
    assert abs(value - 3) < 0.1
    assert high - low < 0.3
