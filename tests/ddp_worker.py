"""One of several processes that train one model together; see tests/unit/train/test_several_processes.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from energy_store import energy_samples
from helmol.config import parse
from helmol.graph import collate
from helmol.model import ModelConfig, build, fit_statistics
from helmol.target import Domain, target_matrix
from helmol.train import TrainConfig
from helmol.train.objective import objective
from toy_store import BASIS, LEVEL, TINY

TARGET = "fock-minus-minao"
TASKS = {
    "hamiltonian": ({"fock": {}}, {}),
    "energy": ({"energy": {}}, {"force_weight": 1.0}),
    "both": ({"fock": {}, "energy": {}}, {"force_weight": 1.0}),
}


def made_model(task):
    """A model whose weights are all in use, and its four training molecules."""
    heads, _ = TASKS[task]
    samples = energy_samples(4)[:4]  # as many atoms each
    domain = Domain(LEVEL, BASIS, TARGET, (0,), (0,))
    model = build(ModelConfig(**TINY, heads=heads), domain, seed=3, dtype=torch.float64)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    items = [model.prepare(s.molecule, target_matrix(s, TARGET)) for s in samples]
    if "fock" in heads:
        items = fit_statistics(model, items)
    if "energy" in heads:
        model.energy_target.fit(
            [s.molecule for s in samples], [s.energy for s in samples], [s.forces for s in samples]
        )
    labels = [(s.energy, s.forces) for s in samples]
    return model, [with_labels(item, *label) for item, label in zip(items, labels, strict=True)]


def with_labels(item, energy, forces):
    """A prepared molecule with its energy and forces."""
    return replace(item, energy=energy, forces=np.asarray(forces))


def loss_of(task):
    """The loss of a task as a run has it; quadratic, so that a mean over processes is one over molecules."""
    _, changes = TASKS[task]
    config = parse(
        TrainConfig, {"data": "none.h5", "task": task, "loss": "mse", "energy_loss": "mse", **changes}
    )
    return objective(config, BASIS, {})


def step(model, network, batch, task):
    """One step of gradient descent; ``network`` is what is called."""
    loss = loss_of(task)(network, batch, 0.0)
    loss.backward()
    with torch.no_grad():
        for weight in model.parameters():
            weight -= 0.05 * weight.grad
    return loss.item()


def work(rank, world, folder, task):
    """Train two steps and write the weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        model, items = made_model(task)
        network = DistributedDataParallel(model)
        mine = collate(items[rank::world])
        for _ in range(2):
            model.zero_grad()
            step(model, network, mine, task)
        weights = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        torch.save(weights, Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
