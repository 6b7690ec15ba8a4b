"""Counts that a change must not raise unseen: operations, bytes, arithmetic; and what the verbs print.

No timing is tested. The limits stand a few percent above what was counted when they were set.
"""

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from helmol.bench import CASES, estimate, largest, run
from helmol.bench.cases import domain, molecules
from helmol.bench.estimate import reference_seconds
from helmol.bench.measure import count_operations, count_saved_bytes
from helmol.bench.run import convolution_flops
from helmol.cli.main import main
from helmol.dft import LevelConfig, basis_set, level_of_theory
from helmol.errors import InputError
from helmol.graph import Pairs, collate
from helmol.model import ModelConfig, build, predict_fock

CONFIG = ModelConfig(channels=16)


@pytest.fixture(scope="module")
def uracil():
    """Return a small network and one molecule of twelve atoms."""
    case = CASES["uracil"]
    network = build(CONFIG, domain(case))
    return network, collate([network.prepare(molecule) for molecule in molecules(case, seed=0)])


def step(network, batch, **options):
    out = network(batch, **options).fock
    torch.autograd.backward(out.normalised, [torch.ones_like(part) for part in out.normalised])
    network.zero_grad()


def convolution(network, batch, *, twice=False):
    """Return a function that runs one convolution of the network."""
    with torch.no_grad():
        states = network.backbone.nodes(batch)
    pairs = Pairs.of(states.geometry, twice=twice)
    return lambda: network.backbone.node_blocks[0].convolution(states.layers[0], states.scalars, pairs)


def test_operations_of_a_training_step(uracil):
    step(*uracil)  # makes constant tables
    assert count_operations(lambda: step(*uracil)) <= 2400


def test_bytes_kept_per_edge(uracil):
    network, batch = uracil
    kept = count_saved_bytes(lambda: network(batch)) / batch.n_edges
    little = count_saved_bytes(lambda: network(batch, checkpoint=True)) / batch.n_edges
    assert kept <= 60e3
    assert little <= 13e3


@pytest.mark.parametrize("unnatural", [0, 4])
def test_arithmetic_of_a_convolution(uracil, unnatural):
    network, batch = uracil
    if unnatural:
        network = build(CONFIG.model_copy(update={"unnatural": unnatural}), network.domain)
    function = convolution(network, batch)
    # What torch does not count by itself.
    in_place = {torch.ops.aten.addmm_: lambda _, a, b, **__: 2 * a[0] * a[1] * b[1]}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter, torch.no_grad():
        function()
    found = counter.get_total_flops() / batch.n_edges
    lmax, c = network.backbone.lmax, CONFIG.channels
    formula = convolution_flops(lmax, c, unnatural)
    gates = 2 * (c + lmax * (c - unnatural)) * lmax * c
    hidden = network.backbone.node_blocks[0].convolution.radial
    radial_flops = sum(2 * layer.weight.numel() for layer in hidden if isinstance(layer, torch.nn.Linear))
    share = (found - gates - radial_flops) / formula
    if unnatural:  # half of the first map where pairs share it; products are real
        assert share == pytest.approx(2 / 3, abs=1e-6)
    else:  # and three real products instead of four for a complex one
        assert 0.59 < share < 0.61


def test_the_plain_form_would_break_the_guards(uracil):
    network, batch = uracil
    fused = count_saved_bytes(convolution(network, batch))
    assert count_saved_bytes(convolution(network, batch, twice=True)) > 2 * fused


def test_stages_are_reported():
    result = run("water", ModelConfig(channels=4, n_layers=1), device=torch.device("cpu"), repeats=1)
    assert result["n_edges"] == 6
    assert {"convolution", "edge_block", "head", "training_step", "prediction"} <= set(result["stages"])
    for name in ("training_step", "prediction"):
        assert result["stages"][name]["share_of_floor"] > 0


def test_unknown_case():
    with pytest.raises(InputError, match="unknown case 'watr'"):
        run("watr", CONFIG, device=torch.device("cpu"))


def test_estimate_grows_with_the_molecule():
    case = CASES["40-atoms"]
    network = build(ModelConfig(channels=4, n_layers=1), domain(case))
    small, large = (estimate(network, largest(None, n)) for n in (12, 40))
    assert small["n_edges"] == small["probe_edges"] == 12 * 11
    assert large["n_edges"] == 40 * 39
    assert large["n_ao"] == predict_fock(network, [largest(None, 40)], [{}])[0].shape[0]
    for key in ("predict_seconds", "train_seconds"):
        assert large[key] > small[key] > 0
    assert large["train_memory_GB"] > large["train_checkpoint_memory_GB"] > large["predict_memory_GB"]


def test_estimate_of_a_network_that_reads_matrices():
    network = build(ModelConfig(channels=4, n_layers=1, inputs=("overlap",)), domain(CASES["40-atoms"]))
    assert estimate(network, largest(None, 6))["predict_seconds"] > 0


def test_references_without_a_fock_build_are_part_of_an_estimate():
    own = domain(CASES["water"])
    molecule = largest(None, 3)
    level = level_of_theory(LevelConfig(basis="sto-3g"), method="rks")
    shells = basis_set(LevelConfig(basis="sto-3g"), [1, 6, 8])
    for target, known in (("fock", 0.0), ("fock-minus-minao", None)):
        network = build(ModelConfig(channels=4, n_layers=1), replace(own, target=target))
        assert reference_seconds(network, molecule) == known
    lite = replace(own, target="fock-minus-minao-lite", level=level, basis=shells)
    assert reference_seconds(build(ModelConfig(channels=4, n_layers=1), lite), molecule) > 0


def test_verbs(tmp_path, capsys):
    for verb, arguments in (
        ("bench", ["--case", "water", "--channels", "4", "--repeats", "1"]),
        ("estimate", []),
    ):
        file = tmp_path / f"{verb}.json"
        extra = ["--preset", "nano", "--atoms", "6"] if verb == "estimate" else []
        with pytest.raises(SystemExit) as stop:
            main([verb, *arguments, *extra, "--json", str(file)])
        assert stop.value.code == 0
        assert json.loads(file.read_text())["n_edges"] > 0
    assert "parameters" in capsys.readouterr().out


def test_large_molecules_are_predicted_in_parts(uracil):
    network, _ = uracil
    molecule = molecules(CASES["uracil"], seed=1)
    whole, parts = (predict_fock(network, molecule, [{}], max_edges=n)[0] for n in (20_000, 30))
    assert abs(whole - parts).max() < 1e-5
