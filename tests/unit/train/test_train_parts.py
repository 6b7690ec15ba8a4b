"""Schedule, order of the data, split, optimizers, average."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helmol.config import parse
from helmol.errors import ConfigError, TrainingError
from helmol.store import Store
from helmol.target import LinearPart, Sizes, linear
from helmol.target.linear import SIZES
from helmol.train import TrainConfig, data, metrics
from helmol.train.average import averaged_copy, update_average
from helmol.train.data import MoleculeStream, choose_split
from helmol.train.muon import Muon, orthogonalise
from helmol.train.optimizers import Optimizers
from helmol.train.plan import make_plan
from helmol.train.schedule import ema_weight, lr_factor, progress
from toy_store import settings


def test_learning_rate_rises_then_falls_to_zero():
    steps = [lr_factor(k, k / 100, warmup_steps=10) for k in range(101)]
    assert steps[0] == pytest.approx(0.1)
    assert np.argmax(steps) in (9, 10)
    assert all(later < earlier for earlier, later in itertools.pairwise(steps[10:]))
    assert steps[-1] == pytest.approx(0, abs=1e-12)


def test_progress_is_the_larger_share():
    assert progress(50, 30.0, max_steps=100, max_minutes=1) == 0.5
    assert progress(50, 45.0, max_steps=100, max_minutes=1) == 0.75
    assert progress(50, 1e9, max_steps=100, max_minutes=None) == 0.5
    assert progress(10**9, 120.0, max_steps=None, max_minutes=1) == 1.0


def test_average_forgets_its_start():
    assert ema_weight(1, decay=0.999) < 0.1
    assert ema_weight(10**6, decay=0.999) == 0.999
    network = nn.Linear(2, 2)
    average = averaged_copy(network)
    start = average.weight.clone()
    with torch.no_grad():
        network.weight += 1
    update_average([*average.parameters()], [*network.parameters()], keep=0.75)
    torch.testing.assert_close(average.weight, start + 0.25)
    assert not average.weight.requires_grad


@given(
    costs=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    budget=st.integers(1, 100),
    seed=st.integers(0, 5),
)
def test_every_epoch_holds_every_molecule_once_within_the_budget(costs, budget, seed):
    stream = MoleculeStream(costs, budget=budget, seed=seed)
    n, order = len(costs), []
    while len(order) < 3 * n:
        batch = stream.take(len(order))
        assert 1 <= len(batch) <= n
        assert len(batch) == 1 or sum(max(1, costs[k]) for k in batch) <= budget
        order += batch
    for epoch in range(3):
        assert sorted(order[epoch * n : (epoch + 1) * n]) == list(range(n))
    fresh = MoleculeStream(costs, budget=budget, seed=seed)
    assert fresh.take(n // 2 + n) == stream.take(n // 2 + n)


def test_epochs_and_seeds_differ():
    orders = [MoleculeStream([1] * 20, budget=100, seed=s).take(d) for s, d in ((0, 0), (0, 20), (1, 0))]
    assert len({tuple(order) for order in orders}) == 3


def split_of(store, **changes):
    return choose_split(store, parse(TrainConfig, settings(store.path, **changes)).data)


def test_drawn_splits_are_disjoint_and_reproducible(toy):
    with Store.open(toy) as store:
        first, second = split_of(store), split_of(store)
        assert first == second
        assert (len(first.train), len(first.val)) == (16, 4)
        assert not set(first.train) & set(first.val)
        assert split_of(store, split_seed=1) != first


def test_numbers_are_drawn_from_the_stores_training_split_only(toy):
    with Store.open(toy) as store:
        store.splits = {"train": store.ids[:10], "val": store.ids[10:12], "test": store.ids[12:]}
        split = split_of(store, train=6, val="val")
        assert set(split.train) < set(store.ids[:10])
        assert split.val == store.ids[10:12]
        with pytest.raises(ConfigError, match="10 of the store's 24"):
            split_of(store, train=12, val="val")
        store.splits = {"test": store.ids[4:]}
        assert set(split_of(store, train=2, val=2).train) < set(store.ids[:4])


class Network(nn.Module):
    """The kinds of parameters there are, under the names that matter."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.linear = nn.Linear(3, 2)
        self.backbone.embedding = nn.Embedding(4, 3)
        self.backbone.stack = nn.ParameterList([torch.randn(3, 3)])
        self.head = nn.Linear(2, 2)


def optimizers_of(network, **changes):
    return Optimizers(network, TrainConfig(data="x", **changes).optimizer)


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    moments = {key.split("/", 1)[0]: set() for key in ("muon/", "adamw/")}
    network = Network()
    optimizers = optimizers_of(network)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizers.step()
    for key in optimizers.state():
        kind, _, name = key.split("/")
        moments[kind].add(name)
    assert moments["muon"] == {"backbone.linear.weight", "backbone.stack.0"}
    assert moments["muon"] | moments["adamw"] == {name for name, _ in network.named_parameters()}
    assert not moments["muon"] & moments["adamw"]


@pytest.mark.parametrize("shape", [(3, 12, 12), (2, 8, 20), (2, 20, 8)])
def test_orthogonalised_matrices_keep_their_singular_vectors(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    result = orthogonalise(matrices)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    core = u.mT @ result @ vh.mT
    values = core.diagonal(dim1=1, dim2=2)
    assert (core - torch.diag_embed(values)).abs().max() < 1e-9
    assert values.min() > 0.5
    assert values.max() < 1.3
    assert torch.equal(orthogonalise(torch.zeros(1, 3, 4)), torch.zeros(1, 3, 4))


def test_muon_moves_along_the_orthogonalised_gradient():
    weight = nn.Parameter(torch.zeros(6, 4))
    muon = Muon([weight], lr=0.5, momentum=0.0, weight_decay=0.0)
    weight.grad = torch.randn(6, 4)
    muon.step()
    torch.testing.assert_close(weight.detach(), -0.5 * 0.2 * 6**0.5 * orthogonalise(weight.grad[None])[0])
    decayed = nn.Parameter(torch.ones(4, 4))
    decayed.grad = torch.zeros(4, 4)
    Muon([decayed], lr=0.5, momentum=0.9, weight_decay=0.1).step()
    torch.testing.assert_close(decayed.detach(), torch.full((4, 4), 0.95))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_optimizers_solve_a_linear_problem(optimizer):
    torch.manual_seed(0)
    network = nn.Sequential()
    network.backbone = nn.Linear(8, 8)
    x, y = torch.randn(64, 8), torch.randn(8).expand(64, 8)
    optimizers = optimizers_of(network, optimizer=optimizer, lr=0.03, muon_lr=0.03)
    losses = []
    for step in range(200):
        optimizers.set_lr(1 - step / 200)
        optimizers.zero_grad()
        loss = (network.backbone(x) - y).square().mean()
        loss.backward()
        optimizers.step()
        losses.append(loss.item())
    assert losses[-1] < 5e-3 * losses[0]


def test_learning_rates_scale_together():
    network = Network()
    optimizers = optimizers_of(network, lr=0.25, muon_lr=0.5)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert optimizers.set_lr(0.0) == 0.0
    optimizers.step()
    assert all(torch.equal(p, before[name]) for name, p in network.named_parameters())
    assert optimizers.set_lr(0.5) == 0.125
    optimizers.step()
    assert not any(torch.equal(p, before[name]) for name, p in network.named_parameters())


def test_optimizer_state_of_another_network_is_refused():
    network = Network()
    optimizers = optimizers_of(network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizers.step()
    state = {key.replace("head", "tail"): value for key, value in optimizers.state().items()}
    with pytest.raises(TrainingError, match="unknown parameter 'tail"):
        optimizers_of(Network()).load(state)


def test_metrics_are_cut_at_the_step_and_half_rows_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics.start(path, up_to_step=0)
    for step in (5, 10, 15):
        metrics.append(path, {"step": step, "loss": 1 / 3, "val_h_mae_uEh": None})
    with path.open("a") as file:
        file.write("20,1.5,0.0")
    assert [row["step"] for row in metrics.read(path)] == [5, 10, 15]
    metrics.start(path, up_to_step=10)
    rows = metrics.read(path)
    assert [row["step"] for row in rows] == [5, 10]
    assert rows[0]["loss"] == 1 / 3
    assert "val_h_mae_uEh" not in rows[0]


@pytest.mark.parametrize(("left", "taken"), [(0.009, "large"), (0.011, None)])
def test_a_closed_form_part_is_taken_where_a_trial_shows_that_it_holds(toy, monkeypatch, left, taken):
    sizes = []

    def fit(items, *, size="small", **_):
        sizes.append((size, len(items)))
        return LinearPart((1, 8), 2, 28.0, SIZES["small"], {}), left

    monkeypatch.setattr(linear, "fit_linear", fit)
    monkeypatch.setattr(linear, "FEWEST_TRIED", 2)
    plan = make_plan(parse(TrainConfig, settings(toy)))
    with Store.open(toy) as store:
        prepared = data.prepare_data(store, plan, choose_split(store, plan.config.data))
    monkeypatch.setattr(linear, "EDGES_TRIED", sum(prepared.n_edges) - 1)
    part = LinearPart.fit(prepared.items, prepared.domain, Sizes(2, 28.0), "auto")
    assert sizes[0][0] == "small"
    assert 2 <= sizes[0][1] < len(prepared.items)
    assert sizes[1:] == ([("large", len(prepared.items))] if taken else [])
    assert (part is None) == (taken is None)
