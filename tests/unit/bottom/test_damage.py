"""Damaged and lying files: one line each, and nothing allocated that is not there."""

import io
import json
import struct
import time
import zipfile

import numpy as np
import pytest

from forked import tried
from helmol.damage import physical_memory, read_json, read_npz, read_text
from helmol.errors import InputError, StoreError

pytestmark = pytest.mark.faults


def refused(function, *arguments, **options):
    """Return the one line of a refusal."""
    with pytest.raises(InputError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Expecting value"),
        (b"[1]", "holds a list"),
        (b"\xff\xfe", "decode"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "4300"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b"{" + b"x" * 10_000, "Expecting property name"),
    ],
)
def test_json_that_is_none_is_one_line(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    text = refused(read_json, path)
    assert words in text
    assert str(path) in text


def test_a_byte_order_mark_is_dropped_and_the_error_is_of_the_kind_wanted(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(tmp_path / "a.json") == {}
    with pytest.raises(StoreError, match="No such file"):
        read_json(tmp_path / "b.json", error=StoreError)


def test_no_file_is_one_line(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "Is a directory" in refused(read_json, tmp_path)
    assert "No such file" in refused(read_npz, tmp_path / "a.npz")
    assert "Too many levels" in refused(read_json, tmp_path / "loop")
    assert "File name too long" in refused(read_npz, tmp_path / ("x" * 300))
    assert "null byte" in refused(read_json, tmp_path / "a\0b")


def test_a_file_without_end_is_not_read_to_its_end(tmp_path):
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert "more than 1,000 bytes" in refused(read_text, tmp_path / "zero", largest=1000)


def header(shape, dtype="<f8"):
    """Return the head of an array that may have no body."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def lying(path, content):
    """Write a ``.npz`` with one array of any bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fock.npy", content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        header((10**12,)),
        header((10**6, 10**6)) + bytes(80),
        header((10**400,)),
        header((-1, 5)) + bytes(40),
        header((2,), "|O") + bytes(16),
        header((2,)) + bytes(17),
        header("(", "<f8"),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused_at_once(tmp_path, content):
    path, begin = lying(tmp_path / "a.npz", content), time.process_time()
    assert str(path) in refused(read_npz, path)
    assert time.process_time() - begin < 5


def test_a_small_file_that_claims_more_than_there_is_memory_is_refused(tmp_path):
    path = lying(tmp_path / "a.npz", b"x" * 100)
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\x01\x02") + 24  # size of the member in the central directory
    data[place : place + 4] = struct.pack("<I", 2**32 - 2)
    if physical_memory() < 2**32:
        pytest.skip("every claim a small zip can make fits")
    path.write_bytes(data)
    refused(read_npz, path)


def test_every_byte_of_an_array_is_checked(tmp_path, rng, many):
    """Flip bits anywhere: what is returned is right, or there is one line."""
    arrays = {"fock": rng.normal(size=(20, 20)), "id": np.array("wäter"), "n": np.arange(5)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    data, caught = buffer.getvalue(), 0
    for position in rng.integers(0, len(data), size=many(300, 20_000)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        found, refusal = tried(read_npz, io.BytesIO(damaged), where="x")
        caught += refusal is not None
        assert all(np.array_equal(found[name], arrays[name]) for name in found or ())
    assert caught > many(300, 20_000) // 2


def test_truncated_arrays_are_refused(tmp_path, rng, many):
    buffer = io.BytesIO()
    np.savez(buffer, a=rng.normal(size=100), b=np.zeros(3))
    data = buffer.getvalue()
    for size in np.linspace(0, len(data) - 1, many(50, 1000)).astype(int):
        refused(read_npz, io.BytesIO(data[:size]), where="x")


def test_only_what_is_asked_for_is_read(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3), b=np.ones(2))
    assert read_npz(tmp_path / "a.npz", names=("b", "c")).keys() == {"b"}


def test_json_of_any_bytes_is_an_object_or_one_line(tmp_path, rng, many):
    text = json.dumps({"schema": 1, "a": [1.5, None, "ä"], "b": {"c": {"d": [True] * 5}}}).encode()
    path = tmp_path / "a.json"
    for _ in range(many(200, 5000)):
        damaged = bytearray(text)
        for position in rng.integers(0, len(text), size=rng.integers(1, 4)):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        found, refusal = tried(read_json, path)
        assert refusal is not None or isinstance(found, dict)
