"""Write the pages that the code knows best: ``python docs/make_reference.py [--check]``."""

from __future__ import annotations

import functools
import operator
import sys
from inspect import cleandoc
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from helmol.config import Config
from helmol.demo import DemoConfig
from helmol.dft import LevelConfig
from helmol.evaluate import METRICS
from helmol.generate import (
    ComplexesSource,
    DimersSource,
    ExecutorConfig,
    GenerateConfig,
    MdSource,
    ModesSource,
    SmilesSource,
    StructuresConfig,
)
from helmol.model import MODEL_PRESETS, ModelConfig
from helmol.model.heads import EnergyHead
from helmol.structures import RandomConfig
from helmol.train import TrainConfig
from helmol.train.config import (
    DataConfig,
    FockLossConfig,
    InitConfig,
    LossConfig,
    ModelChoice,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TargetConfig,
)
from helmol.train.sweep import SweepConfig

SECTIONS: dict[str, tuple[str, type[Config]]] = {
    "generate": ("`helmol generate SPEC`", GenerateConfig),
    "level": ("`level`: the level of theory", LevelConfig),
    "structures": ("`structures`: where they come from", StructuresConfig),
    "smiles": ("`structures.smiles`: conformers", SmilesSource),
    "md": ("`structures.md`: molecular dynamics", MdSource),
    "modes": ("`structures.modes`: normal modes", ModesSource),
    "dimers": ("`structures.dimers`: pairs of molecules", DimersSource),
    "random": ("`structures.random`: random molecules", RandomConfig),
    "complexes": ("`structures.complexes`: complexes of fragments", ComplexesSource),
    "executor": ("`executor`: who does the work", ExecutorConfig),
    "train": ("`helmol train CONFIG`", TrainConfig),
    "data": ("`data`: the molecules", DataConfig),
    "init": ("`init`: another model", InitConfig),
    "model": ("`model`: the network", ModelChoice),
    "network": ("`model`: keys of the network", ModelConfig),
    "energy": ("`model.heads.energy`: the head of energies", EnergyHead.Settings),
    "target": ("`target`: what is learnt", TargetConfig),
    "loss": ("`loss`: what is minimised", LossConfig),
    "fock": ("`loss.fock`: the loss of Fock matrices", FockLossConfig),
    "optimizer": ("`optimizer`: how", OptimizerConfig),
    "schedule": ("`schedule`: how long, in which batches", ScheduleConfig),
    "run": ("`run`: device, precision, intervals", RunConfig),
    "sweep": ("`helmol sweep CONFIG`", SweepConfig),
    "demo": ("`helmol demo`", DemoConfig),
}


def configuration() -> str:
    """Return the page of all keys."""
    parts = [
        "# Configuration",
        "Every key of every file, made from the code by `python docs/make_reference.py`. "
        "Unknown keys are an error. Any key can be set on the command line: `--set key.sub=value`.",
    ]
    for title, model in SECTIONS.values():
        parts += [f"## {title}", cleandoc(model.__doc__ or "").replace("``", "`"), table(model)]
    parts += ["## Presets", "`model.preset` of a training sets these keys of the network.", presets()]
    return "\n\n".join(parts) + "\n"


def table(model: type[Config]) -> str:
    """Return the keys of one model as a Markdown table."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        default = f"`{shown(field.get_default(call_default_factory=True))}`"
        default = "required" if field.is_required() else default
        meaning = " ".join((field.description or "").split()).replace("``", "`")
        cells = (f"`{name}`", f"`{type_name(field.annotation)}`", default, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def presets() -> str:
    """Return what the presets differ in."""
    models = MODEL_PRESETS.values()
    keys = [key for key in ModelConfig.model_fields if len({repr(getattr(m, key)) for m in models}) > 1]
    lines = ["| preset | " + " | ".join(f"`{key}`" for key in keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for name, preset in MODEL_PRESETS.items():
        lines.append(f"| {name} | " + " | ".join(str(getattr(preset, key)) for key in keys) + " |")
    return "\n".join(lines)


def shown(value: Any) -> str:
    """Return a default as a user would write it in YAML."""
    if isinstance(value, Config):
        return "{}"
    if isinstance(value, tuple):
        return "[" + ", ".join(shown(item) for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def type_name(annotation: Any) -> str:
    """Return a type as a user would say it, without the bounds of its numbers."""
    annotation = without_bounds(annotation)
    simple = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if simple else str(annotation)
    for prefix in ("typing.", "pathlib.", "helmol."):
        text = text.replace(prefix, "")
    return text.replace("NoneType", "null").replace("None", "null")


def without_bounds(annotation: Any) -> Any:
    """Return a type with ``Annotated[X, ...]`` as ``X``, inside of others too."""
    if get_origin(annotation) is Annotated:
        return without_bounds(annotation.__origin__)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None or origin is Literal:
        return annotation
    inner = tuple(without_bounds(argument) for argument in arguments)
    if origin in (UnionType, Union):
        return functools.reduce(operator.or_, inner)
    return origin[inner]


def metrics() -> str:
    """Return the page of all metrics."""
    lines = [
        "# Metrics",
        "",
        "Every error in tables, results of `--json`, cards and `metrics.csv` (there after `val_`).",
        "Unless its definition says otherwise a metric is the mean over molecules of a number per molecule;",
        "`_ci95` after the key: its 95 % bootstrap interval over molecules. The errors under `by_element`,",
        "`by_element_pair`, `by_shell_pair`, `by_distance` (of two atoms, Å) are means "
        "over all matrix elements of a kind in all molecules.",
        "This page is made from the code.",
        "",
        "| key | name | unit | needs | definition |",
        "|---|---|---|---|---|",
    ]
    for metric in METRICS.values():
        cells = (f"`{metric.key}`", metric.label, metric.unit, metric.needs, metric.meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


PAGES = {"configuration.md": configuration, "metrics.md": metrics}


def main() -> None:
    """Write the pages, or with ``--check`` fail if one is not what the code says."""
    for name, make in PAGES.items():
        page, text = Path(__file__).with_name(name), make()
        if "--check" not in sys.argv[1:]:
            page.write_text(text, encoding="utf-8")
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            sys.exit(f"{name} is not what the code says: run python docs/make_reference.py")


if __name__ == "__main__":
    main()
