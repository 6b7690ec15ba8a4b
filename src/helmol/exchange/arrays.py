"""A sample as named arrays in PySCF's AO order, and back to the last bit.

This is what the foreign containers of :mod:`helmol.exchange.converting` carry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from helmol import dft, properties
from helmol.arrays import Array
from helmol.basis import BasisSet, from_house, to_house
from helmol.dft import LevelConfig
from helmol.errors import InputError
from helmol.files import plain
from helmol.store.columns import REFERENCE, to_columns
from helmol.system import Matrices, Molecule, Sample
from helmol.units import DEBYE_PER_AU


def exact_arrays(sample: Sample, basis: BasisSet) -> dict[str, Any]:
    """Return all that a sample has, matrices in PySCF's order, else atomic units.

    Keys: ``id numbers positions charge spin fock provenance labels digest`` and, as named in ``labels``,
    ``overlap density energy forces dipole_au reference_NAME``. ``digest`` is the store's, of molecule and
    labels: not every container knows when a byte of it has changed.
    """
    shells, matrices = basis.shells(sample.molecule.numbers), sample.matrices
    optional: dict[str, Any] = {
        "energy": sample.energy,
        "forces": sample.forces,
        "dipole_au": sample.dipole,
    }
    named = {"overlap": matrices.overlap, "density": matrices.density}
    named |= {f"{REFERENCE}{name}": matrix for name, matrix in matrices.references.items()}
    optional |= {n: from_house(m, shells, "pyscf") for n, m in named.items() if m is not None}
    labels = {name: np.asarray(value) for name, value in optional.items() if value is not None}
    return {
        "id": np.array(sample.id),
        "numbers": sample.molecule.numbers,
        "positions": sample.molecule.positions,
        "charge": np.array(sample.molecule.charge),
        "spin": np.array(sample.molecule.spin),
        "fock": from_house(matrices.fock, shells, "pyscf"),
        "provenance": np.array(json.dumps(plain(dict(sample.provenance)))),
        "labels": np.array(json.dumps(sorted(labels))),
        "digest": np.array(content_digest(sample, basis)),
        **labels,
    }


def sample_from(arrays: Mapping[str, Any], basis: BasisSet) -> Sample:
    """Undo :func:`exact_arrays`; arrays that are not named in ``labels`` are not labels.

    Raises:
        InputError: an array is missing, does not fit the basis, or is not what was written.
    """
    sample = _sample_from(arrays, basis)
    # Files that helmol 0.1 wrote have no digest.
    if "digest" in arrays and str(arrays["digest"]) != content_digest(sample, basis):
        raise InputError("molecule or labels have changed since they were written: the file is damaged")
    return sample


def content_digest(sample: Sample, basis: BasisSet) -> str:
    """Return the digest of molecule and labels that a store has of a sample, hexadecimal."""
    return to_columns(sample, basis)["digest"].tobytes().hex()


def _sample_from(arrays: Mapping[str, Any], basis: BasisSet) -> Sample:
    """Return a sample that is not compared with its digest."""
    try:
        names = set(json.loads(str(arrays["labels"])))
        molecule = Molecule(
            np.asarray(arrays["numbers"]),
            np.asarray(arrays["positions"]),
            charge=int(arrays["charge"]),
            spin=int(arrays["spin"]),
        )
        shells = basis.shells(molecule.numbers)
        found = {name: np.asarray(arrays[name]) for name in names}
        fock = to_house(np.asarray(arrays["fock"]), shells, "pyscf")
        provenance = json.loads(str(arrays["provenance"]))
        id = str(arrays["id"])
    except KeyError as error:
        raise InputError(f"{error.args[0]!r} is missing: not written by 'helmol convert'?") from error
    matrices = {
        name: to_house(matrix, shells, "pyscf")
        for name, matrix in found.items()
        if name in ("overlap", "density") or name.startswith(REFERENCE)
    }
    return Sample(
        id=id,
        molecule=molecule,
        matrices=Matrices(
            fock,
            matrices.get("overlap"),
            {n.removeprefix(REFERENCE): m for n, m in matrices.items() if n.startswith(REFERENCE)},
            matrices.get("density"),
        ),
        energy=float(found["energy"]) if "energy" in found else None,
        forces=found.get("forces"),
        dipole=found.get("dipole_au"),
        provenance=provenance,
    )


def derived_arrays(sample: Sample, basis: BasisSet, level: LevelConfig) -> dict[str, Array]:
    """Return what follows from the Fock matrix, with the keys, order and units of ``helmol predict``.

    ``overlap density mo_energy mo_coeff mo_occ charges`` and ``dipole`` (Debye).
    """
    molecule = sample.molecule
    mole = dft.build_mole(molecule, level)
    overlap = dft.overlap(mole) if sample.matrices.overlap is None else sample.matrices.overlap
    state = properties.electronic_state(
        sample.matrices.fock, overlap, molecule, basis, density_matrix=sample.matrices.density
    )
    dipole = state.dipole(dft.dipole_integrals(mole)) if sample.dipole is None else sample.dipole
    return {**state.arrays("pyscf"), "dipole": DEBYE_PER_AU * dipole}
