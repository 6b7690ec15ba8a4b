"""Energies read from predicted Fock matrices, with what few energy labels say of the rest.

``E = E₀[F] + Σ_A e(Z_A) + w · x``: E₀ is the energy of the predicted matrix about superposed atoms
(:func:`helmol.dft.energy_about_atoms`), which needs no labels, e a constant of each element, and x sums over
atoms and bonds of Löwdin charges and Wiberg bond orders. Knows: features, the closed-form fit, its file. Does
not know: the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from helmol import properties
from helmol.arrays import Array, IntArray
from helmol.basis import BasisSet
from helmol.brief import brief
from helmol.damage import understood
from helmol.digests import read_description, write_description
from helmol.elements import SYMBOLS
from helmol.errors import DomainError, InputError
from helmol.hub import ENERGY_FILE
from helmol.system import Molecule

if TYPE_CHECKING:
    from helmol.properties.state import ElectronicState

Way = Literal["density", "matrix"]
WAYS: tuple[Way, ...] = ("density", "matrix")
SCHEMA = 1

ELEMENT_SPREAD = 0.05
"""What the constant of an element is expected to be, Eh."""
WEIGHTS = (0.0, *10.0 ** np.arange(-4.0, 1.0))
"""Expected sizes of what the features explain that are tried, Eh."""
NOISES = 10.0 ** np.arange(-4.5, -1.5, 0.5)
"""Standard deviations of what is left that are tried, Eh."""


@dataclass(frozen=True)
class Reading:
    """Hold what is read from one predicted matrix.

    Attributes:
        molecule: nuclei, charge, spin.
        energy: E₀, Eh.
        charges: Löwdin charges, ``[n_atoms]``, e.
        bond_orders: Wiberg bond orders, ``[n_atoms, n_atoms]``.
    """

    molecule: Molecule
    energy: float
    charges: Array
    bond_orders: Array

    __repr__ = brief


def read_state(state: ElectronicState, basis: BasisSet, energy: float) -> Reading:
    """Return a reading of orbitals and their energy E₀."""
    molecule = state.molecule
    offsets = basis.offsets(molecule.numbers)
    orthogonal = properties.lowdin_density(state.density, state.overlap)
    nuclei = properties.nuclear_charges(molecule.numbers, basis)
    return Reading(
        molecule,
        energy,
        properties.lowdin_charges(orthogonal, offsets=offsets, charges=nuclei),
        properties.wiberg_bond_orders(orthogonal, offsets=offsets),
    )


def counts(numbers: IntArray, elements: Sequence[int]) -> Array:
    """Return how many atoms of each of some elements there are, ``[n_elements]``."""
    return np.array([np.sum(numbers == z) for z in elements], dtype=np.float64)


def features(reading: Reading, elements: Sequence[int]) -> Array:
    """Return x: sums that a rotation or another order of the atoms leaves alone, and far molecules add up.

    For each element ``Σ_A q_A`` and ``Σ_A q_A²``, for each pair of elements ``Σ_{A<B} W_AB`` and ``Σ W_AB²``.

    Args:
        reading: of one molecule.
        elements: atomic numbers in the order of the result; others do not count.

    Returns:
        ``[2 n + n (n + 1)]``.
    """
    which = np.stack([reading.molecule.numbers == z for z in elements]).astype(np.float64)
    sums = [which @ reading.charges, which @ reading.charges**2]
    rows, columns = np.triu_indices(len(elements))
    for orders in (reading.bond_orders, reading.bond_orders**2):
        of_pairs = which @ orders @ which.T
        of_pairs[np.diag_indices(len(elements))] /= 2
        sums.append(of_pairs[rows, columns])
    return np.concatenate(sums)


@dataclass(frozen=True)
class MatrixEnergy:
    """Hold the fit of a model's energies.

    Attributes:
        way: ``density``: E₀ is the energy of the density of the predicted matrix; ``matrix``: that of the
            matrix to second order, cheaper and less exact.
        elements: atomic numbers that it knows.
        per_element: e, ``[n_elements]``, Eh.
        weights: w, Eh, of :func:`features`.
        n_labels: energies that it was fitted to.
        left_out: mean absolute error on molecules left out of the fit, Eh.
        model: fingerprint of the model whose matrices these are.
    """

    way: Way
    elements: tuple[int, ...]
    per_element: Array
    weights: Array
    n_labels: int
    left_out: float
    model: str

    __repr__ = brief

    def check(self, molecule: Molecule) -> None:
        """Raise DomainError if no label had an element of a molecule."""
        if new := sorted({*molecule.numbers.tolist()} - {*self.elements}):
            names = ", ".join(SYMBOLS[z] for z in new)
            raise DomainError(f"no energy with {names} was among the {self.n_labels} that the model has seen")

    def energy(self, reading: Reading) -> float:
        """Return the energy of a molecule, Eh.

        Raises:
            DomainError: an element of which no label told.
        """
        self.check(reading.molecule)
        constants = counts(reading.molecule.numbers, self.elements) @ self.per_element
        return float(reading.energy + constants + features(reading, self.elements) @ self.weights)

    def save(self, folder: Path) -> None:
        """Write ``energy.json`` into a model folder, atomically."""
        description = {
            "schema": SCHEMA,
            "way": self.way,
            "elements": list(self.elements),
            "per_element_Eh": self.per_element.tolist(),
            "weights_Eh": self.weights.tolist(),
            "n_labels": self.n_labels,
            "left_out_mae_Eh": self.left_out,
            "model": self.model,
        }
        write_description(folder / ENERGY_FILE, description)

    @classmethod
    def load(cls, folder: Path) -> MatrixEnergy | None:
        """Read ``energy.json`` of a model folder; ``None`` if it has none.

        Raises:
            InputError: it is damaged, or of a newer helmol.
        """
        path = folder / ENERGY_FILE
        if not path.is_file():
            return None
        data: dict[str, Any] = read_description(path)
        if data.get("schema") != SCHEMA:
            raise InputError(f"{path} has schema {data.get('schema')}, this helmol reads {SCHEMA}: update it")
        with understood(str(path)):
            if data["way"] not in WAYS:
                raise ValueError(f"way {data['way']!r}")
            elements = tuple(int(z) for z in data["elements"])
            per_element = np.array(data["per_element_Eh"], dtype=np.float64)
            weights = np.array(data["weights_Eh"], dtype=np.float64)
            n = len(elements)
            if per_element.shape != (n,) or weights.shape != (2 * n + n * (n + 1),):
                raise ValueError("numbers of elements and weights do not fit")
            return cls(
                data["way"], elements, per_element, weights, int(data["n_labels"]),
                float(data["left_out_mae_Eh"]), str(data["model"]),
            )  # fmt: skip


def fit_matrix_energy(
    readings: Sequence[Reading], energies: Sequence[float], *, way: Way, model: str
) -> MatrixEnergy:
    """Fit constants and weights in closed form.

    Ridge regression: the constants are expected to be :data:`ELEMENT_SPREAD`; how large the features' share
    and what is left are expected to be is chosen by the mean absolute error on molecules left out, all of
    one formula at a time.

    Args:
        readings: of molecules with energies, three at least.
        energies: labels, Eh.
        way: how E₀ was read.
        model: fingerprint of the model.

    Raises:
        InputError: too few molecules, or an energy that is not finite.
    """
    if len(readings) != len(energies) or len(readings) < 3:
        raise InputError(f"{len(energies)} energies of {len(readings)} molecules: need one each, and three")
    rest = np.array(energies) - [reading.energy for reading in readings]
    if not np.isfinite(rest).all():
        raise InputError(f"the energy of training molecule {int(np.argmin(np.isfinite(rest)))} is not finite")
    elements = tuple(sorted({z for reading in readings for z in reading.molecule.numbers.tolist()}))
    composition = ELEMENT_SPREAD * np.stack([counts(r.molecule.numbers, elements) for r in readings])
    x = np.stack([features(reading, elements) for reading in readings])
    unit = float(np.sqrt(np.mean(np.sum(x**2, axis=1)))) or 1.0
    groups = _formulas(readings)
    tried = []
    for share in WEIGHTS:
        left, sizes, right = np.linalg.svd(np.hstack([composition, share / unit * x]), full_matrices=False)
        for noise in NOISES:
            error = _left_out(left, sizes**2, rest, groups, noise**2)
            tried.append((error, share, right.T @ (sizes / (sizes**2 + noise**2) * (left.T @ rest))))
    error, share, found = min(tried, key=lambda entry: entry[0])
    per_element, weights = np.split(found, [len(elements)])
    return MatrixEnergy(
        way, elements, ELEMENT_SPREAD * per_element, share / unit * weights, len(rest), error, model
    )


def _formulas(readings: Sequence[Reading]) -> list[list[int]]:
    """Return which molecules are left out together: those of one formula, or each where there are few."""
    found: dict[str, list[int]] = {}
    for k, reading in enumerate(readings):
        found.setdefault(reading.molecule.formula, []).append(k)
    return list(found.values()) if len(found) > 2 else [[k] for k in range(len(readings))]


def _left_out(left: Array, squares: Array, values: Array, groups: Sequence[list[int]], noise: float) -> float:
    """Return the mean absolute error on each group of a fit to the others.

    With ``A = (K + λ)⁻¹``, the error of group b is ``A_bb⁻¹ (A y)_b``.
    """
    inner = squares / (squares + noise)
    inverse = (np.eye(len(values)) - (left * inner) @ left.T) / noise
    dual = inverse @ values
    errors = [np.linalg.solve(inverse[np.ix_(b, b)], dual[b]) for b in groups]
    return float(np.abs(np.concatenate(errors)).mean())
