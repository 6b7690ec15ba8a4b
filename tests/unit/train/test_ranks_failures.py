"""What happens to all processes of a run when one of them fails, is killed, or is asked to stop."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from helmol.config import parse
from helmol.errors import ConfigError, InputError, TrainingError
from helmol.model import Model
from helmol.train import TrainConfig, combined, fock_loss, loop, run
from helmol.train.facts import Facts, check_alike
from helmol.train.launcher import Outcome
from helmol.train.state import read_record
from ranks_group import group, results
from toy_store import make_store, settings, toy_samples

pytestmark = pytest.mark.faults

ELSEWHERE = "another process of this run has failed and says why"


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Save the half second of drawing per run."""
    monkeypatch.setattr("helmol.train.launch.plot_learning_curve", lambda folder: None)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Waters, and molecules of four atoms."""
    samples = toy_samples(12) + toy_samples(6, numbers=(8, 1, 1, 8), seed=1)
    return make_store(tmp_path_factory.mktemp("failures") / "toy.h5", samples)


def config(store, more=None, **changes):
    flat = settings(
        store, train=12, val=2, dtype="float64", max_steps=6, validate_every=6, checkpoint_every=2
    )
    return parse(TrainConfig, combined(flat | changes, more or {}))


def said(outcomes):
    """Return the one line that one of all processes has said; the others have said that there is one."""
    lines = [outcome["refused"] for outcome in outcomes if "refused" in outcome]
    (line,) = [line for line in lines if line != ELSEWHERE]
    return line


def tensors(folder, name="last/state"):
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


def alike(folder, other):
    mine, theirs = tensors(folder), tensors(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-7, atol=1e-10)


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """A run of one process to the end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(config(store), out=folder)
    return folder


def test_one_of_all_says_why():
    """Nobody waits for one that has failed, and nobody repeats what it says."""

    def fails(ranks):
        if ranks.rank == 1:
            raise InputError("mine")
        ranks.gather(ranks.rank)

    outcomes = group(3, fails)
    assert len(outcomes) == 3
    assert said(outcomes) == "mine"

    def ends(ranks):
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        ranks.numbers(1.0)

    outcomes = group(3, ends)
    assert outcomes[1] == {"died": -signal.SIGKILL}
    assert "a process of this run has ended without a word" in said(outcomes)

    def all_fail(ranks):
        raise InputError("ours")

    assert said(group(3, all_fail)) == "ours"


def test_processes_that_disagree_do_not_begin(store, tmp_path):
    """One line says in what and which; nothing is left behind."""
    other = make_store(tmp_path / "other.h5", toy_samples(18, seed=3))

    def work(ranks):
        data = other if ranks.rank == 1 else store
        return run(config(data), out=tmp_path / "run", ranks=ranks)

    outcomes = group(2, work)
    assert all("refused" in outcome for outcome in outcomes)
    assert said(outcomes).startswith("the processes of this run disagree on data (content hash): '")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("alike", "settings_of", "line"),
    [
        (
            {"code of helmol": "b"},
            {},
            "code of helmol: 'a' in process 0 on one, 'b' in process 2",
        ),
        ({"kind of device": "cuda"}, {}, "disagree on kind of device: 'cpu' in process 0"),
        (
            {},
            {"optimizer.lr": 0.5},
            "optimizer.lr: 0.004 in process 0 on one, 0.5 in process 2 on",
        ),
    ],
)
def test_what_processes_disagree_on_is_named(alike, settings_of, line):
    first = Facts(
        {"machine": "one"}, {"code of helmol": "a", "kind of device": "cpu"}, {"optimizer.lr": 0.004}
    )
    other = Facts({"machine": "two"}, first.alike | alike, first.config | settings_of)
    check_alike([first, first])
    with pytest.raises(ConfigError, match=line):
        check_alike([first, first, other])


def at_step(monkeypatch, step, do):
    """Do something in a step."""
    count = loop._count

    def counted(counters, *arguments):
        if counters.step == step:
            do()
        return count(counters, *arguments)

    monkeypatch.setattr(loop, "_count", counted)


@pytest.mark.parametrize(("number", "step", "n"), [(signal.SIGUSR1, 3, 3), (signal.SIGKILL, 2, 1)])
def test_a_signal_to_one_ends_all_and_others_go_on(store, whole, tmp_path, monkeypatch, number, step, n):
    """Asked to stop all end in a checkpoint of the step; killed they end at the last one. Others go on."""

    def stopped(ranks):
        if ranks.rank == 1:
            at_step(monkeypatch, 3, lambda: os.kill(os.getpid(), number))
        return run(config(store), out=tmp_path / "run", ranks=ranks)

    outcomes = group(2, stopped)
    last = tmp_path / "run/checkpoints/last"
    assert read_record(last)[1].step == step
    if number == signal.SIGKILL:
        assert "ended without a word" in said(outcomes)
    else:
        assert said(outcomes) == (
            f"stopped by {number.name}; step 3 is saved, the same command goes on from there"
        )
    found = results(group(n, lambda ranks: run(config(store), out=tmp_path / "run", ranks=ranks)))
    assert [result["resumed_from"] for result in found] == [step] * n
    alike(whole, tmp_path / "run")


def test_what_the_launcher_says_of_how_they_ended():
    """It sends SIGTERM to those that are left, so nobody is told of that."""
    killed = Outcome(0, {0: 1, 1: -signal.SIGKILL, 2: -signal.SIGTERM})
    assert killed.killed == "process 1 was killed (SIGKILL)"
    for other in (
        Outcome(0, {0: 1, 1: 1, 2: -signal.SIGTERM}),
        Outcome(0, {}),
        Outcome(signal.SIGTERM, {0: -9}),
    ):
        assert other.killed is None


class Full:
    """Stands for a model that needs too much memory, in the forward pass or for the gradient."""

    def __init__(self, where, *, always=False):
        self._where, self._always, self.calls = where, always, []
        self._forward = Model.forward

    def __call__(self, model, batch, *arguments, **options):
        output = self._forward(model, batch, *arguments, **options)
        if not torch.is_grad_enabled():
            return output
        frugal = options.get("checkpoint", False)
        self.calls.append(frugal)
        if frugal and not self._always:
            return output
        if self._where == "forward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
        output.fock.normalised[0].register_hook(self._fail)
        return output

    @staticmethod
    def _fail(gradient):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


@pytest.mark.parametrize(("where", "n"), [("forward", 1), ("backward", 2)])
def test_what_does_not_fit_is_done_with_less(store, whole, tmp_path, monkeypatch, where, n):
    """In one process of several, too: all do the step once more, and the run is the same."""

    def work(ranks):
        if ranks.rank == n - 1:
            full = Full(where)
            monkeypatch.setattr(Model, "forward", lambda *a, **k: full(*a, **k))
        run(config(store), out=tmp_path / "run", ranks=ranks)
        return ranks.rank < n - 1 or full.calls

    found = results(group(n, work))
    alike(whole, tmp_path / "run")
    # What has failed once is not tried again in full with as many edges or more.
    assert True in found[-1]
    assert 0 < found[-1].count(False) < 6
    assert "out of memory: once more with the pairs in 4 parts" in (tmp_path / "run/log.txt").read_text()


def test_what_does_not_fit_at_all_ends_with_advice(store, tmp_path, monkeypatch):
    def work(ranks):
        if ranks.rank == 1:
            full = Full("backward", always=True)
            monkeypatch.setattr(Model, "forward", lambda *a, **k: full(*a, **k))
        run(config(store), out=tmp_path / "run", ranks=ranks)

    outcomes = group(2, work)
    assert all("refused" in outcome for outcome in outcomes)
    with pytest.raises(
        TrainingError,
        match=r"out of memory.* share of process 1 had \d+ edges, its largest molecule is "
        r".*edges_per_batch \(now 30\).*'helmol estimate' says",
    ):
        raise TrainingError(said(outcomes))


def test_the_molecule_that_spoils_a_step_is_named(store, tmp_path, monkeypatch):
    """One molecule's labels make the loss not a number, wherever it is computed."""
    compute, folder = fock_loss.hamiltonian_loss, tmp_path / "run"
    bad = toy_samples(3)[2]

    def spoilt(output, batch, **options):
        loss = compute(output, batch, **options)
        waters = (molecule for molecule in batch.molecules if molecule.n_atoms == 3)
        there = any((water.positions == bad.molecule.positions).all() for water in waters)
        return loss * (float("nan") if there else 1.0)

    monkeypatch.setattr(fock_loss, "hamiltonian_loss", spoilt)
    skipped = results(group(2, lambda ranks: run(config(store), out=folder, ranks=ranks)["skipped_steps"]))
    split = json.loads((folder / "split.json").read_text())
    assert bad.id in split["train"]
    assert skipped[0] >= 1
    kept = json.loads((folder / "not_finite.json").read_text())
    assert [one["id"] for one in kept["molecules"]] == [bad.id]
    assert bad.id in kept["batch"]
    assert set(kept["batch"]) <= set(split["train"])
    assert f"loss or gradient not finite: it is {bad.id!r}" in (folder / "log.txt").read_text()
