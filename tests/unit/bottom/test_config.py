"""YAML is bounded and plain, every number has bounds, and a refusal is short."""

import importlib
import pkgutil
import time
import typing

import pytest
from pydantic import Field, ValidationError

import helmol
from forked import tried
from helmol.config import Config, parse, read_yaml, with_overrides
from helmol.errors import ConfigError, InputError

pytestmark = pytest.mark.faults


def read(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' stands twice"),
        ("a: {b: 1, c: 2, b: 1}\n", "line 1: the key 'b' stands twice"),
        (BOMB, "more than 200,000 values, aliases followed"),
        ("[" * 100_000, "more than 50 levels inside each other"),
        ("- " * 5000 + "x", "more than 50 levels inside each other"),
        (
            "a: &a [1]\n" + "".join(f"b{k}: &b{k} [*{'a' if not k else f'b{k - 1}'}]\n" for k in range(99)),
            "levels",
        ),
        ("a: &a [*a]", "an alias stands inside what it repeats"),
        ("a: *b", "found undefined alias 'b'"),
        ("a: " + "9" * 10_000, "4300 digits"),
        ("a: 2001-99-99", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!binary xx%", "base64"),
        ("? {a: 1}\n: 2", "unhashable key"),
        ("a: [", "expected the node content"),
        ("\x01", "not allowed"),
        (b"a: \xff", "decode"),
        ("5", "holds a int"),
        ("x" * (1 << 22) + "x", "more than 4,194,304 bytes"),
    ],
)
def test_what_is_no_configuration_is_one_short_line_at_once(tmp_path, text, words):
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)
    assert time.process_time() - begin < 20


def test_anchors_merge_keys_and_a_byte_order_mark_are_good(tmp_path):
    text = b"\xef\xbb\xbfbase: &base {a: 1, b: 2}\ncase: {<<: *base, b: 3}\nagain: *base\n"
    assert read(tmp_path, text)["case"] == {"a": 1, "b": 3}
    assert read(tmp_path, b"") == {}


def test_no_file_is_one_line(tmp_path):
    for path, words in (
        (tmp_path / "a.yaml", "does not exist"),
        (tmp_path / ("x" * 300), "does not exist"),
        (tmp_path, "Is a directory"),
    ):
        assert words in tried(read_yaml, path)[1]


@pytest.mark.parametrize(
    "setting", ["a", "=1", "a=[", "a.b.c=1", "a=" + "[" * 1000, "a=" + "9" * 9000, "a=\x01"]
)
def test_a_setting_that_is_none_is_one_short_line(setting):
    with pytest.raises(ConfigError) as caught:
        with_overrides({"a": {"b": 1}}, [setting])
    assert len(str(caught.value)) < 500


class Toy(Config):
    n: int = Field(1, ge=1, le=100)
    x: float = Field(1.0, ge=0, le=1e9)
    any: float = 0.0
    names: tuple[str, ...] = ()


class Parent(Config):
    parts: tuple[Toy, ...] = ()


@pytest.mark.parametrize(
    "data",
    [
        {"x": float("inf")}, {"x": float("nan")}, {"any": float("-inf")}, {"x": "inf"}, {"n": 1e9},
        {"n": 10**400}, {"n": "9" * 5000}, {"names": ["x"] * 100_000 + [1]}, {"n": ["y" * 1000] * 1000},
        {"n" * 10_000: 1},
        {"x": {"a": {"b": {}}}}, {1: 2}, {None: 1}, {True: 1},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_meant_is_refused_in_a_short_line(data):
    with pytest.raises(ConfigError) as caught:
        parse(Toy, data)
    assert len(str(caught.value)) < 700


def test_an_unknown_key_inside_a_list_is_named():
    with pytest.raises(ConfigError, match=r"unknown key 'parts\.0\.m'"):
        parse(Parent, {"parts": [{"m": 1}]})


def rooms():
    """Import all of helmol and return every configuration model."""
    for module in pkgutil.walk_packages(helmol.__path__, "helmol."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(kind):
        for one in kind.__subclasses__():
            if one.__module__.startswith("helmol."):
                yield one
            yield from below(one)

    return sorted(set(below(Config)), key=lambda one: f"{one.__module__}.{one.__qualname__}")


def numbers(annotation, metadata):
    """Yield the bounds of every number in a type."""
    if typing.get_origin(annotation) is typing.Annotated:
        inner, *more = typing.get_args(annotation)
        for one in more:
            metadata = [*metadata, *getattr(one, "metadata", [one])]
        yield from numbers(inner, metadata)
    elif annotation in (int, float):
        yield {name for name in ("ge", "gt", "le", "lt") for one in metadata if hasattr(one, name)}
    elif typing.get_origin(annotation) is not typing.Literal:
        alone = typing.get_origin(annotation) in (tuple, list, dict)
        for inner in typing.get_args(annotation):
            yield from numbers(inner, [] if alone else metadata)


def test_every_number_of_every_configuration_is_bounded_above():
    found = rooms()
    assert len(found) > 15
    checked = 0
    for model in found:
        for name, field in model.model_fields.items():
            for bounds in numbers(field.annotation, field.metadata):
                assert bounds & {"le", "lt"}, f"{model.__module__}.{model.__name__}.{name} has no upper bound"
                checked += 1
    assert checked > 100


def test_every_configuration_refuses_numbers_without_end():
    for model in rooms():
        for name, field in model.model_fields.items():
            if field.annotation in (int, float):
                for value in (float("inf"), float("nan"), 1e300, 10**30):
                    with pytest.raises(ValidationError):
                        model.__pydantic_validator__.validate_assignment(model.model_construct(), name, value)


def test_damaged_yaml_is_a_mapping_or_one_line(tmp_path, rng, many):
    text = (
        b"data: water.h5\nmodel: &m {channels: 16, lmax: 2}\nlr: 1.0e-3\nsplits: {train: 0.8, val: 0.1}\n"
        b"cases:\n  - name: 'a b'\n    model: *m\n  - {name: c, model: {<<: *m, channels: 8}}\n# end\n"
    )
    characters = b" :-[]{}&*!|>%@`,#\n\t'\"?<=~.0aE\xff\x00"
    for _ in range(many(300, 20_000)):
        damaged = bytearray(text)
        for _ in range(rng.integers(1, 5)):
            place = int(rng.integers(len(damaged)))
            damaged[place : place + int(rng.integers(2))] = bytes([characters[rng.integers(len(characters))]])
        found, refusal = tried(read, tmp_path, bytes(damaged))
        assert refusal is not None or isinstance(found, dict)
