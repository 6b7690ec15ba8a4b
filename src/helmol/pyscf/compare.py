"""SCFs from several starts, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pyscf import lib

from helmol import dft
from helmol.dft.cycles import accelerate
from helmol.dft.mixin import Scf
from helmol.errors import InputError
from helmol.predict import TrainedModel
from helmol.pyscf.geometries import MODEL
from helmol.pyscf.start import attach, reference_builds
from helmol.system import Molecule

CHEAP = {"minao-cheap": "minao", "model-cheap": "model"}
"""Starts that :func:`compare_starts` follows by cheap cycles (:func:`accelerate`), by name."""

STARTS = ("minao", "model", "atom", "huckel", "vsap", *CHEAP)
"""Starts that :func:`compare_starts` knows; all but the model's are PySCF's own."""

SAME_ENERGY = 1e-7
"""Two SCF runs closer than this (Eh) count as the same state."""


class _Counting(Scf):
    """Mix-in for SCF classes that counts Fock builds."""

    __name_mixin__ = "Counting"

    def get_veff(self, *args: Any, **kwargs: Any) -> Any:
        """Build the potential and count it."""
        self._helmol_builds += 1
        return super().get_veff(*args, **kwargs)


def compare_starts(
    molecule: Any, model: TrainedModel, *, starts: Sequence[str] = ("minao", "model")
) -> dict[str, Any]:
    """Run one SCF per start at the model's level of theory and compare them.

    Args:
        molecule: a :class:`helmol.system.Molecule`, or a built ``gto.Mole`` in the model's basis.
        model: the model.
        starts: of :data:`STARTS`.

    Returns:
        Per start ``cycles``, ``fock_builds`` (all, hidden ones too; with cheap cycles those at the level of
        theory itself, while ``cycles`` are those on the coarse grid), ``hidden_fock_builds``,
        ``seconds`` (wall time with inference, without loading the model), ``energy_Eh``,
        ``converged``, ``history`` (per cycle energy in Eh and gradient norm); and ``same_state``
        (all converged, energies within :data:`SAME_ENERGY`), ``energy_spread_Eh``, ``fell_back``
        (``None`` without the start ``model``), ``reason``.

    Raises:
        InputError: an unknown start, or none.
    """
    if not starts:
        raise InputError(f"no start to compare: name some of {', '.join(STARTS)}")
    if unknown := [start for start in starts if start not in STARTS]:
        raise InputError(f"unknown start {unknown[0]!r}: known are {', '.join(STARTS)}")
    level = dft.level_from(model.domain.level)
    mole = dft.build_mole(molecule, level) if isinstance(molecule, Molecule) else molecule
    result: dict[str, Any] = {start: _run(mole, model, start) for start in starts}
    energies = [result[start]["energy_Eh"] for start in starts]
    converged = all(result[start]["converged"] for start in starts)
    result["energy_spread_Eh"] = max(energies) - min(energies)
    result["same_state"] = converged and result["energy_spread_Eh"] < SAME_ENERGY
    # If both are asked for, the guard on the level's own grid has the last word.
    infos = [result[start].pop("info") for start in ("model", "model-cheap") if start in result]
    info = infos[0] if infos else None
    result["fell_back"] = None if info is None else not info.used
    result["reason"] = None if info is None else info.reason
    return result


def _run(mole: Any, model: TrainedModel, start: str) -> dict[str, Any]:
    """Run one SCF and record it."""
    level = dft.level_from(model.domain.level)
    mf = dft.mean_field(mole, level)
    empirical, _ = dft.dispersion(dft.molecule_from_mole(mole), level)
    lib.set_class(mf, (_Counting, mf.__class__), mf.__class__.__name__)
    mf._helmol_builds = 0
    history: list[dict[str, float]] = []
    mf.callback = lambda step: history.append(
        {"energy_Eh": float(step["e_tot"]) + empirical, "gradient": float(step["norm_gorb"])}
    )
    if start in CHEAP:
        accelerate(mf)
    guess = CHEAP.get(start, start)
    if guess == MODEL:
        attach(mf, model)
    else:
        mf.init_guess = guess
    begin = time.perf_counter()
    mf.kernel()
    result: dict[str, Any] = {"seconds": time.perf_counter() - begin}
    hidden = mf.helmol_cycles.fine_evaluations if start in CHEAP else 0
    if guess == MODEL:
        result["info"] = mf.helmol_info
        # The guard's wasted build is counted by the SCF object, the model's reference is not.
        hidden += reference_builds(model) if mf.helmol_info.hidden_fock_builds else 0
        result["hidden_fock_builds"] = mf.helmol_info.hidden_fock_builds
        result |= {"residual": mf.helmol_info.residual, "moved": mf.helmol_info.moved}
    result |= {
        "cycles": int(mf.cycles),
        "fock_builds": int(mf._helmol_builds) + hidden,
        "energy_Eh": float(mf.e_tot) + empirical,
        "converged": bool(mf.converged),
        "history": history,
    }
    return result
