"""What to generate: structures, level of theory, what to keep, splits."""

from __future__ import annotations

import glob
import hashlib
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from helmol.config import Config, parse, read_yaml, with_overrides
from helmol.dft import LevelConfig
from helmol.errors import ConfigError, InputError
from helmol.generate.cluster import ExecutorConfig
from helmol.generate.sources import StructuresConfig, with_paths
from helmol.letters import text_of
from helmol.places import Places, as_list, has_pattern


class GenerateConfig(Config):
    """Set everything about a data set that is made here."""

    structures: StructuresConfig
    """Where the structures come from."""

    level: LevelConfig = LevelConfig()
    """Level of theory of the labels."""

    forces: bool = False
    """Whether to compute forces."""

    references: tuple[
        Literal["minao-lite", "minao-hartree", "minao", "minao-df", "minao-coarse", "minao-step", "sap"], ...
    ] = ("minao-lite",)
    """Cheap Fock matrices to keep as H₀ of delta targets and as baselines."""

    density: bool = False
    """Whether to keep density matrices (they follow from Fock matrix and overlap)."""

    dipole: bool = True
    """Whether to keep dipole moments."""

    splits: dict[str, Annotated[int, Field(le=1_000_000_000)] | Annotated[float, Field(le=1)]] = Field(
        default_factory=dict
    )
    """Random splits: numbers of molecules (``train: 200``) or fractions (``train: 0.8``)."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of everything random: sampled structures and splits."""

    executor: ExecutorConfig = ExecutorConfig()
    """Who does the work: processes of this machine, Dask or Parsl."""

    engine: Literal["auto", "cpu", "gpu"] = "auto"
    """What computes: ``cpu`` (PySCF), ``gpu`` (gpu4pyscf), or ``auto``: the GPU where there is one and a Fock
    matrix of it agrees with PySCF's to 1e-7 Eh."""

    memory_per_worker_mb: int | None = Field(default=None, ge=500, le=10_000_000)
    """Memory of one worker, MB; molecules that would not fit are skipped with a reason, and those that ask
    for more than was foreseen fail. ``null`` shares 80 % of this machine among its processes, and checks
    nothing with Dask and Parsl."""

    minutes_per_molecule: float | None = Field(default=None, gt=0, le=1e6)
    """Wall time of one molecule, minutes; one that takes longer fails, also if it hangs in a library.
    ``null``: as long as it takes."""

    @field_validator("splits", mode="before")
    @classmethod
    def _one_kind(cls, value: Any) -> Any:
        shares = list(value.values()) if isinstance(value, dict) else []
        if any(
            isinstance(share, bool) or not share >= 0 for share in shares if isinstance(share, (int, float))
        ):
            raise ValueError("expected numbers of molecules (200) or fractions (0.8), none below 0")
        if len({type(share) for share in shares}) > 1:
            raise ValueError("give either numbers of molecules or fractions, not both")
        if shares and isinstance(shares[0], float) and sum(shares) > 1 + 1e-9:
            raise ValueError(f"the splits ask for fractions that sum to {sum(shares):g}, more than 1")
        return value


def read_spec(path: Places, *, overrides: Sequence[str] = ()) -> GenerateConfig:
    """Read a YAML spec, or take structure files at the default level.

    Args:
        path: ``.yaml`` or ``.yml``, else a structure file, a folder, a pattern, or several of these.
        overrides: ``key.sub=value`` settings.

    Raises:
        InputError: a file is missing or unreadable, or there is a spec among several.
        ConfigError: an unknown key or a value out of range.
    """
    given = as_list(path)
    if len(given) > 1:
        if specs := [one for one in given if one.suffix.lower() in (".yaml", ".yml")]:
            raise InputError(f"{specs[0]} is a spec: give it alone, or structure files alone")
        data = with_overrides({"structures": {"files": given}}, overrides)
        return parse(GenerateConfig, data, source="structures")
    (path,) = given
    if path.suffix.lower() not in (".yaml", ".yml"):
        if not path.exists() and not has_pattern(path):
            raise InputError(f"{path} does not exist: expected a YAML spec or structure files")
        data = with_overrides({"structures": {"files": [str(path)]}}, overrides)
        return parse(GenerateConfig, data, source=str(path))
    config = parse(GenerateConfig, with_overrides(read_yaml(path), overrides), source=str(path))
    if config.structures.empty:
        raise ConfigError(f"{path}: structures: give 'files' or 'md', or another source")
    folder = path.parent
    update: dict[str, object] = {
        "structures": with_paths(config.structures, lambda file: _found(folder, file))
    }
    if (script := config.executor.config) is not None:
        update["executor"] = config.executor.model_copy(update={"config": _found(folder, script)})
    return config.model_copy(update=update)


def _found(folder: Path, file: str) -> str:
    """Return the path of a file that lies in the spec's folder or, else, in the present one."""
    beside = folder / file
    return file if not _is_there(beside) and _is_there(Path(file)) else str(beside)


def _is_there(path: Path) -> bool:
    """Return whether a path exists, or a pattern matches something."""
    if path.exists():
        return True
    return has_pattern(path) and next(glob.iglob(str(path), recursive=True), None) is not None


NOT_THE_DATA = {"engine", "executor", "memory_per_worker_mb", "minutes_per_molecule"}
"""Keys that decide who makes the labels and when, not what they are."""

CHOICES = {"limit", "order", "max_atoms"}
"""Keys of ``structures`` that may change between runs into the same store."""


def identity(config: GenerateConfig, *, seed: int) -> dict[str, Any]:
    """Return what makes two specs the same data set: settings, and contents of the files.

    Raises:
        InputError: a structure file is missing.
    """
    files = Counter(Path(file).name for file in config.structures.files)
    several = {name for name, n in files.items() if n > 1}
    content = partial(_content, several=several)
    hashed = config.model_copy(update={"structures": with_paths(config.structures, content)})
    data = _essence(hashed)
    data["seed"] = seed
    return data


def continues(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether two identities are equal; keys that the older one did not know yet have defaults."""
    try:
        return _essence(GenerateConfig.model_validate(old)) == new
    except ValidationError:
        return old == new


def _essence(config: GenerateConfig) -> dict[str, Any]:
    """Return the settings that decide what labels are."""
    data = config.model_dump(mode="json", exclude=NOT_THE_DATA)
    # Memory decides how integrals are kept, not what they are; the store itself says which dispersion it has.
    for key in ("max_memory_mb", "dispersion"):
        del data["level"][key]
    for key in CHOICES:
        del data["structures"][key]
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


def _content(file: str, *, several: Collection[str]) -> str:
    """Return a file's name, with its folder where ``several`` have that name, and the hash of its content."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"structure file {path} does not exist")
    name = f"{path.resolve().parent.name}/{path.name}" if path.name in several else path.name
    return f"{text_of(name)} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
