"""MD17 Hamiltonians (the SchNOrb release): an ASE database, PBE/def2-SVP, ORCA's order.

Source: Schütt et al., Nat. Commun. 10, 5024 (2019). Both encodings of a row are read without ASE:
JSON text with base64 strings and their ``_shape_x``, ``_dtype_x``, and ASE's later blobs (arrays
first, then JSON that points to them, the first eight bytes say where it begins).

The release leaves open whether energies are relative to a mean and what unit the forces have, so a
sample carries both as they stand; :mod:`helmol.exchange` decides by a calculation.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from helmol.arrays import Array
from helmol.damage import DAMAGE, one_line
from helmol.errors import InputError
from helmol.exchange.readers import official
from helmol.exchange.readers.arrangement import Arrangement
from helmol.exchange.readers.entry import Entry, Reader, Source, symmetric
from helmol.exchange.readers.sqlite import Database, array, atomic_numbers
from helmol.system import Matrices, Molecule, Sample

SOURCE = Source(
    name="md17",
    xc="pbe",
    basis="def2-svp",
    conv_tol=1e-8,
    code="orca (SchNOrb release)",
    order="orca",
    overlap_tolerance=1e-4,
    fock_tolerance=1e-2,
)

_SHIFTS = ("mean_energy", "energy_offset")


class Md17Reader(Reader):
    """Read ``systems`` and ``information`` of an ASE database."""

    schemes = ("official",)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._database = Database(
            path, {"systems": ("id", "numbers", "positions", "data"), "information": ("name", "value")}
        )

    @property
    def source(self) -> Source:
        return SOURCE

    def _id(self, key: int) -> str:
        return f"{self.stem}-{key:05d}"

    def rows(self) -> Iterator[tuple[int | str, tuple[Any, ...]]]:
        # Not `natoms`: it stands behind the matrices, SQLite would read through them to find it.
        for key, numbers in self._database.rows("SELECT id, numbers FROM systems ORDER BY id"):
            yield int(key), (numbers,)

    def name(self, key: int | str) -> str:
        return self._id(int(key))

    def entry(self, key: int | str, *cells: Any) -> Entry:
        return Entry(self.name(key), key, atomic_numbers(cells[0], f"{self.path}, row {key}: numbers"))

    def read(self, entry: Entry, arrangement: Arrangement) -> Sample | None:
        what, n = f"{self.path}, row {entry.key}", len(entry.numbers)
        query = "SELECT positions, data FROM systems WHERE id = ?"
        positions, cell = self._database.one(query, (entry.key,)) or (None, None)
        data = _decode(cell, what)
        fock, overlap = (
            arrangement.to_house(symmetric(_matrix(data, name, what), f"{what}: {name}"), entry.numbers)
            for name in ("hamiltonian", "overlap")
        )
        energy, forces = _array(data, "energy", what), _array(data, "forces", what)
        return Sample(
            id=entry.id,
            molecule=Molecule.from_angstrom(
                entry.numbers, array(positions, "<f8", (n, 3), f"{what}: positions")
            ),
            matrices=Matrices(fock, overlap),
            energy=None if energy is None else _shaped(energy, (), f"{what}: energy").item(),
            forces=None if forces is None else _shaped(forces, (n, 3), f"{what}: forces"),
            provenance={"source": self.file_name, "row": entry.key},
        )

    def energy_shifts(self) -> Mapping[str, float]:
        row = self._database.one("SELECT value FROM information WHERE name = 'metadata'")
        found = {}
        try:
            metadata = json.loads(row[0]) if row and row[0] else {}
            for name in _SHIFTS:
                value = _plain(metadata.get(name))
                if value.size == 1:
                    found[name] = float(value.ravel()[0])
        except DAMAGE as error:
            raise InputError(
                f"{self.path}: 'metadata' in table 'information' is damaged: {one_line(error)}"
            ) from error
        sums = {"as stored": 0.0, **found, **{f"-{name}": -value for name, value in found.items()}}
        if len(found) == len(_SHIFTS):
            sums[" + ".join(_SHIFTS)] = sum(found.values())
        return sums

    def splits(self, scheme: str, ids: Sequence[str]) -> dict[str, list[str]]:
        keys = [int(key) for (key,) in self._database.rows("SELECT id FROM systems ORDER BY id")]
        return official.by_id(official.md17(len(keys)), [self._id(key) for key in keys])

    def close(self) -> None:
        self._database.close()


def _decode(cell: Any, what: str) -> dict[str, Any]:
    """Return the ``data`` dictionary of a row, from text or from ASE's blob."""
    try:
        if isinstance(cell, str):
            data = json.loads(cell)
        else:
            (start,) = struct.unpack_from("<q", cell)
            data = {k: _from_blob(v, cell) for k, v in json.loads(bytes(cell[start:]).decode()).items()}
    except DAMAGE as error:
        raise InputError(f"{what}: data cannot be decoded, the row is damaged: {one_line(error)}") from error
    if not isinstance(data, dict):
        raise InputError(f"{what}: data holds a {type(data).__name__}, expected names and arrays")
    return data


def _from_blob(value: Any, cell: bytes) -> Any:
    """Return an array that stands elsewhere in the blob, or the value itself."""
    if isinstance(value, dict) and "__ndarray__" in value:
        shape, name, offset = value["__ndarray__"]
        count = int(np.prod(shape))
        return np.frombuffer(cell, np.dtype(name).newbyteorder("<"), count, offset).reshape(shape)
    return value


def _plain(value: Any) -> npt.NDArray[Any]:
    """Return numbers from JSON, ASE's ``__ndarray__`` of lists included; empty if there are none."""
    if isinstance(value, dict) and "__ndarray__" in value:
        value = value["__ndarray__"][2]
    return np.zeros(0) if value is None else np.asarray(value, dtype=np.float64)


def _array(data: dict[str, Any], name: str, what: str) -> npt.NDArray[Any] | None:
    """Return one array of a row, ``None`` if it is not there."""
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        return _plain(value) if isinstance(value, (dict, list, float, int)) else np.asarray(value)
    try:
        dtype, shape = np.dtype(data[f"_dtype_{name}"]).newbyteorder("<"), data[f"_shape_{name}"]
        return np.frombuffer(base64.b64decode(value, validate=True), dtype).reshape(shape)
    except DAMAGE as error:
        raise InputError(
            f"{what}: {name} cannot be decoded, it is truncated or damaged: {one_line(error)}"
        ) from error


def _shaped(values: npt.NDArray[Any], shape: tuple[int, ...], what: str) -> Array:
    """Return numbers in float64 and a shape; a release that keeps an axis of one too many is right, too."""
    if values.size != np.prod(shape, dtype=int):
        raise InputError(f"{what} has shape {values.shape}, expected {shape or (1,)}")
    return values.astype(np.float64).reshape(shape)


def _matrix(data: dict[str, Any], name: str, what: str) -> Array:
    value = _array(data, name, what)
    if value is None:
        have = ", ".join(k for k, v in data.items() if not k.startswith("_") and v is not None) or "nothing"
        raise InputError(f"{what}: it has no {name} (it has {have})")
    return value.astype(np.float64)
