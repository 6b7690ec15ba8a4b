"""Model folders: every bit is checked, an edit by hand is refused by name, nonsense of before is one line."""

import copy
import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from forked import tried
from helmol.errors import InputError
from helmol.model import ModelConfig, build, load_model, save_model
from helmol.predict import TrainedModel
from helmol.target import Domain
from toy_store import BASIS, LEVEL, TINY

pytestmark = pytest.mark.faults

ARCHIVE = Path(__file__).parents[2] / "archive" / "helmol-0.1" / "models"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, build(ModelConfig(**TINY), Domain(LEVEL, BASIS, "fock-minus-minao", (0,), (0,))))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def weights(folder):
    return {name: value.clone() for name, value in load_model(folder).state_dict().items()}


def test_a_flipped_bit_of_a_weight_is_refused_and_named(folder, many, rng):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little") + 8
    for position in rng.integers(header, len(data), size=many(40, 5000)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="has changed since it was written in") as caught:
            TrainedModel.load(folder)
        assert str(path) in str(caught.value)


def test_damage_anywhere_is_refused_or_changes_nothing(folder, many):
    right, rng, refused = weights(folder), random.Random(3), 0
    files = {path: path.read_bytes() for path in folder.iterdir()}
    turns = many(60, 5000)
    for _ in range(turns):
        path = rng.choice(sorted(files))
        damaged = bytearray(files[path])
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged if rng.random() < 0.8 else damaged[: rng.randrange(len(damaged))])
        found, refusal = tried(weights, folder)
        refused += refusal is not None
        assert refusal or all(torch.equal(found[name], right[name]) for name in right)
        path.write_bytes(files[path])
    assert refused > 0.9 * turns


def test_files_of_two_models_do_not_make_a_third(folder, tmp_path):
    config = ModelConfig(**TINY)
    save_model(
        tmp_path / "other", build(config, Domain(LEVEL, BASIS, "fock-minus-minao", (0,), (0,)), seed=1)
    )
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    with pytest.raises(InputError, match="is damaged, or of another model"):
        load_model(folder)


def places(data, path=()):
    """Yield the path of every value in a description."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*path, key)
        if isinstance(value, (dict, list)) and len(path) < 5:
            yield from places(value, (*path, key))


def changed(data, path, value, *, drop=False):
    """Return a copy with one value replaced, or taken out."""
    result = copy.deepcopy(data)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    if drop:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return result


NONSENSE = (None, "x", -1, 10**30, 1e300, [], {}, [[]], {"a": {}}, True, "9" * 5000, [None] * 3)


@pytest.mark.parametrize("name", ["fock", "linear", "both-uks", "energy-linear", "inputs"])
def test_a_description_of_before_with_any_nonsense_is_one_line_or_a_model(name, tmp_path, many):
    """A description of helmol 0.1 has no digest that would tell."""
    folder = shutil.copytree(ARCHIVE / name, tmp_path / "model")
    path, rng = folder / "model.json", random.Random(name)
    data = json.loads(path.read_text())
    assert "digest" not in data
    everything = list(places(data))
    refused = 0
    for place in rng.sample(everything, min(len(everything), many(40, 1000))):
        for value in rng.sample(NONSENSE, many(1, len(NONSENSE))):
            path.write_text(json.dumps(changed(data, place, value, drop=rng.random() < 0.2)))
            refused += tried(load_model, folder)[1] is not None
    assert refused > 5


def test_an_edit_by_hand_is_refused(folder):
    path = folder / "model.json"
    data = json.loads(path.read_text())
    for place in (
        ("model", "cutoff"),
        ("domain", "charges"),
        ("domain", "level", "xc"),
        ("schema",),
        ("dtype",),
    ):
        path.write_text(json.dumps(changed(data, place, 3)))
        with pytest.raises(InputError, match="has changed since it was written"):
            load_model(folder)


@pytest.mark.parametrize("text", ["", "5", "[" * 100_000, "\x00", '{"schema": 3}', '{"schema": 1}', "{}"])
def test_what_is_no_description_is_one_line(folder, text):
    (folder / "model.json").write_text(text)
    assert tried(TrainedModel.load, folder)[1]
    shutil.rmtree(folder)
    folder.mkdir()
    assert tried(TrainedModel.load, folder)[1]
