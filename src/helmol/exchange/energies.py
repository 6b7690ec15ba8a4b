"""From a file of energies and forces to a store without Fock matrices, at a level that the user names."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from helmol import dft, structures
from helmol.basis import BasisSet
from helmol.dft import LEVEL_PRESETS, LevelConfig
from helmol.errors import InputError, StoreError
from helmol.exchange.labels import (
    FORCE_TOLERANCE,
    FORCE_UNITS,
    KCAL_PER_MOL_PER_HARTREE,
    SMALLEST_FORCES,
)
from helmol.letters import text_of
from helmol.places import PathLike
from helmol.progress import Progress
from helmol.repeats import in_one_call
from helmol.skipped import Skips
from helmol.store import Store
from helmol.structures import FrameError, Labelled
from helmol.system import LevelOfTheory, Matrices, Molecule, Sample
from helmol.units import EV_PER_HARTREE

ENERGY_UNITS = {
    "eV": 1 / EV_PER_HARTREE,
    "Eh": 1.0,
    "Ry": 0.5,
    "kcal/mol": 1 / KCAL_PER_MOL_PER_HARTREE,
    "kJ/mol": 1 / (4.184 * KCAL_PER_MOL_PER_HARTREE),
}
"""Factors to Eh."""

ENERGY_TOLERANCE, ENERGY_TOLERANCE_PER_ATOM = 3e-3, 5e-4
"""Largest difference of a stored and a recomputed energy, Eh: grids, fitting and programs stay below it.
VWN3 instead of VWN5 in B3LYP moves the energy of water by 0.03 Eh, B3LYP instead of PBE by 0.09."""

TELLING_FORCES = 0.05
"""Norm of forces that tell their unit, whatever that is: in eV/Å it is ``SMALLEST_FORCES``."""

SAMPLES_PER_APPEND = 512

log = logging.getLogger("helmol.exchange")


@dataclass(frozen=True)
class Units:
    """Hold the units of a file's labels, and how far recomputed ones were from them.

    Attributes:
        energy: key of :data:`ENERGY_UNITS`.
        forces: key of ``FORCE_UNITS``, ``None`` where there are none.
        energy_difference: stored minus recomputed energy, Eh; ``None`` if nothing was recomputed.
        force_error: relative error of the forces.
    """

    energy: str
    forces: str | None
    energy_difference: float | None = None
    force_error: float | None = None


def named_level(text: str, **settings: Any) -> LevelConfig:
    """Return the level of theory of ``FUNCTIONAL/BASIS`` or of the name of a preset.

    Args:
        text: ``"wb97m-v/def2-tzvpd"``, or ``"omol"``.
        settings: further keys of :class:`helmol.dft.LevelConfig`.

    Raises:
        InputError: another form, or a functional that PySCF does not know.
    """
    name, slash, basis = text.partition("/")
    if not slash and name in LEVEL_PRESETS:
        keys: dict[str, Any] = {"preset": name}
    elif slash and name.strip() and basis.strip():
        keys = {"xc": name.strip(), "basis": basis.strip()}
    else:
        raise InputError(
            f"level {text!r}: expected FUNCTIONAL/BASIS as PySCF names them, such as pbe/def2-svp, or one of "
            f"{', '.join(LEVEL_PRESETS)}"
        )
    level = LevelConfig.model_validate({**keys, **settings})
    dft.level_of_theory(level, method="rks")
    return level


@in_one_call()
def import_energies(
    path: PathLike,
    *,
    out: PathLike,
    level: LevelConfig,
    energy: str | None = None,
    forces: str | None = None,
    limit: int | None = None,
    elements: Collection[int] | None = None,
    max_atoms: int | None = None,
    n_checked: int = 1,
    strict: bool = False,
) -> dict[str, Any]:
    """Bring energies and forces of an extended xyz file or ASE database into a store, or go on with it.

    The smallest molecules are computed again at the level that is named: that decides the unit (ASE's eV and
    eV/Å, or another) and refuses labels of another level. A frame that is no molecule, has no label, or
    elements or a spin that the level is not for, is left out.

    Args:
        path: a file that :func:`helmol.structures.read` reads.
        out: the store; made, or continued if it was begun with the same file and level.
        level: level of theory of the labels; nothing in such a file says it.
        energy: name of the energies, needed where there are several.
        forces: name of the forces, likewise.
        limit: molecules to read at most.
        elements: read only molecules of these atomic numbers.
        max_atoms: read only molecules of at most so many atoms.
        n_checked: molecules to compute again; 0 takes eV and eV/Å and the level on trust.
        strict: whether the first frame that would be left out is an error.

    Returns:
        ``n_selected``, ``n_stored``, ``n_new``, ``n_skipped`` and ``skipped``
        (:class:`helmol.skipped.Skipped`), ``energy`` and ``forces`` (their names), ``energies`` and
        ``force_unit`` (units), ``energy_difference_Eh``, ``force_error``, ``checked`` (ids), ``level``,
        ``seconds``, ``content_hash``.

    Raises:
        InputError: no energies, several without a name, or labels that are not of that level.
        StoreError: ``out`` holds something else.
    """
    begin = time.perf_counter()
    path, out, skips = Path(path), Path(out), Skips(strict=strict)
    which = {"elements": elements, "max_atoms": max_atoms, "limit": limit}
    chosen = _chosen(path, energy, forces, level, skips, **which)
    config = _with_method(level, chosen.labelled)
    numbers = sorted({int(z) for entry in chosen.labelled for z in entry.structure.molecule.numbers})
    basis = dft.basis_set(config, numbers)
    theory = replace(
        dft.level_of_theory(config, method=config.method, auxbasis=dft.auxiliary_name(config, numbers)),
        code=f"not stated ({text_of(path.name)})",
    )
    telling = sorted(chosen.labelled, key=lambda entry: _cost(entry, basis, chosen.forces))[:n_checked]
    units = _units(telling, config, chosen, path)
    samples = [_sample(entry, units, chosen) for entry in chosen.labelled]
    with _open(out, theory, basis, {s.id for s in samples}) as store:
        n_before = len(store)
        _append(store, samples)
        return {
            "store": out, "level": theory.label, "n_selected": len(samples) + len(skips.found),
            "n_stored": len(store), "n_new": len(store) - n_before, **skips.json(),
            "energy": chosen.energy, "forces": chosen.forces,
            "energies": units.energy, "force_unit": units.forces,
            "energy_difference_Eh": units.energy_difference, "force_error": units.force_error,
            "checked": [entry.structure.id for entry in telling],
            "seconds": time.perf_counter() - begin, "content_hash": store.content_hash,
        }  # fmt: skip


@dataclass(frozen=True)
class _Chosen:
    """Hold the molecules with labels and the names of these."""

    labelled: list[Labelled]
    energy: str
    forces: str | None


def _chosen(
    path: Path, energy: str | None, forces: str | None, level: LevelConfig, skips: Skips, **which: Any
) -> _Chosen:
    """Read a file and decide which of its numbers are the labels."""
    found = _read(path, skips, **which)
    labelled = list(found.values())
    energy = _name("energy", energy, Counter(n for entry in labelled for n in entry.energies), path)
    if energy is None:
        raise InputError(f"{path} has no energies (looked for energy, REF_energy and the like)")
    forces = _name("forces", forces, Counter(n for entry in labelled for n in entry.forces), path)
    numbers = {z for entry in labelled for z in entry.structure.molecule.numbers.tolist()}
    lacking = dft.elements_without(level, numbers)
    kept = []
    for frame, entry in found.items():
        try:
            _refuse_unlabelled(entry, energy)
            _refuse_beyond_level(entry.structure.molecule, level, lacking)
            kept.append(entry)
        except InputError as error:
            skips.add(error, item=entry.structure.id, file=path, row=frame)
    skips.refuse_nothing_left(len(kept))
    return _Chosen(kept, energy, forces)


def _cost(entry: Labelled, basis: BasisSet, forces: str | None) -> tuple[bool, int]:
    """Return what to sort by: molecules whose forces tell their unit first, then the smallest."""
    values = entry.forces.get(forces or "")
    relaxed = forces is not None and (values is None or not np.linalg.norm(values) > TELLING_FORCES)
    return relaxed, int(basis.offsets(entry.structure.molecule.numbers)[-1])


def _append(store: Store, samples: Sequence[Sample]) -> None:
    """Write what is not there yet."""
    missing = [sample for sample in samples if sample.id not in store]
    with Progress("Import", total=len(missing), unit="molecules") as bar:
        for start in range(0, len(missing), SAMPLES_PER_APPEND):
            chunk = missing[start : start + SAMPLES_PER_APPEND]
            store.append(chunk)
            bar.advance(len(chunk))


def _read(
    path: Path,
    skips: Skips,
    *,
    elements: Collection[int] | None,
    max_atoms: int | None,
    limit: int | None,
) -> dict[int, Labelled]:
    """Return the frames that were asked for by their number."""
    found: dict[int, Labelled] = {}
    for frame, entry in enumerate(structures.each_labelled(path), start=1):
        if limit is not None and len(found) >= limit:
            break
        if isinstance(entry, FrameError):
            skips.add(entry, item=entry.id, file=path, row=frame)
            continue
        molecule = entry.structure.molecule
        if max_atoms is not None and molecule.n_atoms > max_atoms:
            continue
        if elements is None or set(molecule.numbers.tolist()) <= set(elements):
            found[frame] = entry
    skips.refuse_nothing_left(len(found))
    if not found:
        raise InputError(f"{path} holds no molecule that was asked for")
    return found


def _name(
    kind: Literal["energy", "forces"], wanted: str | None, found: Counter[str], path: Path
) -> str | None:
    """Return the name of the labels to take, ``None`` if there are none."""
    if wanted is not None:
        if wanted not in found:
            raise InputError(
                f"{path} has no {kind} called {wanted!r}: there are {', '.join(found) or 'none'}"
            )
        return wanted
    if len(found) > 1:
        raise InputError(
            f"{path} has several labels of {kind}: {', '.join(found)}; name those of the level "
            f"with --{kind} NAME"
        )
    return next(iter(found), None)


def _refuse_unlabelled(entry: Labelled, energy: str) -> None:
    """Raise InputError if a frame has no energy."""
    if energy not in entry.energies:
        raise InputError(f"it has no {energy}")
    if not np.isfinite(entry.energies[energy]):
        raise InputError(f"its {energy} is {entry.energies[energy]}")


def _refuse_beyond_level(molecule: Molecule, level: LevelConfig, lacking: Mapping[int, str]) -> None:
    """Raise InputError if the level is not for an element, or not for an open shell."""
    dft.method_for(level, molecule.spin)
    if unknown := lacking.keys() & set(molecule.numbers.tolist()):
        raise InputError(lacking[min(unknown)])


def _with_method(level: LevelConfig, entries: Sequence[Labelled]) -> LevelConfig:
    """Return the level with its method decided: one open shell makes the whole store unrestricted."""
    method = max(dft.method_for(level, entry.structure.molecule.spin) for entry in entries)
    return level.model_copy(update={"method": method})


def _units(entries: Sequence[Labelled], level: LevelConfig, chosen: _Chosen, path: Path) -> Units:
    """Compute some molecules again and return the units in which their labels agree."""
    found = [Units("eV", None if chosen.forces is None else "eV/Å")]
    for entry in entries:
        structure, stored = entry.structure, entry.forces.get(chosen.forces or "")
        log.info("computing %s again at %s/%s", structure.id, level.xc, level.basis)
        sample, _ = dft.run(
            structure.molecule, level, id=structure.id, references=(), dipole=False, forces=stored is not None
        )
        where = f"{path}, {structure.id!r}"
        found.append(_compared(entry.energies[chosen.energy], stored, sample, where=where, level=level))
    checked = found[1:] or found
    if len({unit.energy for unit in checked}) > 1 or len({unit.forces for unit in checked} - {None}) > 1:
        raise InputError(f"{path}: molecules computed again have labels in different units")
    return max(checked, key=lambda unit: unit.forces is not None)


def _compared(energy: float, forces: Any, sample: Sample, *, where: str, level: LevelConfig) -> Units:
    """Return the units in which a molecule's labels agree with computed ones.

    Raises:
        InputError: there are none.
    """
    computed = float(sample.energy or np.nan)
    unit = min(ENERGY_UNITS, key=lambda u: abs(energy * ENERGY_UNITS[u] - computed))
    difference = energy * ENERGY_UNITS[unit] - computed
    tolerance = ENERGY_TOLERANCE + ENERGY_TOLERANCE_PER_ATOM * sample.molecule.n_atoms
    if not abs(difference) <= tolerance:
        raise InputError(
            f"{where}: the energy {energy:.6f} is in no unit that of {level.xc}/{level.basis}, "
            f"{computed:.6f} Eh (nearest in {unit}: {difference:+.4f} Eh off, at most {tolerance:.4f}): "
            "another level, or energies measured from something else than free electrons and nuclei"
        )
    if forces is None or sample.forces is None:
        return Units(unit, None, difference)
    norm = float(np.linalg.norm(sample.forces))
    if norm < SMALLEST_FORCES:
        raise InputError(
            f"{where}: its forces are too small to tell their unit; put a molecule with larger ones into the "
            "file, or take eV and eV/Å on trust (--checks 0)"
        )
    errors = {u: float(np.linalg.norm(forces * f - sample.forces)) / norm for u, f in FORCE_UNITS.items()}
    force_unit = min(errors, key=lambda u: errors[u])
    if errors[force_unit] > FORCE_TOLERANCE:
        raise InputError(f"{where}: the forces agree in no known unit with those of {level.xc}/{level.basis}")
    return Units(unit, force_unit, difference, errors[force_unit])


def _sample(entry: Labelled, units: Units, chosen: _Chosen) -> Sample:
    """Return the labels of a frame in Eh and Eh/bohr; forces not finite, or all zero, are missing."""
    values = entry.forces.get(chosen.forces or "")
    if values is not None and (not np.isfinite(values).all() or not (values.any() or len(values) == 1)):
        log.warning("the forces of %r are not finite, or all zero, and taken for missing", entry.structure.id)
        values = None
    return Sample(
        entry.structure.id,
        entry.structure.molecule,
        Matrices(fock=np.empty((0, 0))),
        energy=entry.energies[chosen.energy] * ENERGY_UNITS[units.energy],
        forces=None if values is None else values * FORCE_UNITS[units.forces or "eV/Å"],
        provenance=entry.structure.provenance,
    )


def _open(out: Path, theory: LevelOfTheory, basis: BasisSet, ids: Collection[str]) -> Store:
    """Make the store, or open it and check that it was begun with these molecules at this level."""
    if not out.exists():
        return Store.create(out, level=theory, basis=basis)
    store = Store.open(out, "a")
    try:
        if store.level != theory:
            raise StoreError(
                f"{out} is of another level ({store.level.differences(theory)}): choose another --out"
            )
        if (other := next((id for id in store.ids if id not in ids), None)) is not None:
            raise StoreError(f"{out} holds {other!r}, which is not in the file: choose another --out")
        store.extend_basis(basis)
    except BaseException:
        store.close()
        raise
    return store
