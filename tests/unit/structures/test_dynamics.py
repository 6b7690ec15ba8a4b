"""Molecular dynamics: the same from the same seed, at the temperature asked for."""

import builtins
from typing import Any

import numpy as np
import pytest

from helmol import structures
from helmol.errors import InputError
from helmol.structures import DynamicsConfig
from helmol.system import Molecule

WATER = Molecule.from_angstrom([8, 1, 1], [[0, 0, 0], [0, 0.76, 0.59], [0, -0.76, 0.59]])
SHORT = DynamicsConfig(n_frames=5, stride=5, equilibration_steps=20)


def _positions(frames: list[structures.Structure]) -> np.ndarray:
    return np.array([frame.molecule.positions for frame in frames])


def test_seed_decides() -> None:
    pytest.importorskip("tblite")
    first, again, other = (_positions(structures.md(WATER, SHORT, seed=s, name="w")) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2


def test_frames_move_but_not_their_centre() -> None:
    pytest.importorskip("tblite")
    config = SHORT.model_copy(update={"n_frames": 30, "temperature_k": 500.0})
    frames = structures.md(WATER, config, seed=0, name="w")
    positions, masses = _positions(frames), np.array([15.999, 1.008, 1.008])
    centre = np.einsum("fai,a->fi", positions, masses) / masses.sum()
    assert [frame.id for frame in frames[:2]] == ["w-00000", "w-00001"]
    assert np.abs(centre - centre[0]).max() < 1e-6
    # At 500 K an O-H bond swings by some hundredths of an Å; frozen or exploding dynamics do not.
    bond = np.linalg.norm(positions[:, 0] - positions[:, 1], axis=1)
    assert 0.01 < bond.std() < 0.3
    assert frames[0].provenance["surface"] == "GFN2-xTB"


def test_missing_tblite_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("tblite"):
            raise ImportError("no tblite", name="tblite")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"helmol\[md\]"):
        structures.md(WATER, SHORT)


def test_exploding_dynamics_are_an_error_in_one_line() -> None:
    pytest.importorskip("tblite")
    hot = SHORT.model_copy(update={"temperature_k": 1e7, "timestep_fs": 2.0, "n_frames": 50})
    with pytest.raises(InputError, match=r"broke up|failed"):
        structures.md(WATER, hot)
