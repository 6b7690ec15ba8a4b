"""What is computed of a prediction on request, by the names that users give it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from helmol.arrays import Array
from helmol.errors import ConvergenceError, InputError
from helmol.predict.prediction import Prediction

log = logging.getLogger("helmol.predict")

PROPERTIES: dict[str, tuple[str, ...]] = {
    "charges": ("lowdin_charges", "iao_charges"),
    "bonds": ("mayer_bond_orders", "wiberg_bond_orders"),
    "spins": ("mulliken_spins", "lowdin_spins"),
    "quadrupole": ("quadrupole",),
    "energy": ("energy", "energy_error"),
    "forces": ("forces",),
}
"""Attributes of a :class:`helmol.predict.Prediction` by name of what is asked for."""


def property_names(wanted: Iterable[str], *, unrestricted: bool) -> tuple[str, ...]:
    """Return properties by name, each once, in the order of :data:`PROPERTIES`.

    Args:
        wanted: as users write them.
        unrestricted: whether there are two spins.

    Raises:
        InputError: an unknown name, or spins of closed shells.
    """
    asked = {name.lower() for name in wanted}
    if unknown := sorted(asked - PROPERTIES.keys()):
        raise InputError(f"unknown property {unknown[0]!r}: known are {', '.join(PROPERTIES)}")
    if "spins" in asked and not unrestricted:
        raise InputError("property 'spins' is of unrestricted models: in a restricted one all are paired")
    return tuple(name for name in PROPERTIES if name in asked)


def missing_attributes(there: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Return the arrays of some properties that are not among those there."""
    return [attribute for name in names for attribute in PROPERTIES[name] if attribute not in there]


def attributes(prediction: Prediction, names: Sequence[str]) -> dict[str, Array]:
    """Return attributes of a prediction; what cannot be had is left out and said.

    That is what needs PySCF where it is missing, intrinsic atomic orbitals of an element without a minimal
    basis, and an energy that does not get there.
    """
    found = {}
    for name in names:
        try:
            found[name] = np.asarray(getattr(prediction, name))
        except (InputError, ConvergenceError) as error:
            log.warning("%s is left out: %s", name, error)
    return found
