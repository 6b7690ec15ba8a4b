"""Generation with Parsl, as a user starts it: a process of its own, since Parsl's threads outlive a run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helmol.store import Store

pytest.importorskip("parsl", reason="Parsl is not installed")

CONFIG = """
from parsl import Config
from parsl.executors import HighThroughputExecutor

config = Config(
    executors=[HighThroughputExecutor(label="two", max_workers_per_node=2, address="127.0.0.1")],
    initialize_logging=False,
    run_dir={folder!r},
)
"""

SPEC = """
structures: {files: [h2.xyz]}
level: {xc: hf, basis: sto-3g, grid_level: 0}
references: []
executor: {kind: parsl, config: parsl_config.py}
"""


def test_parsl_labels_every_molecule_once(tmp_path: Path) -> None:
    frames = (f"2\n\nH 0 0 0\nH 0 0 {0.6 + 0.02 * k:.4f}\n" for k in range(5))
    (tmp_path / "h2.xyz").write_text("".join(frames))
    (tmp_path / "parsl_config.py").write_text(CONFIG.format(folder=str(tmp_path / "parsl")))
    (tmp_path / "spec.yaml").write_text(SPEC)
    verb = ["helmol", "generate", "spec.yaml", "--out", "x.h5", "--json", "result.json"]
    command = [sys.executable, "-P", "-m", *verb]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["n_labelled"], result["n_failed"]) == (5, 0)
    with Store.open(tmp_path / "x.h5") as store:
        assert sorted(store.ids) == [f"h2-{k:05d}" for k in range(5)]
        assert store.verify() == []
