"""A network that reads matrices learns what no geometry says."""

from dataclasses import replace

import numpy as np
import pytest

from helmol.config import parse
from helmol.errors import InputError
from helmol.model import find_model, load_model, predict_fock
from helmol.store import Store
from helmol.system import Matrices
from helmol.train import TrainConfig, run
from toy_store import TINY, make_store, settings, toy_samples


def with_hidden_numbers(samples):
    """Hide a number in each H₀ that the target depends on, on atoms and between them."""
    hidden = np.random.default_rng(7).uniform(-1, 1, size=len(samples))
    for sample, number in zip(samples, hidden, strict=True):
        h = sample.matrices.references["minao"]
        reference = h * (1 + 0.3 * number)
        yield replace(
            sample,
            matrices=Matrices(
                fock=reference + 0.1 * number * h,
                overlap=sample.matrices.overlap,
                references={"minao": reference},
            ),
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("hidden") / "x.h5", list(with_hidden_numbers(toy_samples(60))))


def learn(store, out, **more):
    more = {"target": "fock-minus-minao", **more}
    keys = settings(store, train=50, val=10, max_steps=120, validate_every=60, **more)
    return run(parse(TrainConfig, keys), out=out)


def test_it_learns_from_them_what_the_geometry_does_not_say(store, tmp_path):
    without = learn(store, tmp_path / "without")
    inputs = {**TINY, "inputs": ["reference", "overlap"]}
    read = learn(store, tmp_path / "with", model=inputs)
    assert read["best"]["h_mae_uEh"] < 0.5 * without["best"]["h_mae_uEh"]
    with Store.open(store) as samples:
        sample = samples[0]
    network = load_model(find_model(tmp_path / "with"))
    known = sample.matrices.known
    changed = {**known, "minao": known["minao"] * 1.2}
    one, other = predict_fock(network, [sample.molecule] * 2, [known, changed])
    learnt = one - known["minao"]
    assert np.abs(other - changed["minao"] - learnt).max() > 0.1 * np.abs(learnt).max()


def test_it_learns_from_the_change_of_a_reference(tmp_path):
    """H₀ is the same function of the geometry everywhere; only what it changed from is not."""
    samples = []
    hidden = np.random.default_rng(8).uniform(-1, 1, size=60)
    for sample, number in zip(toy_samples(60), hidden, strict=True):
        h = sample.matrices.references["minao"]
        references = {"minao-step": h, "minao": h * (1 + 0.3 * number)}
        samples.append(
            replace(sample, matrices=Matrices(h * (1 + 0.1 * number), sample.matrices.overlap, references))
        )
    changing = make_store(tmp_path / "change.h5", samples)
    target = {"target": "fock-minus-minao-step"}
    without = learn(
        changing, tmp_path / "without", model={**TINY, "inputs": ["reference", "density"]}, **target
    )
    read = learn(changing, tmp_path / "with", model={**TINY, "inputs": ["change"]}, **target)
    assert read["best"]["h_mae_uEh"] < 0.7 * without["best"]["h_mae_uEh"]


def test_a_store_without_what_is_read_is_refused(tmp_path):
    samples = [
        replace(s, matrices=Matrices(s.matrices.fock, None, {"minao-step": s.matrices.references["minao"]}))
        for s in toy_samples(60)
    ]
    bare = make_store(tmp_path / "bare.h5", samples)
    for name, message in (
        ("change", "no reference matrix 'minao', which input 'change'"),
        ("density", "overlap"),
    ):
        keys = settings(bare, train=50, val=10, target="fock-minus-minao-step", max_steps=1)
        config = parse(TrainConfig, {**keys, "model": {**TINY, "inputs": [name]}})
        with pytest.raises(InputError, match=message):
            run(config, out=tmp_path / name)
        assert not (tmp_path / name).exists()
