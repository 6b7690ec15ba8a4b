"""Errors of Fock matrices and of what follows from them, molecule by molecule."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from helmol import properties
from helmol.arrays import Array, BoolArray
from helmol.basis import BasisSet
from helmol.errors import HelmolError, InputError
from helmol.evaluate.blocks import BlockErrors
from helmol.evaluate.metrics import FOCK_METRICS, SPIN_METRICS, interval, needing
from helmol.properties import ElectronicState, electronic_state
from helmol.system import LevelOfTheory, Sample
from helmol.units import DEBYE_PER_AU, MICROHARTREE_PER_HARTREE

SPINS = ("alpha", "beta")
NEEDS_OVERLAP = needing("orbitals", "dipole")

log = logging.getLogger("helmol.evaluate")


class ErrorTable:
    """Collect errors molecule by molecule, for any number of predictions of the same molecules.

    Args:
        basis: shells of the elements.
        level: level of theory of the samples; with it an overlap that a sample lacks is recomputed
            and dipoles are evaluated, if PySCF is installed.
        orbital_energies: whether to diagonalise; without, only the matrix errors are made.
    """

    def __init__(
        self, basis: BasisSet, *, level: LevelOfTheory | None = None, orbital_energies: bool = True
    ) -> None:
        self._basis, self._level, self._diagonalise = basis, level, orbital_energies
        self._rows: dict[str, list[dict[str, float]]] = {}
        self._blocks: dict[str, BlockErrors] = {}
        self._flags: dict[str, list[dict[str, str]]] = {}
        self._missing: dict[str, str] = {}
        if not orbital_energies:
            self._missing = dict.fromkeys(NEEDS_OVERLAP, "orbital energies were not asked for")

    def add(self, sample: Sample, predicted: Mapping[str, Array]) -> None:
        """Compare one molecule's Fock matrix with predictions by name, house order, Eh.

        Raises:
            InputError: a prediction has another shape than the label.
        """
        fock = sample.matrices.fock
        for matrix in predicted.values():
            if matrix.shape != fock.shape:
                raise InputError(
                    f"sample {sample.id!r}: predicted matrix has shape {matrix.shape}, label {fock.shape}"
                )
        overlap, integrals = self._integrals(sample)
        truth: ElectronicState | None = None
        for name, matrix in predicted.items():
            row = self._matrix_errors(name, matrix - fock, sample)
            if overlap is None or not self._diagonalise:
                pass
            elif np.isfinite(matrix).all():
                truth = truth or electronic_state(fock, overlap, sample.molecule, self._basis)
                state = electronic_state(matrix, overlap, sample.molecule, self._basis)
                row |= _orbital_errors(state, truth, overlap)
                flag = properties.gap_flag(state.gap)
                if flag is not None and properties.gap_flag(truth.gap) is None:
                    self._flags.setdefault(name, []).append({"id": sample.id, "text": flag})
                if integrals is not None:
                    # The nuclear parts cancel.
                    change = properties.electronic_dipole(state.density - truth.density, integrals)
                    row["dipole_mae_debye"] = float(np.linalg.norm(change) * DEBYE_PER_AU)
            else:
                row |= dict.fromkeys(NEEDS_OVERLAP, float("nan"))
            self._rows.setdefault(name, []).append(row)

    @classmethod
    def joined(cls, tables: Sequence[ErrorTable]) -> ErrorTable:
        """Return one table of what several have collected, each of molecules of its own.

        Molecules come in the order of the tables by turns, the first of each first.
        """
        first, *others = tables
        if not others:
            return first
        whole = cls(first._basis, level=first._level, orbital_energies=first._diagonalise)
        whole._missing = {key: why for table in reversed(tables) for key, why in table._missing.items()}
        for name in dict.fromkeys(name for table in tables for name in table._rows):
            parts = [table._rows.get(name, []) for table in tables]
            turns = itertools.zip_longest(*parts)
            whole._rows[name] = [row for turn in turns for row in turn if row is not None]
            whole._flags[name] = [flag for table in tables for flag in table._flags.get(name, [])]
            blocks = [table._blocks[name] for table in tables if name in table._blocks]
            if blocks:
                whole._blocks[name] = BlockErrors.joined(blocks)
        return whole

    def summary(self, name: str) -> dict[str, Any]:
        """Return the table of one prediction: metrics, a 95 % interval, where errors sit, odd gaps.

        ``flags`` names the molecules (``id``, ``text``) whose gap is odd while the label's is not.
        """
        rows = self._rows.get(name, [])
        result: dict[str, Any] = {"n_molecules": len(rows)}
        for metric in FOCK_METRICS:
            values = [row[metric] for row in rows if metric in row]
            result[metric] = float(np.mean(values)) if values else None
        for metric in SPIN_METRICS:
            if values := [row[metric] for row in rows if metric in row]:
                result[metric] = float(np.mean(values))
        result["h_mae_uEh_ci95"] = interval([row["h_mae_uEh"] for row in rows])
        if name in self._blocks:
            result["by_element"] = self._blocks[name].by_element()
            result["by_element_pair"] = self._blocks[name].by_element_pair()
            result["by_shell_pair"] = self._blocks[name].by_shell_pair()
            result["by_distance"] = self._blocks[name].by_distance()
        result["flags"] = self._flags.get(name, [])
        result["n_flagged"] = len(result["flags"])
        result["missing"] = {}
        for metric, why in self._missing.items():
            known = sum(metric in row for row in rows)
            if known < len(rows):
                partly = f"known of {known} of {len(rows)} molecules only: " if known else ""
                result["missing"][metric] = partly + why
        return result

    def _matrix_errors(self, name: str, difference: Array, sample: Sample) -> dict[str, float]:
        """Return the errors of the matrix itself, µEh."""
        absolute, by_spin = np.abs(difference), {}
        if absolute.ndim == 3:
            by_spin = {f"h_mae_{s}_uEh": float(a.mean()) for s, a in zip(SPINS, absolute, strict=True)}
            by_spin["h_mae_spin_uEh"] = float(np.abs(difference[0] - difference[1]).mean())
            absolute = absolute.mean(axis=0)
        blocks = self._blocks.setdefault(name, BlockErrors(self._basis))
        diagonal, offdiagonal = blocks.add(absolute, sample.molecule)
        row = {"h_mae_uEh": float(absolute.mean()), "h_mae_diagonal_uEh": diagonal, **by_spin}
        if offdiagonal is not None:
            row["h_mae_offdiagonal_uEh"] = offdiagonal
        return {key: value * MICROHARTREE_PER_HARTREE for key, value in row.items()}

    def _integrals(self, sample: Sample) -> tuple[Array | None, Array | None]:
        """Return overlap and dipole integrals, recomputed where the sample has none."""
        overlap = sample.matrices.overlap
        if not self._diagonalise:
            return overlap, None
        if self._level is None:
            self._note_missing("no level of theory was given, so no integrals can be made", overlap)
            return overlap, None
        try:
            # PySCF is optional here: a machine that only trains has none.
            from helmol import dft
        except ImportError:
            self._note_missing("PySCF is not installed", overlap)
            return overlap, None
        try:
            mole = dft.build_mole(sample.molecule, dft.level_from(self._level))
            found = BasisSet.from_mole(mole, self._basis.name)
        except HelmolError as error:
            self._note_missing(f"no integrals for {sample.id!r}: {error}", overlap)
            return overlap, None
        if found != self._basis.part(sample.molecule.numbers.tolist()):
            why = f"PySCF has other functions under the name {self._basis.name!r}"
            self._note_missing(f"no integrals for {sample.id!r}: {why}", overlap)
            return overlap, None
        return dft.overlap(mole) if overlap is None else overlap, dft.dipole_integrals(mole)

    def _note_missing(self, reason: str, overlap: Array | None) -> None:
        """Remember why numbers are missing: the dipole, or everything that needs an overlap."""
        for metric in ("dipole_mae_debye",) if overlap is not None else NEEDS_OVERLAP:
            if metric not in self._missing:
                log.debug("%s left out: %s", metric, reason)
            self._missing.setdefault(metric, reason)


def _orbital_errors(state: ElectronicState, truth: ElectronicState, overlap: Array) -> dict[str, float]:
    """Return the errors of energies, orbitals and density of one molecule."""
    occupied = truth.mo_occ > 0
    row = {}
    if occupied.any():
        error = np.abs(state.mo_energy - truth.mo_energy) * MICROHARTREE_PER_HARTREE
        row["eps_occ_mae_uEh"] = float(error[occupied].mean())
        if occupied.ndim == 2:
            for spin, one, filled in zip(SPINS, error, occupied, strict=True):
                if filled.any():
                    row[f"eps_occ_{spin}_mae_uEh"] = float(one[filled].mean())
    for key, value in {
        "homo": state.homo - truth.homo, "lumo": state.lumo - truth.lumo,
        "gap": state.gap - truth.gap,
    }.items():  # fmt: skip
        if np.isfinite(value):
            row[f"{key}_mae_uEh"] = abs(value) * MICROHARTREE_PER_HARTREE
    row |= _similarity(state.mo_coeff, truth.mo_coeff, occupied, overlap)
    row["density_error"] = properties.density_error(state.density, truth.density)
    row["density_error_per_electron"] = row["density_error"] / max(float(truth.mo_occ.sum()), 1.0)
    return row


def _similarity(mo_coeff: Array, truth: Array, occupied: BoolArray, overlap: Array) -> dict[str, float]:
    """Return the mean |cosine| of occupied columns, Euclidean and in the metric S."""
    first = np.swapaxes(mo_coeff, -1, -2)[occupied]
    second = np.swapaxes(truth, -1, -2)[occupied]
    if len(first) == 0:
        return {}
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return {
        "psi_similarity": float((np.abs((first * second).sum(axis=1)) / norms).mean()),
        "psi_similarity_s": float(np.abs((first @ overlap * second).sum(axis=1)).mean()),
    }


def errors(
    samples: Sequence[Sample],
    predicted: Sequence[Array],
    basis: BasisSet,
    *,
    level: LevelOfTheory | None = None,
    orbital_energies: bool = True,
) -> dict[str, Any]:
    """Return the error table of predicted Fock matrices against labels.

    Args:
        samples: labelled molecules.
        predicted: one Fock matrix per sample, house order, Eh.
        basis: shells of the elements.
        level: see :class:`ErrorTable`; without it dipoles are left out.
        orbital_energies: whether to diagonalise.

    Returns:
        ``n_molecules``, :data:`helmol.evaluate.FOCK_METRICS`, ``h_mae_uEh_ci95``, ``by_element``,
        ``by_element_pair``, ``by_shell_pair``, ``by_distance``, ``flags``, ``missing``; of unrestricted
        matrices :data:`helmol.evaluate.SPIN_METRICS` too.

    Raises:
        InputError: a shape or the number of matrices does not fit.
    """
    if len(samples) != len(predicted):
        raise InputError(f"{len(predicted)} predicted matrices for {len(samples)} samples")
    table = ErrorTable(basis, level=level, orbital_energies=orbital_energies)
    for sample, matrix in zip(samples, predicted, strict=True):
        table.add(sample, {"model": matrix})
    return table.summary("model")
