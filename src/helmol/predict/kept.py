"""Where the arrays of every molecule are kept: a ``.npz`` each, or one HDF5 file."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from helmol import properties
from helmol.damage import DAMAGE, one_line, read_npz, understood
from helmol.errors import InputError
from helmol.files import entries, replacing
from helmol.places import PathLike
from helmol.predict.prediction import Prediction, write_npz
from helmol.store.columns import pack_triangle, unpack_triangle
from helmol.store.hdf import VERSION
from helmol.store.journal import Lock, TransactionFile, journal_path
from helmol.store.packed import locked

ONE_FILE = "predictions.h5"
"""Name of the file with the arrays of all molecules."""

FORMAT = "helmol predictions 1"
TRIANGLES = ("fock", "overlap")
"""Symmetric matrices, of which one file keeps the upper triangle, row after row (``NAME_triangle``)."""

LARGE = ("fock", "overlap", "density", "mo_coeff")
"""Arrays that grow with the square of the molecule."""

Values = npt.NDArray[Any]


class Kept(ABC):
    """Write and read arrays by the name of a molecule; a context manager.

    Args:
        out: folder of the results, which is held.
        model: fingerprint of the model.
        compress: whether to compress.
    """

    def __init__(self, out: Path, *, model: str, compress: bool) -> None:
        self._out, self._model, self._compress = out, model, compress

    @abstractmethod
    def names(self) -> set[str]:
        """Return the names of all molecules that are there."""

    @abstractmethod
    def read(self, name: str) -> dict[str, Values] | None:
        """Return all arrays of a molecule, every byte checked; ``None`` if it is not there.

        Raises:
            InputError: what is there is damaged or no result of a prediction; it is left alone.
        """

    @abstractmethod
    def write(self, name: str, arrays: Mapping[str, Values]) -> None:
        """Write the arrays of a molecule, in the place of any that are there."""

    @abstractmethod
    def file(self, name: str) -> str:
        """Return where the arrays of a molecule are, as a table says it."""

    @abstractmethod
    def commit(self) -> None:
        """Make everything permanent that was written."""

    def __enter__(self) -> Kept:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class NpzFolder(Kept):
    """One ``NAME.npz`` for every molecule, each permanent when it is written."""

    def names(self) -> set[str]:
        """Return the stems of all ``.npz`` files."""
        return {path.stem for path in entries(self._out) if path.suffix == ".npz"}

    def read(self, name: str) -> dict[str, Values] | None:
        """Read a file."""
        file = self._out / self.file(name)
        if not file.is_file():
            return None
        try:
            data = read_npz(file)
        except InputError as error:
            raise InputError(f"{file} {NO_RESULT} ({error})") from error
        if "model" not in data:
            raise InputError(f"{file} {NO_RESULT}")
        return data

    def write(self, name: str, arrays: Mapping[str, Values]) -> None:
        """Write a file."""
        write_npz(self._out / self.file(name), arrays, compress=self._compress)

    def file(self, name: str) -> str:
        """Return the name of the file."""
        return f"{name}.npz"

    def commit(self) -> None:
        """Do nothing: a file is permanent when it has its name."""


NO_RESULT = "is no result of 'helmol predict': choose another --out, or --overwrite it"


class OneFile(Kept):
    """A group for every molecule in one file, permanent at every :meth:`commit`.

    Arrays are datasets with checksums, numbers and texts attributes of the group.

    Raises:
        InputError: the file that is there is damaged, no result of a prediction, or of another model.
    """

    def __init__(self, out: Path, *, model: str, compress: bool, overwrite: bool = False) -> None:
        super().__init__(out, model=model, compress=compress)
        self.path = out / ONE_FILE
        if overwrite:
            for path in (self.path, journal_path(self.path)):
                path.unlink(missing_ok=True)
        if not self.path.exists():
            with replacing(self.path) as temporary, h5py.File(temporary, "w", libver=VERSION) as file:
                file.attrs["format"], file.attrs["model"] = FORMAT, model
        self._lock = locked(self.path, "a")
        try:
            self._check()
            self._connect()
        except BaseException:
            self._lock.close()
            raise

    def _check(self) -> None:
        """Refuse a file that is not to be changed."""
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                kind, model = str(file.attrs.get("format")), str(file.attrs.get("model"))
        except (OSError, *DAMAGE) as error:
            raise InputError(f"{self.path} {NO_RESULT} ({one_line(error)})") from error
        if kind != FORMAT:
            raise InputError(f"{self.path} {NO_RESULT}")
        if model != self._model:
            raise InputError(
                f"{self.path} holds predictions of another model: choose another --out, or --overwrite it"
            )

    def _connect(self) -> None:
        self._transaction = TransactionFile(self.path, self._lock)
        self._file = h5py.File(self._transaction, "r+", libver=VERSION, rdcc_nbytes=0)
        self._n_committed = len(self._file)

    def names(self) -> set[str]:
        """Return the names of all groups."""
        return set(self._file)

    def read(self, name: str) -> dict[str, Values] | None:
        """Read a group."""
        return read_group(self._file, name, self.path) if name in self._file else None

    def write(self, name: str, arrays: Mapping[str, Values]) -> None:
        """Write a group; matrices that others make are left out."""
        if name in self._file:
            del self._file[name]
        write_group(self._file.create_group(name), arrays, compress=self._compress)

    def commit(self) -> None:
        """Write all of it, or on an error nothing since the last commit."""
        try:
            self._file.flush()
            self._transaction.commit()
            self._n_committed = len(self._file)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Forget what was written since the last commit."""
        self._transaction.abandon()
        self._file.close()

    def file(self, name: str) -> str:
        """Return the name of file and group."""
        return f"{ONE_FILE}/{name}"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; after an error without what was not committed, and none without anything in it."""
        if self._file:
            if kind is None:
                self._transaction.freeze()
            else:
                self._transaction.abandon()
            self._file.close()
        if not self._n_committed:
            self.path.unlink(missing_ok=True)
        self._lock.close()


def write_group(group: h5py.Group, arrays: Mapping[str, Values], *, compress: bool) -> None:
    """Write arrays into an empty group.

    The density is left out, which is that of the orbitals, and of :data:`TRIANGLES` one half.
    """
    filters: dict[str, Any] = {"fletcher32": True}
    if compress:
        filters |= {"compression": "gzip", "compression_opts": 1, "shuffle": True}
    for name, values in arrays.items():
        if name == "density" and "mo_coeff" in arrays:
            continue
        if values.ndim == 0:
            group.attrs[name] = str(values) if values.dtype.kind == "U" else values
        elif values.dtype.kind == "U":
            group.attrs[name] = json.dumps(values.tolist())
        elif name in TRIANGLES:
            packed = pack_triangle(values)
            group.create_dataset(f"{name}_triangle", data=packed, chunks=packed.shape, **filters)
        else:
            group.create_dataset(name, data=values, chunks=values.shape, **filters)


def read_group(file: h5py.File, name: str, path: Path) -> dict[str, Values]:
    """Return the arrays that :func:`write_group` wrote, the density too.

    Raises:
        InputError: damage.
    """
    with understood(f"{path}, {name}"):
        group = file[name]
        found = {key: np.array(value) for key, value in group.attrs.items()}
        largest = file.id.get_filesize()
        for key, data in group.items():
            if data.compression is None and data.size * data.dtype.itemsize > largest:
                raise InputError(f"{path}, {name}: {key} claims more bytes than the file has: damaged")
            found[key] = data[()]
        for key in {"flags", "new_pairs", "properties"} & {*found}:
            found[key] = np.array(json.loads(str(found[key])), dtype=np.str_)
        for key in TRIANGLES:
            if f"{key}_triangle" in found:
                found[key] = unpack_triangle(found.pop(f"{key}_triangle"), found["mo_coeff"].shape[-2])
        if "mo_coeff" in found:
            found["density"] = properties.density(found["mo_coeff"], found["mo_occ"])
        return found


class PredictionFile(Mapping[str, Prediction]):
    """Read the predictions in a ``predictions.h5`` by name, one at a time; a context manager.

    ``list(file)`` are the names, ``file[name]`` is a :class:`Prediction`, ``file.arrays(name)`` all arrays of
    a molecule, those of its properties too.

    Args:
        path: the file, or the folder it is in.

    Raises:
        InputError: no such file, or another one.
        StoreError: another process writes it.
    """

    def __init__(self, path: PathLike) -> None:
        path = Path(path)
        self.path = path / ONE_FILE if path.is_dir() else path
        if not self.path.is_file():
            raise InputError(f"there is no {self.path}: 'helmol predict --one-file' makes one")
        self._lock: Lock = locked(self.path, "r")
        try:
            with understood(str(self.path)):
                self._file = h5py.File(self.path, "r", locking=False)
                if str(self._file.attrs.get("format")) != FORMAT:
                    raise InputError(f"{self.path} is no file of 'helmol predict --one-file'")
                self._names = list(self._file)
        except BaseException:
            self._lock.close()
            raise

    def __repr__(self) -> str:
        return f"PredictionFile({str(self.path)!r}, {len(self)} molecules)"

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __getitem__(self, name: str) -> Prediction:
        arrays = self.arrays(name)
        if "mo_coeff" not in arrays:
            raise InputError(f"{self.path} was made with --no-matrices: use arrays({name!r})")
        where = f"{self.path}, {name}"
        return Prediction.from_arrays(arrays, id=str(arrays.get("id", name)), where=where)

    def arrays(self, name: str) -> dict[str, Values]:
        """Return all arrays of a molecule, PySCF order, atomic units (dipole in Debye).

        Raises:
            KeyError: no such molecule.
            InputError: damage.
        """
        if name not in self._file:
            raise KeyError(name)
        return read_group(self._file, name, self.path)

    def close(self) -> None:
        """Close the file; twice is harmless."""
        self._file.close()
        self._lock.close()

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def without_large(arrays: Mapping[str, Values], more: Collection[str] = ()) -> dict[str, Values]:
    """Return arrays without :data:`LARGE` and some others."""
    return {name: values for name, values in arrays.items() if name not in LARGE and name not in more}


def opened(out: Path, *, one_file: bool, model: str, compress: bool, overwrite: bool) -> Kept:
    """Return where the arrays of molecules are kept.

    Raises:
        HelmolError: what is there must not be changed.
    """
    if one_file:
        return OneFile(out, model=model, compress=compress, overwrite=overwrite)
    return NpzFolder(out, model=model, compress=compress)
