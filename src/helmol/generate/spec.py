"""What to generate: structures, level of theory, what to keep, splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from helmol.config import Config, parse, read_yaml, with_overrides
from helmol.dft import LevelConfig
from helmol.errors import ConfigError, InputError
from helmol.structures import DynamicsConfig


class MdSource(DynamicsConfig):
    """Sample conformations of the molecules of a structure file by molecular dynamics."""

    start: str
    """Structure file; one trajectory starts from each of its frames."""


class StructuresConfig(Config):
    """Say where the structures come from; several sources are taken one after another."""

    files: tuple[str, ...] = ()
    """Structure files (xyz, extxyz, ...); relative paths start at the folder of the spec."""

    md: MdSource | None = None
    """Molecular dynamics."""


class GenerateConfig(Config):
    """Set everything about a data set that is made here."""

    structures: StructuresConfig
    """Where the structures come from."""

    level: LevelConfig = LevelConfig()
    """Level of theory of the labels."""

    forces: bool = False
    """Whether to compute forces."""

    references: tuple[Literal["minao", "minao-df", "minao-coarse", "sap"], ...] = ("minao",)
    """Cheap Fock matrices to keep as H₀ of delta targets and as baselines."""

    density: bool = False
    """Whether to keep density matrices (they follow from Fock matrix and overlap)."""

    splits: dict[str, int | float] = Field(default_factory=dict)
    """Random splits: numbers of molecules (``train: 200``) or fractions (``train: 0.8``)."""

    seed: int = 0
    """Seed of dynamics and splits."""

    @field_validator("splits")
    @classmethod
    def _one_kind(cls, value: dict[str, int | float]) -> dict[str, int | float]:
        if len({type(share) for share in value.values()}) > 1:
            raise ValueError("give either numbers of molecules or fractions, not both")
        return value


def read_spec(path: Path, *, overrides: Sequence[str] = ()) -> GenerateConfig:
    """Read a YAML spec, or take a structure file at the default level.

    Args:
        path: ``.yaml`` or ``.yml``, else a structure file.
        overrides: ``key.sub=value`` settings.

    Raises:
        InputError: the file is missing or unreadable.
        ConfigError: an unknown key or a value out of range.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(f"{path} does not exist: expected a YAML spec or a structure file")
        data = with_overrides({"structures": {"files": [str(path)]}}, overrides)
        return parse(GenerateConfig, data, source=str(path))
    config = parse(GenerateConfig, with_overrides(read_yaml(path), overrides), source=str(path))
    sources = config.structures
    if not sources.files and sources.md is None:
        raise ConfigError(f"{path}: structures: give 'files' or 'md'")
    folder = path.parent
    md = sources.md and sources.md.model_copy(update={"start": str(folder / sources.md.start)})
    files = tuple(str(folder / file) for file in sources.files)
    return config.model_copy(update={"structures": StructuresConfig(files=files, md=md)})


def identity(config: GenerateConfig, *, seed: int) -> dict[str, Any]:
    """Return what makes two specs the same data set: settings, and contents of the files.

    Raises:
        InputError: a structure file is missing.
    """
    data = config.model_dump(mode="json")
    data["seed"] = seed
    # Memory decides how integrals are kept, not what they are.
    del data["level"]["max_memory_mb"]
    data["structures"]["files"] = [_content(file) for file in config.structures.files]
    if config.structures.md is not None:
        data["structures"]["md"]["start"] = _content(config.structures.md.start)
    return data


def difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return the keys in which two specs differ, as ``level.basis: a, now b``."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += difference(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before}, now {after}")
    return found


def _content(file: str) -> str:
    """Return a file's name and the hash of its content."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"structure file {path} does not exist")
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
