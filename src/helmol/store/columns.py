"""The columns of a store: what a sample becomes on disk, and back, to the last bit.

Every column is ragged: the flat ``values`` of all samples, one after another, and an ``index`` of
``(end, crc32)`` per sample. A missing label has length zero; nothing is ever padded or guessed.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from helmol.arrays import Array
from helmol.basis import BasisSet
from helmol.errors import InputError, StoreError
from helmol.files import plain
from helmol.system import Matrices, Molecule, Sample

Values = npt.NDArray[Any]

REFERENCE = "reference_"
"""Prefix of the columns of cheap Fock matrices: ``reference_minao``."""

DTYPES: dict[str, str] = {
    "id": "<u1",
    "numbers": "<i2",
    "positions": "<f8",
    "charge": "<i8",
    "spin": "<i8",
    "energy": "<f8",
    "forces": "<f8",
    "dipole": "<f8",
    "provenance": "<u1",
    "digest": "<u1",
    "fock": "<f8",
    "overlap": "<f8",
    "density": "<f8",
}
"""Type of every column; units are atomic. Matrices are packed upper triangles, row after row
(``numpy.triu_indices``), alpha before beta where there are two."""

IN_MEMORY = ("id", "numbers", "positions", "charge", "spin", "energy", "dipole", "provenance", "digest")
"""Columns small enough to be kept in memory while a store is open."""

MOLECULE = ("numbers", "positions", "charge", "spin")
"""Columns that make a molecule."""

_NOT_CONTENT = ("provenance", "digest")


@lru_cache(maxsize=64)
def dtype(column: str) -> np.dtype[Any]:
    """Return the type of a column's values."""
    return np.dtype(DTYPES["fock"] if column.startswith(REFERENCE) else DTYPES[column])


def pack_triangle(matrix: Array) -> Array:
    """Return the upper triangle of ``[nao, nao]`` or ``[2, nao, nao]`` as a flat array."""
    rows, columns = _upper(matrix.shape[-1])
    return np.ascontiguousarray(matrix[..., rows, columns]).ravel()


@lru_cache(maxsize=16)
def _upper(nao: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return rows and columns of an upper triangle; finding them takes longer than reading it."""
    rows, columns = np.triu_indices(nao)
    return rows, columns


@lru_cache(maxsize=64)
def _square_index(nao: int) -> npt.NDArray[np.intp]:
    """Return where each element of a small square matrix stands in its packed triangle."""
    index = np.zeros((nao, nao), dtype=np.intp)
    index[np.triu_indices(nao)] = np.arange(nao * (nao + 1) // 2)
    return np.maximum(index, index.T)


def unpack_triangle(values: Array, nao: int) -> Array:
    """Return the symmetric matrix, or the two of an unrestricted sample, of packed triangles.

    Raises:
        StoreError: the number of values fits neither.
    """
    size = nao * (nao + 1) // 2
    if len(values) not in (size, 2 * size):
        raise StoreError(f"{len(values)} packed values fit no matrix of {nao} atomic orbitals")
    if nao <= 64:
        index = _square_index(nao)
        if len(values) == size:
            return values[index]
        return values.reshape(2, size)[:, index]
    matrix = np.empty((len(values) // size, nao, nao))
    start = 0
    for square in matrix:
        for row in range(nao):
            part = values[start : start + nao - row]
            square[row, row:] = part
            square[row:, row] = part
            start += nao - row
    return matrix[0] if len(matrix) == 1 else matrix


def to_columns(sample: Sample, basis: BasisSet) -> dict[str, Values]:
    """Return the values of every column a sample has.

    Raises:
        StoreError: a matrix is not symmetric or not finite, does not fit the basis, or a label has
            the wrong shape.
    """
    _check(sample, basis)
    molecule, matrices = sample.molecule, sample.matrices
    columns: dict[str, Values] = {
        "id": _bytes(sample.id),
        "numbers": molecule.numbers.astype(dtype("numbers")),
        "positions": molecule.positions.ravel(),
        "charge": np.array([molecule.charge], dtype=np.int64),
        "spin": np.array([molecule.spin], dtype=np.int64),
        "fock": pack_triangle(matrices.fock),
    }
    if sample.energy is not None:
        columns["energy"] = np.array([sample.energy], dtype=np.float64)
    for name, label in (("forces", sample.forces), ("dipole", sample.dipole)):
        if label is not None:
            columns[name] = np.asarray(label, dtype=np.float64).ravel()
    for name, matrix in _optional_matrices(matrices).items():
        columns[name] = pack_triangle(matrix)
    try:
        text = json.dumps(plain(dict(sample.provenance)), sort_keys=True) if sample.provenance else ""
    except TypeError as error:
        raise StoreError(f"sample {sample.id!r}: provenance cannot be written as JSON: {error}") from error
    columns["provenance"] = _bytes(text)
    columns["digest"] = np.frombuffer(digest(columns), dtype=np.uint8)
    return columns


def from_columns(columns: Mapping[str, Values], basis: BasisSet) -> Sample:
    """Rebuild a sample; the inverse of :func:`to_columns`."""
    nao = int(basis.offsets(columns["numbers"].astype(np.int64))[-1])
    matrices = {
        name: unpack_triangle(values, nao)
        for name, values in columns.items()
        if len(values) and (name in ("fock", "overlap", "density") or name.startswith(REFERENCE))
    }
    none = np.zeros(0)
    energy, forces, dipole = (columns.get(name, none) for name in ("energy", "forces", "dipole"))
    if "fock" not in matrices and not len(energy):
        raise StoreError("neither a Fock matrix nor an energy")
    provenance = columns["provenance"].tobytes()
    return Sample(
        id=columns["id"].tobytes().decode(),
        molecule=to_molecule(columns),
        matrices=Matrices(
            fock=matrices.get("fock", np.empty((0, 0))),
            overlap=matrices.get("overlap"),
            references={n.removeprefix(REFERENCE): m for n, m in matrices.items() if n.startswith(REFERENCE)},
            density=matrices.get("density"),
        ),
        energy=float(energy[0]) if len(energy) else None,
        forces=np.asarray(forces).reshape(-1, 3) if len(forces) else None,
        dipole=np.asarray(dipole) if len(dipole) else None,
        provenance=json.loads(provenance) if provenance else {},
    )


def to_molecule(columns: Mapping[str, Values]) -> Molecule:
    """Rebuild the molecule from the columns of ``MOLECULE``."""
    return Molecule(
        columns["numbers"].astype(np.int64),
        columns["positions"].reshape(-1, 3),
        charge=int(columns["charge"][0]),
        spin=int(columns["spin"][0]),
    )


def digest(columns: Mapping[str, Values]) -> bytes:
    """Return the SHA-256 of all a model may learn from: molecule and labels, not the provenance."""
    total = hashlib.sha256()
    for name in sorted(columns):
        if name not in _NOT_CONTENT and len(columns[name]):
            data = columns[name].astype(dtype(name), copy=False).tobytes()
            total.update(f"{name}:{len(data)}:".encode())
            total.update(data)
    return total.digest()


def crc32(values: Values) -> int:
    """Return the checksum kept beside every entry."""
    return zlib.crc32(values.data) if len(values) else 0


def _bytes(text: str) -> npt.NDArray[np.uint8]:
    """Return text in UTF-8.

    Raises:
        StoreError: it is none, such as the name of a file that was written in another encoding.
    """
    try:
        return np.frombuffer(text.encode(), dtype=np.uint8)
    except UnicodeEncodeError as error:
        raise StoreError(f"{text[:100]!a} cannot be stored as text: rename it") from error


def _optional_matrices(matrices: Matrices) -> dict[str, Array]:
    """Return the matrices beside ``fock`` by column name."""
    found = {f"{REFERENCE}{name}": matrix for name, matrix in matrices.references.items()}
    if matrices.overlap is not None:
        found["overlap"] = matrices.overlap
    if matrices.density is not None:
        found["density"] = matrices.density
    return found


def _check(sample: Sample, basis: BasisSet) -> None:
    """Raise if a sample must not enter a store of this basis."""
    what = f"sample {sample.id!r}"
    if not sample.id:
        raise StoreError("a sample needs an id that is not empty")
    try:
        nao = int(basis.offsets(sample.molecule.numbers)[-1])
    except InputError as error:
        raise StoreError(f"{what}: {error}; extend the store's basis first") from error
    if not sample.matrices.fock.size and sample.energy is None:
        raise StoreError(f"{what}: neither a Fock matrix nor an energy")
    if sample.matrices.fock.size and nao != sample.matrices.nao:
        raise StoreError(f"{what}: fock has {sample.matrices.nao} orbitals, the store's basis gives {nao}")
    for name, matrix in {"fock": sample.matrices.fock, **_optional_matrices(sample.matrices)}.items():
        if matrix.dtype != np.float64:
            raise StoreError(f"{what}: {name} is {matrix.dtype}, expected float64")
        if not np.isfinite(matrix).all():
            raise StoreError(f"{what}: {name} holds values that are not finite")
        if not np.array_equal(matrix, matrix.swapaxes(-1, -2)):
            largest = np.abs(matrix - matrix.swapaxes(-1, -2)).max()
            raise StoreError(
                f"{what}: {name} is not symmetric (largest difference {largest:.1e}, expected exactly 0)"
            )
    expected = {"energy": (), "forces": (sample.molecule.n_atoms, 3), "dipole": (3,)}
    for name, shape in expected.items():
        label = getattr(sample, name)
        if label is not None and np.shape(label) != shape:
            raise StoreError(f"{what}: {name} has shape {np.shape(label)}, expected {shape}")
        if label is not None and not np.isfinite(label).all():
            raise StoreError(f"{what}: {name} holds values that are not finite")
