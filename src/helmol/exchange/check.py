"""Recompute what a foreign file claims, and name the likely cause where it does not agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from helmol import dft
from helmol.arrays import Array
from helmol.dft import FockEnergy, LevelConfig
from helmol.errors import InputError
from helmol.exchange.readers import ARRANGEMENTS, Arrangement, Source
from helmol.store import Store
from helmol.system import Molecule, Sample
from helmol.units import ANGSTROM_PER_BOHR

UNITS = {
    "as expected": 1.0,
    "positions are in bohr where Å were expected": ANGSTROM_PER_BOHR,
    "positions are in Å where bohr were expected": 1 / ANGSTROM_PER_BOHR,
}
"""Factors on positions (bohr, as they were read) that undo a mistaken unit."""

CLEARLY_BETTER = 0.5
"""Another order or unit is named as the cause if it lowers the mean difference below this share."""


def check_config(source: Source) -> LevelConfig:
    """Return the level of theory at which a format's labels are recomputed."""
    return LevelConfig(
        xc=source.xc,
        basis=source.basis,
        method="rks",
        grid_level=3,
        density_fit=source.density_fit,
        conv_tol=max(source.conv_tol, 1e-10),
    )


def refuse_other_functions(store: Store, config: LevelConfig) -> None:
    """Raise if PySCF has other basis functions under the name of a store's basis.

    Raises:
        InputError: names the element and what differs.
    """
    if not store.basis.elements:
        return
    found = dft.basis_set(config, store.basis.elements)
    if (difference := store.basis.difference(found)) is not None:
        raise InputError(
            f"{store.path}: PySCF's basis {store.basis.name!r} is not the one of the store: in PySCF "
            f"{difference}"
        )


def check_overlaps(
    samples: Sequence[Sample], source: Source, arrangement: Arrangement, *, where: str
) -> float | None:
    """Return the largest ``|S − S_ref|`` of the samples that have an overlap, ``None`` if none has.

    Raises:
        InputError: it is larger than the format allows; the message names the likely cause.
    """
    config, worst = check_config(source), None
    for sample in samples:
        if sample.matrices.overlap is None:
            continue
        recomputed = dft.overlap(dft.build_mole(sample.molecule, config))
        error = float(np.abs(sample.matrices.overlap - recomputed).max())
        if not error <= (source.overlap_tolerance or 0.0):
            cause = _order_or_unit(sample.molecule, sample.matrices.overlap, arrangement, _overlap_of(config))
            raise InputError(
                f"{where}: the overlap of {sample.id!r} differs from the one of its geometry by {error:.1e} "
                f"(at most {source.overlap_tolerance:.0e}). Likely cause: "
                f"{cause or f'another basis than {source.basis}, or damage'}"
            )
        worst = error if worst is None else max(worst, error)
    return worst


def check_fock(
    sample: Sample, source: Source, arrangement: Arrangement, *, where: str, forces: bool = False
) -> tuple[float, FockEnergy, Array | None]:
    """Build F once from the orbitals of a sample's F: ``max |F[D] − F|`` in Eh, what was built, forces.

    A Fock matrix in a wrong order, of another geometry or of another functional does not return.

    Args:
        sample: a small molecule.
        source: level of theory, tolerance.
        arrangement: how its matrices were brought to house order.
        where: the file, for messages.
        forces: whether to converge the SCF and compute forces, too.

    Raises:
        InputError: the difference is larger than the format allows; names the likely cause.
    """
    config = check_config(source)
    rebuilt = _rebuild(sample, config)
    error = _difference(rebuilt, sample)
    if not error <= source.fock_tolerance:
        cause = _cause(sample, source, arrangement)
        raise InputError(
            f"{where}: F of {sample.id!r} is not that of its own density at {source.xc}/{source.basis}: they "
            f"differ by {error:.1e} Eh (at most {source.fock_tolerance:.0e}). Likely cause: {cause}"
        )
    if not forces:
        return error, rebuilt, None
    return error, rebuilt, dft.forces_from(dft.build_mole(sample.molecule, config), config, rebuilt.density)


def _rebuild(sample: Sample, config: LevelConfig) -> FockEnergy:
    """Return what follows from the Fock matrix of a sample."""
    return dft.energy_of_fock(dft.build_mole(sample.molecule, config), config, sample.matrices.fock)


def _difference(rebuilt: FockEnergy, sample: Sample) -> float:
    return float(np.abs(rebuilt.fock - sample.matrices.fock).max())


def _overlap_of(config: LevelConfig) -> Callable[[Molecule], Array]:
    return lambda molecule: dft.overlap(dft.build_mole(molecule, config))


def _cause(sample: Sample, source: Source, arrangement: Arrangement) -> str:
    """Return in words why a Fock matrix is not stationary."""
    config = check_config(source)

    def cheap(molecule: Molecule) -> Array:
        return dft.reference_fock(dft.build_mole(molecule, config), config, "minao")

    cause = _order_or_unit(sample.molecule, sample.matrices.fock, arrangement, cheap)
    if cause is not None:
        return cause
    for xc in source.other_xc:
        other = config.model_copy(update={"xc": xc})
        if _difference(_rebuild(sample, other), sample) <= source.fock_tolerance:
            return f"the functional is {xc}, not {source.xc}"
    return f"another functional than {source.xc}, another basis than {source.basis}, or damage"


def _order_or_unit(
    molecule: Molecule, matrix: Array, arrangement: Arrangement, nearby: Callable[[Molecule], Array]
) -> str | None:
    """Try all orders and units and return the pair that fits a cheap matrix best, ``None`` if it is ours.

    Args:
        molecule: as it was read.
        matrix: as it was read, house order if the arrangement is right.
        arrangement: what was taken for the file's order.
        nearby: a matrix of a molecule in house order that is near the right one.
    """
    foreign = arrangement.from_house(matrix, molecule.numbers)
    found: list[tuple[float, str, str]] = []
    for unit, factor in UNITS.items():
        try:
            near = nearby(replace(molecule, positions=molecule.positions * factor))
        except (InputError, np.linalg.LinAlgError):
            continue
        for order, tried in _orders(arrangement):
            try:
                guess = tried.to_house(foreign, molecule.numbers)
            except InputError:
                continue
            found.append((float(np.abs(guess - near).mean()), order, unit))
    here = min(error for error, order, unit in found if order == arrangement.order and unit == "as expected")
    best, order, unit = min(found, key=lambda entry: entry[0])
    if best > CLEARLY_BETTER * here:
        return None
    words = [] if unit == "as expected" else [unit]
    if order != arrangement.order:
        words.append(f"the orbitals stand in {ARRANGEMENTS[order]}, not in {ARRANGEMENTS[arrangement.order]}")
    return " and ".join(words) or None


def _orders(arrangement: Arrangement) -> Iterator[tuple[str, Arrangement]]:
    """Yield every order that could be tried, the assumed one first so that it wins a tie."""
    for order in (arrangement.order, *(o for o in ARRANGEMENTS if o != arrangement.order)):
        if arrangement.appended or not order.startswith("appended"):
            yield order, replace(arrangement, order=order)
