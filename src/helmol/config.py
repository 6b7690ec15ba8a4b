"""Read configuration: frozen pydantic models, YAML files, ``key.sub=value`` overrides.

An unknown key is an error that names the nearest known one. Each room keeps its own model beside
the code that it sets.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from helmol.errors import ConfigError, InputError


class Config(BaseModel):
    """Base of every configuration model: frozen, unknown keys forbidden, fields documented."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


C = TypeVar("C", bound=Config)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file.

    Raises:
        InputError: the file is missing or no valid YAML mapping.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"configuration file {path} does not exist") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
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
            raise ConfigError(f"cannot read --set {setting!r}: expected key.sub=value")
        *parents, leaf = key.split(".")
        node = result
        for parent in parents:
            child = node.get(parent, {})
            if not isinstance(child, dict):
                raise ConfigError(f"cannot set {key!r}: {parent!r} is a value, not a section")
            node[parent] = dict(child)
            node = node[parent]
        try:
            node[leaf] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"cannot read the value in --set {setting!r} as YAML") from error
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
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _fields_at(model, first["loc"][:-1])
            near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{source}: unknown key {key!r}; {hint}") from error
        text = first["msg"].removeprefix("Value error, ").replace("a valid tuple", "a list")
        # A whole section would make a long line of what is in the file anyway.
        got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        raise ConfigError(f"{source}: {f'{key}: ' if key else ''}{text}{got}") from error


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the sub-model at ``path``."""
    current: Any = model
    for part in path:
        annotation = current.model_fields[str(part)].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if current is None:
            return []
    return list(current.model_fields)
