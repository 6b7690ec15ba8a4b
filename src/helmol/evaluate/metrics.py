"""The metrics: key, name, unit and definition of every error, here and nowhere else.

Errors are averages over molecules of a number per molecule. A label that is missing leaves its number
``None`` with a reason under ``missing``; a prediction that is not finite makes the numbers NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Needs = Literal["fock", "spins", "orbitals", "dipole", "energy", "forces", "fock energy", "precisions"]
"""What a number is made of: a labelled Fock matrix; two spins of it; its orbitals too, so an overlap; dipole
integrals too, so PySCF; an energy label; labels of forces; the energy that a Fock matrix implies, so one
Fock build; predictions in several precisions."""


@dataclass(frozen=True)
class Metric:
    """Say what a number is.

    Attributes:
        key: in every result, file and table for machines.
        label: in tables for people; the error is the mean absolute one unless it says otherwise.
        unit: empty for a number without one.
        needs: what it is made of.
        meaning: its definition.
        symbol: short name, for log lines and narrow tables; by default the label.
    """

    key: str
    label: str
    unit: str
    needs: Needs
    meaning: str
    symbol: str = ""

    @property
    def heading(self) -> str:
        """Label and unit, as columns and axes have it."""
        return f"{self.label} / {self.unit}" if self.unit else self.label

    @property
    def short(self) -> str:
        """Symbol and unit, for narrow columns."""
        name = self.symbol or self.label
        return f"{name} / {self.unit}" if self.unit else name

    def text(self, value: float) -> str:
        """Return a value with symbol and unit, for a log line."""
        return f"{self.symbol or self.label} {value:.4g} {self.unit}".rstrip()


_ALL = (
    Metric("h_mae_uEh", "Fock matrix", "µEh", "fock", symbol="H",
           meaning="mean |ΔF| over all nao² elements of the symmetric matrix, of both spins if it has two"),
    Metric("h_mae_diagonal_uEh", "Fock matrix, blocks of one atom", "µEh", "fock", symbol="H, one atom",
           meaning="the same over the blocks of an atom with itself"),
    Metric("h_mae_offdiagonal_uEh", "Fock matrix, blocks of two atoms", "µEh", "fock", symbol="H, two atoms",
           meaning="the same over the blocks of two different atoms"),
    Metric("h_mae_alpha_uEh", "Fock matrix, alpha", "µEh", "spins", meaning="the same of the alpha spin"),
    Metric("h_mae_beta_uEh", "Fock matrix, beta", "µEh", "spins", meaning="the same of the beta spin"),
    Metric("h_mae_spin_uEh", "Fock matrix, alpha minus beta", "µEh", "spins",
           meaning="the same of the difference of the two spins"),
    Metric("eps_occ_mae_uEh", "occupied orbital energies", "µEh", "orbitals", symbol="ε_occ",
           meaning="mean |Δε| of the occupied orbitals, from the predicted and the true F with the true S; "
                   "of two spins each with its own occupations"),
    Metric("eps_occ_alpha_mae_uEh", "occupied orbital energies, alpha", "µEh", "spins",
           meaning="the same of the alpha spin"),
    Metric("eps_occ_beta_mae_uEh", "occupied orbital energies, beta", "µEh", "spins",
           meaning="the same of the beta spin"),
    Metric("homo_mae_uEh", "HOMO", "µEh", "orbitals",
           meaning="|Δε| of the highest occupied orbital, of both spins if there are two"),
    Metric("lumo_mae_uEh", "LUMO", "µEh", "orbitals",
           meaning="|Δε| of the lowest empty orbital, of both spins if there are two"),
    Metric("gap_mae_uEh", "gap", "µEh", "orbitals", meaning="|Δ| of LUMO minus HOMO"),
    Metric("density_error", "density matrix, ‖ΔP‖", "", "orbitals", symbol="‖ΔP‖",
           meaning="Frobenius norm of the difference of the AO density matrices, both made from the orbitals "
                   "of their Fock matrix"),
    Metric("density_error_per_electron", "density matrix, ‖ΔP‖ per electron", "", "orbitals",
           symbol="‖ΔP‖ per electron", meaning="that over the number of electrons"),
    Metric("dipole_mae_debye", "dipole", "Debye", "dipole", meaning="length of Δμ"),
    Metric("psi_similarity", "occupied orbitals, mean |cosine|", "", "orbitals",
           meaning="mean |cosine| between predicted and true occupied columns of C (1 is equal); degenerate "
                   "orbitals lower it"),
    Metric("psi_similarity_s", "occupied orbitals, mean |cosine| in S", "", "orbitals",
           meaning="the same with S as the metric, |cᵀ S c'|"),
    Metric("energy_mae_meV", "energy", "meV", "energy", symbol="E", meaning="mean |ΔE|"),
    Metric("energy_mae_meV_per_atom", "energy per atom", "meV", "energy", meaning="mean of |ΔE| / n_atoms"),
    Metric("energy_rmse_meV", "energy, root mean square", "meV", "energy",
           meaning="root of the mean ΔE² over molecules"),
    Metric("energy_bias_meV", "energy, signed", "meV", "energy", meaning="mean ΔE, predicted minus label"),
    Metric("force_mae_meV_per_angstrom", "force components", "meV/Å", "forces", symbol="F",
           meaning="mean |ΔF| over the 3 n_atoms components"),
    Metric("force_rmse_meV_per_angstrom", "force components, root mean square", "meV/Å", "forces",
           meaning="root of the mean ΔF² over all components of all molecules"),
    Metric("energy_from_h_mae_meV", "energy of the predicted Fock matrix", "meV", "fock energy",
           symbol="E of predicted H",
           meaning="mean |E[D] − label|, D the density of the Fock matrix; second order in the error of D"),
    Metric("energy_from_h_corrected_mae_meV", "energy of the predicted Fock matrix, corrected", "meV",
           "fock energy", symbol="E of predicted H, corrected",
           meaning="the same with the second-order correction −2 Σ_ai |F_ai|² / (F_aa − F_ii) that the "
                   "same Fock build gives"),
    Metric("energy_from_h_bias_meV", "energy of the predicted Fock matrix, signed", "meV", "fock energy",
           meaning="mean E[D] − label"),
    Metric("energy_from_h_corrected_bias_meV", "energy of the predicted Fock matrix, corrected, signed",
           "meV", "fock energy", meaning="the same with the correction"),
    Metric("h_change_uEh", "change of the Fock matrix", "µEh", "precisions",
           meaning="mean |F − F in float64| of one model, over all elements"),
    Metric("h_change_max_uEh", "change of the Fock matrix, largest", "µEh", "precisions",
           meaning="the largest |F − F in float64| of any element of any molecule"),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.key: metric for metric in _ALL}
"""Every metric by its key, in the order of tables."""


def needing(*what: Needs) -> tuple[str, ...]:
    """Return the keys of the metrics that need one of these."""
    return tuple(metric.key for metric in _ALL if metric.needs in what)


FOCK_METRICS = needing("fock", "orbitals", "dipole")
"""Keys that every comparison of Fock matrices has."""
SPIN_METRICS = needing("spins")
"""Keys that it has of unrestricted matrices only."""
ENERGY_METRICS = needing("energy", "forces")
"""Keys of a comparison of energies; those of forces are ``None`` without labels of them."""
FROM_FOCK_METRICS = needing("fock energy")
"""Keys of the energies that Fock matrices imply."""


def rows(tables: Sequence[Mapping[str, Any]]) -> list[tuple[Metric, list[float | None]]]:
    """Return the metrics that any of several results names, each with the values of all."""
    return [
        (metric, [table.get(metric.key) for table in tables])
        for metric in _ALL
        if any(metric.key in table for table in tables)
    ]


def interval(values: Sequence[float], *, draws: int = 1000) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of a mean over molecules; ``None`` below two molecules."""
    if len(values) < 2:
        return None
    random = np.random.default_rng(0)
    means = [random.choice(values, len(values)).mean() for _ in range(draws)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
