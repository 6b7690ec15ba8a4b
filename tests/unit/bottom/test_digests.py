"""One changed bit of tensors or of their description is found, and named."""

import json

import pytest
import torch
from safetensors.torch import load, save

from forked import tried
from helmol.digests import (
    read_described,
    read_description,
    tensor_digests,
    write_described,
    write_description,
)
from helmol.errors import InputError, TrainingError

pytestmark = pytest.mark.faults


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {
        "a": torch.randn(3, 4),
        "b": torch.randn(2, dtype=torch.float64),
        "c": torch.randn(5).to(torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "n": torch.tensor(7),
    }


@pytest.fixture
def folder(tmp_path, tensors):
    write_described(tmp_path, "model", save(tensors), {"schema": 1, "third": 1 / 3, "x": {"y": [1, None]}})
    return tmp_path


def test_what_was_written_comes_back(folder, tensors):
    data, description = read_described(folder, "model")
    assert description == {"schema": 1, "third": 1 / 3, "x": {"y": [1, None]}}
    found = load(data)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(value, found[name]) for name, value in tensors.items())
    assert json.loads((folder / "model.json").read_text())["digests"].keys() == tensors.keys()


def test_a_digest_is_of_type_shape_and_bytes():
    same = torch.zeros(2, 2)
    others = (torch.zeros(4), torch.zeros(2, 2, dtype=torch.int32), torch.tensor([[0.0, 0.0], [0.0, -0.0]]))
    digests = {tensor_digests(save({"a": tensor}))["a"] for tensor in (same, *others)}
    assert len(digests) == 4
    assert len(set(tensor_digests(save({"a": same.clone(), "b": same})).values())) == 1


def test_every_bit_of_the_tensors_is_checked(folder, many):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little") + 8
    bits = [8 * k + bit for k in range(len(data)) for bit in range(8)]
    for bit in bits[:: many(3, 1)]:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"model\.safetensors") as caught:
            read_described(folder, "model")
        assert "\n" not in str(caught.value)
        if bit // 8 >= header:
            assert "has changed since it was written in" in str(caught.value)


def test_the_changed_tensor_is_named(folder, tensors):
    with pytest.raises(TrainingError, match=r"has changed since it was written in b: the file is damaged"):
        _with(folder, {**tensors, "b": tensors["b"] + 1}, error=TrainingError)
    with pytest.raises(InputError, match=r"lacks c: "):
        _with(folder, {name: value for name, value in tensors.items() if name != "c"})
    with pytest.raises(InputError, match=r"has, and should not have, d: "):
        _with(folder, {**tensors, "d": tensors["a"].clone()})
    with pytest.raises(InputError, match=r"a, b, c and 1 more: "):
        _with(folder, {name: value + 1 for name, value in tensors.items()})


def _with(folder, tensors, **options):
    (folder / "model.safetensors").write_bytes(save(tensors))
    return read_described(folder, "model", **options)


def test_every_byte_of_the_description_is_checked(folder, many):
    path = folder / "model.json"
    text = path.read_bytes()
    right = read_description(path)
    for position in range(0, len(text), many(2, 1)):
        for change in (1, 2, 32):
            damaged = bytearray(text)
            damaged[position] ^= change
            path.write_bytes(damaged)
            found, refusal = tried(read_description, path)
            # White space may be another and say the same.
            assert str(path) in refusal if refusal else found == right


def test_an_edit_by_hand_is_found_and_a_description_of_before_is_taken(folder):
    path = folder / "model.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data))
    assert read_description(path)["third"] == 1 / 3
    for change in ({"third": 0.3}, {"digests": {}}, {"digest": None}, {"digest": 5}):
        path.write_text(json.dumps({**data, **change}))
        with pytest.raises(InputError, match="has changed since it was written"):
            read_described(folder, "model")
    path.write_text(json.dumps({"schema": 1}))
    assert read_described(folder, "model")[1] == {"schema": 1}


def test_a_description_that_is_written_again_keeps_the_digests_of_its_tensors(folder, tensors):
    description = read_description(folder / "model.json")
    write_description(folder / "model.json", {**description, "floor": 0.5})
    assert read_described(folder, "model")[1]["floor"] == 0.5
    with pytest.raises(InputError, match="has changed since it was written in a"):
        _with(folder, {**tensors, "a": tensors["a"] * 2})
