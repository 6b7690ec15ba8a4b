"""Read configuration: frozen pydantic models, YAML files, ``key.sub=value`` overrides.

An unknown key is an error that names the nearest known one, a key that stands twice is one, and so is a
number that cannot be meant: every number has bounds, and infinity is none. Each room keeps its own model
beside the code that it sets.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from helmol.damage import DAMAGE, one_line, read_text
from helmol.errors import ConfigError, InputError
from helmol.letters import os_name
from helmol.places import PathLike

LARGEST_FILE = 1 << 22
"""Bytes of a configuration file at most."""

DEEPEST = 50
"""Sections inside each other at most, aliases followed."""

MOST_VALUES = 200_000
"""Values at most, those counted again that an alias repeats: nine lines of aliases make 400 million."""


class Config(BaseModel):
    """Base of every configuration model: frozen, unknown keys forbidden, fields documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


def _as_text(value: Any) -> Any:
    """Return a path as text, as the locale names files."""
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    return os_name(value) if isinstance(value, str) else value


def _as_several(value: Any) -> Any:
    """Return one path as a tuple of one."""
    return (value,) if isinstance(value, (str, os.PathLike)) else value


PathText = Annotated[str, BeforeValidator(_as_text)]
"""Path as text; a ``pathlib.Path`` becomes one."""

PathName = Annotated[Path, BeforeValidator(_as_text)]
"""Path of a file or folder that a configuration names."""

Files = Annotated[tuple[PathText, ...], BeforeValidator(_as_several)]
"""Paths as text; one alone needs no list."""

C = TypeVar("C", bound=Config)


class _Loader(yaml.SafeLoader):
    """Load plain values only, with bounds on what a few bytes may become."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._open = 0
        self._measured: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next value, and measure it before anything is made of it."""
        alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        self._open += 1
        if self._open > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, f"more than {DEEPEST} levels inside each other", mark)
        node = super().compose_node(parent, index)
        self._open -= 1
        if alias and id(node) not in self._measured:
            raise yaml.MarkedYAMLError(None, None, "an alias stands inside what it repeats", mark)
        if not alias and node is not None:
            size, depth = self._measured[id(node)] = self._measure(node)
            if size > MOST_VALUES or depth > DEEPEST:
                most = f"{MOST_VALUES:,} values" if size > MOST_VALUES else f"{DEEPEST} levels"
                raise yaml.MarkedYAMLError(None, None, f"more than {most}, aliases followed", mark)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        """Return numbers of values and of levels in a value whose parts have been measured."""
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = list(node.value)
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                name = (key.tag, str(key.value))
                if name in seen:
                    problem = f"the key {name[1]!r} stands twice"
                    raise yaml.MarkedYAMLError(None, None, problem, key.start_mark)
                seen.add(name)
                parts += [key, value]
        measures = [self._measured[id(part)] for part in parts]
        return 1 + sum(size for size, _ in measures), 1 + max((depth for _, depth in measures), default=0)


def _load(text: str) -> Any:
    """Return what YAML text holds.

    Raises:
        ValueError: one line that says where it is no YAML, or too much.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ValueError(line + " ".join(filter(None, (error.context, error.problem)))) from error
    except (yaml.YAMLError, *DAMAGE) as error:
        raise ValueError(one_line(error)) from error


def read_yaml(path: PathLike) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        InputError: the file is missing, too large, or no valid YAML mapping.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise InputError(f"configuration file {path} does not exist")
    text = read_text(path, largest=LARGEST_FILE)
    try:
        data = _load(text)
    except ValueError as error:
        raise InputError(f"{path} is not valid YAML: {one_line(error)}") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise InputError(f"{path} holds a {type(data).__name__}, expected 'key: value' lines")
    return data


def with_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``data`` with ``key.sub=value`` settings applied; values are read as YAML.

    Raises:
        ConfigError: a setting has no ``=`` or descends into a value that is no mapping.
    """
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    for setting in overrides:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise ConfigError(f"cannot read --set {_shown(setting)}: expected key.sub=value")
        *parents, leaf = key.split(".")
        node = result
        for parent in parents:
            child = node.get(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"cannot set {_shown(key)}: {_shown(parent)} is a value, not a section")
            node[parent] = dict(child)
            node = node[parent]
        try:
            node[leaf] = _load(text)
        except ValueError as error:
            raise ConfigError(
                f"cannot read the value in --set {_shown(setting)} as YAML: {one_line(error)}"
            ) from error
    return result


def merged(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``data`` with ``changes``: sections are merged, all else is replaced."""
    result = dict(data)
    for key, value in changes.items():
        there = result.get(key)
        if isinstance(there, Mapping) and isinstance(value, Mapping):
            value = merged(there, value)
        result[key] = value
    return result


def parse(model: type[C], data: dict[str, Any], *, source: str = "configuration") -> C:
    """Validate ``data`` against a configuration model.

    Raises:
        ConfigError: one line with the key, what is wrong, and the nearest known key if unknown.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # A misspelt key comes first: a required one that is missing is often the same mistake.
        first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        key = ".".join(one_line(ValueError(part), longest=60) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{source}: unknown key {key!r}; {_nearest(model, first['loc'])}") from error
        text = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        text = re.sub(r"valid dictionary or instance of \w+", "section with keys", text)
        text = one_line(ValueError(text), longest=400)
        # A whole section would make a long line of what is in the file anyway.
        got = "" if isinstance(first["input"], dict) else f" (got {_shown(first['input'])})"
        raise ConfigError(f"{source}: {f'{key}: ' if key else ''}{text}{got}") from error


def _nearest(model: type[BaseModel], path: tuple[int | str, ...]) -> str:
    """Return which key an unknown one at ``path`` may mean: of its section, or of that name in another."""
    name = str(path[-1])[:60]
    section: type[BaseModel] | None = model
    for part in path[:-1]:
        section = None if section is None else _section(section, str(part))
    known = [] if section is None else list(section.model_fields)
    elsewhere = [place for place in _paths(model) if place.rpartition(".")[2] == name]
    near = elsewhere or difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known) or 'none'}"


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the model of a key that is a section."""
    field = model.model_fields.get(key)
    annotation = None if field is None else field.annotation
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _paths(model: type[BaseModel]) -> list[str]:
    """Return every key as ``section.key``."""
    paths = []
    for key in model.model_fields:
        section = _section(model, key)
        inside = [] if section is None else _paths(section)
        paths += [key, *(f"{key}.{path}" for path in inside)]
    return paths


def _shown(value: Any) -> str:
    """Return a value as text for a message, cut where it is long."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)
