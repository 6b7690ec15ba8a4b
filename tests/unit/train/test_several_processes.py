"""The model is one module: wrapped for several processes it trains as in one, through its call alone."""

import pytest
import torch
import torch.multiprocessing
from torch import nn

import ddp_worker
from ddp_worker import TASKS, made_model, step, work
from helmol.graph import collate

pytestmark = pytest.mark.filterwarnings(
    # The derivative by positions inside forward is none of parameters, which is what torch warns of.
    "ignore:.*torch.autograd.grad.*:UserWarning"
)


class CallOnly:
    """Stands for a wrapper: whatever is asked of it but a call is an error."""

    def __init__(self, model):
        object.__setattr__(self, "_model", model)

    def __call__(self, *arguments, **more):
        return object.__getattribute__(self, "_model")(*arguments, **more)

    def __getattribute__(self, name):
        raise AttributeError(f"{name!r} is asked of the wrapped model")


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_needs_nothing_but_the_call(task):
    model, items = made_model(task)
    value = ddp_worker.loss_of(task)(CallOnly(model), collate(items), 0.0)
    value.backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert unused == []


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_two_processes_learn_what_one_does(task, tmp_path):
    torch.multiprocessing.spawn(work, args=(2, str(tmp_path), task), nprocs=2)
    model, items = made_model(task)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    for _ in range(2):
        model.zero_grad()
        step(model, model, collate(items), task)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, weight in model.named_parameters():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], weight.detach(), rtol=1e-9, atol=1e-12)
    assert any((weight - start[name]).abs().max() > 1e-3 for name, weight in model.named_parameters())
    # The planted fault: one process's own molecules teach it something else.
    alone, items = made_model(task)
    for _ in range(2):
        alone.zero_grad()
        step(alone, alone, collate(items[::2]), task)
    assert any((weight - ranks[0][name]).abs().max() > 1e-6 for name, weight in alone.named_parameters())


def test_the_whole_state_is_in_the_module():
    """What is copied, cast and loaded by torch's own means is the whole model."""
    model, items = made_model("both")
    twin, _ = made_model("both")
    with torch.no_grad():
        for value in twin.state_dict().values():
            value.zero_()
    twin.load_state_dict(model.state_dict())
    batch = collate(items)
    for network in (model, twin):
        network.eval()
    one, other = (network(batch, forces=True) for network in (model, twin))
    assert torch.equal(one.energy.energy, other.energy.energy)
    assert torch.equal(one.energy.forces, other.energy.forces)
    dense = [network.fock_target.dense(out.fock, batch) for network, out in ((model, one), (twin, other))]
    assert all(torch.equal(a, b) for a, b in zip(*dense, strict=True))
    model.float()
    kinds = {name: value.dtype for name, value in model.state_dict().items()}
    assert {kind for name, kind in kinds.items() if name.startswith("targets.")} == {torch.float64}
    assert {kind for name, kind in kinds.items() if not name.startswith("targets.")} == {torch.float32}
    loose = [
        name
        for name, value in vars(model).items()
        if isinstance(value, (torch.Tensor, nn.Module)) and not name.startswith("_")
    ]
    assert loose == []


def test_two_models_share_nothing():
    """What is done to one model of a process, another of the same making does not notice."""
    first, items = made_model("both")
    second, _ = made_model("both")
    batch = collate(items)
    before = second(batch, forces=True)
    with torch.no_grad():
        for value in first.state_dict().values():
            value.add_(1.0)
    first.heads["fock"].exchange.clear()
    first.float().set_precision("bf16")
    first(batch)
    after = second(batch, forces=True)
    assert second.precision == "fp32"
    assert torch.equal(before.energy.forces, after.energy.forces)
    assert all(torch.equal(a, b) for a, b in zip(before.fock.normalised, after.fock.normalised, strict=True))
    mine = {value.data_ptr() for value in first.state_dict().values() if value.numel()}
    assert not mine & {value.data_ptr() for value in second.state_dict().values() if value.numel()}
