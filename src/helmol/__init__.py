"""helmol: machine-learnt molecular Kohn–Sham Hamiltonians.

``helmol.load(path)`` opens a trained model, ``helmol.pyscf.attach(mf, model)`` lets an SCF start
from it, ``helmol.ase.HelmolCalculator(model)`` serves ASE. Nothing heavy (torch, PySCF) is imported
before one of them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helmol import ase, pyscf
    from helmol.predict import TrainedModel

    load = TrainedModel.load

__version__ = "0.1.0"
__all__ = ["__version__", "ase", "load", "pyscf"]


def __getattr__(name: str) -> Any:
    """Import ``load``, ``pyscf`` and ``ase`` at their first use (PEP 562)."""
    # By name, so that no room depends on all others because it asks for the version.
    if name == "load":
        return importlib.import_module("helmol.predict").TrainedModel.load
    if name in ("ase", "pyscf"):
        return importlib.import_module(f"helmol.{name}")
    raise AttributeError(f"module 'helmol' has no attribute {name!r}")
