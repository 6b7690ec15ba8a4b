"""Relax what was put together at random, and judge whether it is a sensible molecule."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from helmol.arrays import Array, IntArray
from helmol.config import Config
from helmol.errors import InputError
from helmol.structures.xtb import gap_ev, relax
from helmol.system import Molecule

PIECES_ANG = 1.8
"""Pieces whose surfaces (covalent radii) are further apart than this, Å, are no one molecule: twice
a van der Waals radius exceeds the sum of two covalent radii by about so much."""


class SettleConfig(Config):
    """Set how a structure put together at random is relaxed and judged."""

    relax_steps: int = Field(default=200, ge=0, le=1_000_000)
    """Steps of the relaxation with GFN2-xTB; 0 leaves the geometry as it was put together."""

    force_ev_ang: float = Field(default=0.1, gt=0, le=10)
    """Largest force on an atom at which the relaxation stops, eV/Å."""

    min_gap_ev: float = Field(default=0.3, ge=0, le=100)
    """Smallest HOMO–LUMO gap with GFN2-xTB, eV; below it a closed shell hardly converges or is wrong."""

    attempts: int = Field(default=10, ge=1, le=10_000)
    """Attempts after which a structure counts as failed."""


def settle(molecule: Molecule, config: SettleConfig) -> tuple[Molecule, dict[str, Any]]:
    """Relax a molecule with GFN2-xTB and check that it hangs together and has a gap.

    Returns:
        The relaxed molecule, and facts for its provenance: ``surface``, ``relaxed``, ``gap_ev``.

    Raises:
        InputError: xTB fails, the molecule falls apart, or its gap is too small.
    """
    relaxed = False
    if config.relax_steps:
        molecule, relaxed = relax(molecule, force_ev_ang=config.force_ev_ang, max_steps=config.relax_steps)
    if (n := n_pieces(molecule)) > 1:
        raise InputError(f"{molecule.formula} fell into {n} pieces")
    gap = gap_ev(molecule)
    if gap < config.min_gap_ev:
        raise InputError(f"{molecule.formula} has a gap of {gap:.2f} eV, wanted {config.min_gap_ev} eV")
    return molecule, {"surface": "GFN2-xTB", "relaxed": relaxed, "gap_ev": round(min(gap, 1e3), 3)}


def n_pieces(molecule: Molecule) -> int:
    """Return into how many pieces without contact a molecule falls."""
    positions = molecule.positions_ang
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    touching = distances < contacts(molecule.numbers, molecule.numbers) + PIECES_ANG
    unseen, pieces = set(range(molecule.n_atoms)), 0
    while unseen:
        front, pieces = {unseen.pop()}, pieces + 1
        while front:
            front = {j for i in front for j in np.flatnonzero(touching[i]).tolist() if j in unseen}
            unseen -= front
    return pieces


def contacts(first: IntArray, second: IntArray) -> Array:
    """Return sums of covalent radii, Å, ``[len(first), len(second)]``.

    Source: Cordero et al., Dalton Trans. 2832 (2008), as in ``ase.data``.
    """
    try:
        from ase.data import covalent_radii
    except ImportError as error:
        raise InputError("putting structures together needs ASE (radii): pip install ase") from error
    return np.asarray(covalent_radii[first][:, None] + covalent_radii[second][None])
