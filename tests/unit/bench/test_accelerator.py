"""The table of an accelerator, tried on the CPU at a size where its numbers mean nothing."""

import torch

from helmol.bench import accelerator
from helmol.bench.accelerator import TINY, accelerator_table, as_markdown, many_sizes
from helmol.model import PRECISIONS


def test_the_table_is_complete():
    found = accelerator_table(torch.device("cpu"), workloads=TINY, repeats=2, n_sizes=4)
    assert [row["precision"] for row in found["rows"]] == list(PRECISIONS)
    change = {row["precision"]: row["output_change"] for row in found["rows"]}
    assert change["fp32"] == 0
    assert change["bf16"] > change["tf32"] > change["tf32x3"]
    for row in found["rows"]:
        assert row["n_edges"] == 30
        assert row["prediction_ms"] > row["prediction_floor_ms"] > 0
        assert row["training_ms"] > row["training_floor_ms"] > 3 * row["prediction_floor_ms"]
        assert row["training_GB"] is None
    assert found["sizes"]["n_molecules"] == 4
    assert as_markdown(found).count("\n|") == 2 + len(PRECISIONS)


def test_nothing_is_compiled_for_a_new_size_and_a_compilation_would_be_counted(monkeypatch):
    workload = next(iter(TINY.values()))
    assert many_sizes(torch.device("cpu"), workload, n=5)["compilations"] == 0
    right = accelerator.training_step

    def compiling(network, batch):
        """The planted fault: a step that is compiled for its size."""
        from torch._dynamo.utils import counters

        counters["stats"]["unique_graphs"] += 1
        return right(network, batch)

    monkeypatch.setattr(accelerator, "training_step", compiling)
    assert many_sizes(torch.device("cpu"), workload, n=5)["compilations"] == 5
