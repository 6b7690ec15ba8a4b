"""Matrices that are known before the SCF: H₀ of a target by name, and what a network reads of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from helmol import properties
from helmol.arrays import Array
from helmol.basis import BasisSet
from helmol.errors import ConfigError, InputError
from helmol.system import Molecule, Sample

TargetName = Literal[
    "fock",
    "fock-minus-minao-lite",
    "fock-minus-minao-hartree",
    "fock-minus-minao",
    "fock-minus-minao-df",
    "fock-minus-minao-coarse",
    "fock-minus-minao-step",
    "fock-minus-sap",
]
TARGETS: tuple[str, ...] = get_args(TargetName)

DEFAULT_TARGET = "fock-minus-minao-lite"
"""What is learnt where nothing else is asked for or there."""


def reference_name(target: str) -> str | None:
    """Return the reference matrix that a target is measured from, ``None`` for the bare Fock matrix.

    Raises:
        ConfigError: unknown target.
    """
    if target not in TARGETS:
        raise ConfigError(f"unknown target {target!r}: expected one of {', '.join(TARGETS)}")
    return None if target == "fock" else target.removeprefix("fock-minus-")


def reference_matrix(references: Mapping[str, Array], target: str) -> Array | float:
    """Return H₀ of a target from a sample's reference matrices (0.0 for the bare Fock matrix).

    Raises:
        InputError: the reference is not there.
    """
    name = reference_name(target)
    if name is None:
        return 0.0
    if name not in references:
        have = ", ".join(references) or "none"
        raise InputError(f"target {target!r} needs the reference matrix {name!r}; there: {have}")
    return references[name]


def target_matrix(sample: Sample, target: str) -> Array:
    """Return the matrix to learn, ``F − H₀`` in house order, Eh, float64.

    Raises:
        InputError: the sample has no Fock matrix, or not the reference.
    """
    if not sample.matrices.fock.size:
        raise InputError(f"{sample.id!r} has no Fock matrix: use it for task energy, not hamiltonian or both")
    return sample.matrices.fock - reference_matrix(sample.matrices.references, target)


MatrixName = Literal["reference", "change", "density", "overlap"]

BEFORE = "minao"
"""Reference that ``change`` is measured from."""


def needed_references(target: str, inputs: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the reference matrices that a model needs: H₀ of its target, and what else it reads.

    Raises:
        ConfigError: the target has no H₀ for the inputs named, or has one that does not change.
    """
    name = reference_name(target)
    if name is None:
        if asked := [word for word in inputs if word != "overlap"]:
            raise ConfigError(
                f"inputs: target {target!r} has no reference for {asked[0]!r}; take a delta target"
            )
        return ()
    if "change" not in inputs:
        return (name,)
    if name == BEFORE:
        raise ConfigError(
            f"inputs: 'change' is what H₀ differs by from {BEFORE!r}, nothing for target {target!r}; "
            "take fock-minus-minao-step"
        )
    return name, BEFORE


def needs_overlap(inputs: Sequence[str]) -> bool:
    """Return whether the overlap matrix is among what a model reads, or needed to make it."""
    return "overlap" in inputs or "density" in inputs


def n_inputs(inputs: Sequence[str], n_spins: int) -> int:
    """Return the number of matrices: one for each spin, but one overlap."""
    return sum(1 if name == "overlap" else n_spins for name in inputs)


def input_matrices(
    inputs: Sequence[str], target: str, known: Mapping[str, Array], molecule: Molecule, basis: BasisSet
) -> Array | None:
    """Return the matrices that a network reads, ``[n_matrices, nao, nao]``; ``None`` if it reads none.

    Args:
        inputs: their names; see :class:`helmol.model.ModelConfig`.
        target: what the network learns.
        known: the molecule's reference matrices by name, and ``overlap``; house order, Eh.
        molecule: whose electrons are counted.
        basis: shells and core electrons of the elements.

    Raises:
        ConfigError: as :func:`needed_references`.
        InputError: a matrix is missing.
    """
    needed_references(target, inputs)
    if needs_overlap(inputs) and "overlap" not in known:
        raise InputError("the model reads the overlap matrix, which is not there")
    found = []
    for name in inputs:
        if name == "overlap":
            matrix = known["overlap"]
        else:
            matrix = np.asarray(reference_matrix(known, target))
        if name == "change":
            matrix = matrix - reference_matrix(known, f"fock-minus-{BEFORE}")
        if name == "density":
            electrons = basis.n_electrons(molecule.numbers, molecule.charge)
            matrix = smeared_density(matrix, known["overlap"], electrons, spin=molecule.spin)
        found.append(matrix if matrix.ndim == 3 else matrix[None])
    return np.concatenate(found) if found else None


def smeared_density(fock: Array, overlap: Array, n_electrons: int, *, spin: int = 0) -> Array:
    """Return the density matrix of the orbitals of a Fock matrix, ``D = C n Cᵀ``, of its shape.

    ``n_k = f / (1 + exp((ε_k − μ)/T))`` for each spin, ``f`` = 2 for one set of orbitals, ``Σ n_k`` the
    number of electrons; see :func:`helmol.properties.smeared_occupations`.

    Raises:
        InputError: electrons and spin contradict each other, or do not fit the orbitals.
    """
    mo_energy, mo_coeff = properties.orbitals(fock, overlap)
    sharp = properties.occupations(mo_energy, n_electrons, spin=spin)
    mo_occ = np.stack(
        [
            properties.smeared_occupations(e, float(n.sum()), full=float(n.max(initial=0) or 1))
            for e, n in zip(np.atleast_2d(mo_energy), np.atleast_2d(sharp), strict=True)
        ]
    )
    density = properties.density(mo_coeff, mo_occ.reshape(mo_energy.shape))
    return np.asarray(0.5 * (density + np.swapaxes(density, -1, -2)))
