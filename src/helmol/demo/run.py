"""Go through the stages, keep the time of each, and judge the result."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helmol.config import read_yaml
from helmol.damage import read_json, understood
from helmol.demo import stages
from helmol.demo.config import DemoConfig
from helmol.demo.report import write_report
from helmol.doctor import versions
from helmol.errors import InputError
from helmol.evaluate import METRICS
from helmol.files import entries, plain, write_json, write_text
from helmol.locks import Claim

log = logging.getLogger("helmol.demo")

LARGEST_H_MAE_UEH = 30.0
"""µEh, mean over all elements of the held-out Fock matrices."""
SMALLEST_GAIN = 100.0
"""How many times smaller the error must be than that of PySCF's minao guess."""
LARGEST_ENERGY_DIFFERENCE_EH = 1e-8
"""Between the SCF from the model and the SCF from minao."""


RESUMED = ("structures", "labels", "train")
"""Stages that go on where they were stopped; the others, a few seconds each, are done anew."""


class Stopwatch:
    """Measure the stages; what an interrupted demo spent on a resumed stage is counted in."""

    def __init__(self, path: Path, *, total: int) -> None:
        self._path, self._total, self._number = path, total, 0
        found = read_json(path) if path.exists() else {}
        with understood(str(path)):
            self.seconds: dict[str, float] = {name: float(value) for name, value in found.items()}

    def __call__(self, name: str, title: str, stage: Callable[[], Any]) -> Any:
        """Run one stage and return what it returns."""
        self._number += 1
        log.info("[%d/%d] %s", self._number, self._total, title)
        start = time.perf_counter()
        try:
            return stage()
        finally:
            before = self.seconds.get(name, 0.0) if name in RESUMED else 0.0
            self.seconds[name] = before + time.perf_counter() - start
            write_json(self._path, self.seconds)

    @property
    def total(self) -> float:
        """Seconds of all stages so far."""
        return sum(self.seconds.values())


def run(config: DemoConfig, *, out: Path) -> dict[str, Any]:
    """Run the demo in the folder ``out``; what an earlier run finished there is kept.

    Args:
        config: sizes and times.
        out: folder for everything.

    Returns:
        What ``demo.json`` holds: the keys of ``evaluate`` at the top and under ``evaluate``, those
        of ``guess`` under ``guess``, ``bars``, ``passed``, ``seconds`` per stage, ``versions``.

    Raises:
        InputError: ``out`` holds something else, or a demo with other settings.
        BusyError: another process works in ``out``.
        HelmolError: a stage failed; what is finished stays, and the same command goes on from there.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder with --out")
    with Claim(out, folder=True):
        return _run(config, out)


def _run(config: DemoConfig, out: Path) -> dict[str, Any]:
    """Go through the stages in a folder that is held."""
    check_folder(config, out)
    watch = Stopwatch(out / "seconds.json", total=8)
    title = f"{config.n_frames} frames of {config.molecule} at {config.temperature_k:g} K (GFN2-xTB)"
    frames = watch("structures", title, lambda: stages.structures_file(config, out))
    title = f"labels: {config.n_labels} molecules, {config.xc.upper()}/{config.basis}"
    title = f"{title}, {config.workers} processes"
    labelled = watch("labels", title, lambda: stages.labels(config, out, frames))
    watch("card", "data card", lambda: stages.data_card(out))
    title = f"training on {config.n_train} molecules"
    training = watch("train", title, lambda: stages.train(config, out, spent_minutes=watch.total / 60))
    title = f"evaluation on {config.n_test} held-out molecules"
    evaluation = watch("evaluate", title, lambda: stages.evaluate(out))
    title = "prediction of a geometry that is in no set"
    prediction = watch("predict", title, lambda: stages.predict(out, frames))
    title = "SCF of that geometry, from minao and from the model"
    guess = watch("guess", title, lambda: stages.guess(out, frames))
    bars = judge(evaluation, guess)
    result: dict[str, Any] = plain(
        {
            **evaluation,
            "evaluate": evaluation,
            "guess": guess,
            "predict": prediction,
            "labels": labelled,
            "train": training,
            "bars": bars,
            "passed": all(bar["passed"] for bar in bars),
            "config": config.model_dump(mode="json"),
            "versions": versions(),
        }
    )
    watch("report", "report", lambda: write_report(out, result, watch.seconds))
    result["seconds"] = {**watch.seconds, "total": watch.total}
    write_json(out / "demo.json", result)
    return result


def check_folder(config: DemoConfig, out: Path) -> None:
    """Make sure that ``out`` is new, empty, or a demo with the same settings.

    Raises:
        InputError: it is none of these.
    """
    settings = config.model_dump(mode="json")
    record = out / "demo.yaml"
    if record.exists():
        old = read_yaml(record)
        changed = [key for key in settings if key != "workers" and settings[key] != old.get(key)]
        if changed:
            key = changed[0]
            raise InputError(
                f"{out} holds a demo with {key} = {old.get(key)!r}, asked for is {settings[key]!r}: "
                "choose another --out, or remove the folder"
            )
        log.info("%s holds a demo: what is finished is kept, the rest goes on", out)
        return
    if entries(out):
        raise InputError(f"{out} is not an empty folder: choose another --out, or remove it")
    text = "# Settings of this demo; the same command goes on where it was stopped.\n"
    write_text(record, text + "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))


def judge(evaluation: dict[str, Any], guess: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the result with what a good run reaches; each bar says what was wanted and what was seen."""
    error, unit = float(evaluation["h_mae_uEh"]), METRICS["h_mae_uEh"].unit
    gain = min(float(cheap["h_mae_uEh"]) for cheap in evaluation["baselines"].values()) / error
    cycles = {start: guess[start]["cycles"] for start in ("minao", "model")}
    difference = abs(guess["minao"]["energy_Eh"] - guess["model"]["energy_Eh"])
    converged = bool(guess["minao"]["converged"] and guess["model"]["converged"])
    return [
        {
            "what": "error of the held-out Fock matrices",
            "wanted": f"at most {LARGEST_H_MAE_UEH:g} {unit}",
            "seen": f"{error:.1f} {unit}",
            "passed": error <= LARGEST_H_MAE_UEH,
        },
        {
            "what": "gain over the best cheap Fock matrix",
            "wanted": f"at least {SMALLEST_GAIN:g} times smaller error",
            "seen": f"{gain:.0f} times",
            "passed": gain >= SMALLEST_GAIN,
        },
        {
            "what": "SCF cycles from the model",
            "wanted": f"fewer than {cycles['minao']} (minao)",
            "seen": f"{cycles['model']}" + (", but the model was not used" if guess["fell_back"] else ""),
            "passed": converged and not guess["fell_back"] and cycles["model"] < cycles["minao"],
        },
        {
            "what": "energy of both SCF runs",
            "wanted": f"equal within {LARGEST_ENERGY_DIFFERENCE_EH:.0e} Eh",
            "seen": f"{difference:.1e} Eh apart",
            "passed": converged and difference <= LARGEST_ENERGY_DIFFERENCE_EH,
        },
    ]
