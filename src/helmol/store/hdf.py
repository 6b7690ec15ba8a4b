"""Columns and blobs in an HDF5 file: the only code that knows HDF5's paths and chunk sizes."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from helmol.arrays import IntArray
from helmol.damage import DAMAGE, one_line
from helmol.errors import HelmolError, StoreError
from helmol.store import columns as col

VERSION = ("v108", "v108")
"""HDF5 format: superblock and object headers with checksums, without the flag of later versions
that keeps a file closed after its writer was killed."""

_CHUNK_BYTES = 1 << 18
_SMALL_CHUNK_BYTES = 1 << 14
INDEX_BYTES = 16
"""Bytes of a row of an index: two numbers of 8."""

CHECKSUM = "checksum"
"""Attribute of an index: the number of its rows and their CRC-32. Stores that helmol 0.1 made lack it until
the next append; where that version has appended since, it is of the rows of before."""

Values = npt.NDArray[Any]


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Turn whatever HDF5 or a parser says about a damaged file into one clear line.

    Raises:
        StoreError: naming the store, the sample if any, and what to do.
    """
    where = f"store {path}" + (f", {what}" if what else "")
    try:
        yield
    except StoreError as error:
        text = str(error)
        raise (error if text.startswith("store ") else StoreError(f"{where}: {text}")) from error
    except (OSError, HelmolError, *DAMAGE) as error:
        raise StoreError(
            f"{where} cannot be read, it is damaged or no helmol store: {one_line(error)}"
        ) from error


class Growing:
    """Keep an array that grows at its first axis at amortised constant cost."""

    def __init__(self, start: Values) -> None:
        self._buffer, self._n = start, len(start)

    def extend(self, values: Values) -> None:
        """Add rows."""
        end = self._n + len(values)
        if end > len(self._buffer):
            buffer = np.empty((max(end, 2 * self._n, 16), *self._buffer.shape[1:]), self._buffer.dtype)
            buffer[: self._n] = self._buffer[: self._n]
            self._buffer = buffer
        self._buffer[self._n : end] = values
        self._n = end

    @property
    def array(self) -> Values:
        """The rows so far (a view)."""
        return self._buffer[: self._n]


class Column:
    """Read and append one ragged column; its index, and small values, are held in memory.

    Raises:
        StoreError: the index cannot be right.
    """

    def __init__(self, file: h5py.File, name: str, n_samples: int, *, fd: int) -> None:
        group = file[f"columns/{name}"]
        self.name, self._values, self._index_set = name, group["values"], group["index"]
        # Nothing is compressed: what is there is no larger than the file, whatever a shape says.
        largest = file.id.get_filesize()
        if not 0 <= n_samples * INDEX_BYTES <= largest:
            raise StoreError(f"{n_samples} samples in a file of {largest} bytes: the file is damaged")
        index = self._index_set[:n_samples]
        ends = index[:, 0] if index.ndim == 2 else index
        if index.shape != (n_samples, 2) or (np.diff(ends, prepend=0) < 0).any():
            raise StoreError(f"the index of column {name!r} is damaged")
        self._checksum = self._checked_index(index)
        self._end = int(ends[-1]) if n_samples else 0
        if (
            self._values.shape[0] < self._end
            or self._values.dtype != col.dtype(name)
            or self._end * self._values.dtype.itemsize > largest
        ):
            raise StoreError(f"column {name!r} has {self._values.shape[0]} values, expected {self._end}")
        self._index = Growing(index)
        self._memory = Growing(self._values[: self._end]) if name in col.IN_MEMORY else None
        self._fd, self._chunk = fd, self._values.chunks[0]
        self._address: dict[int, int] = {}

    def _checked_index(self, index: Values) -> int:
        """Return the CRC-32 of the whole index, and compare that of the rows it was written of.

        Without this a row of zeros, which is what HDF5 returns for a chunk that it cannot find, would read as
        a label that is missing.
        """
        rows = np.ascontiguousarray(index)
        if CHECKSUM not in self._index_set.attrs:
            return zlib.crc32(rows.data) if len(rows) else 0
        n, wanted = (int(number) for number in self._index_set.attrs[CHECKSUM])
        found = zlib.crc32(rows[:n].data) if n and len(rows) else 0
        if n > len(rows) or found != wanted:
            raise StoreError(f"the index of column {self.name!r} does not match its checksum: damaged")
        return zlib.crc32(rows[n:].data, found) if n < len(rows) else found

    @property
    def lengths(self) -> IntArray:
        """Number of values of each sample; zero where the label is missing."""
        return np.diff(self._index.array[:, 0], prepend=0).astype(np.int64)

    def entry(self, row: int) -> Values:
        """Return the values of one sample, not checked."""
        index = self._index.array
        start, end = int(index[row - 1, 0]) if row else 0, int(index[row, 0])
        if self._memory is not None:
            return self._memory.array[start:end].copy()
        values = np.empty(end - start, dtype=col.dtype(self.name))
        self._read_range(values, start)
        return values

    def _read_range(self, into: Values, start: int) -> None:
        """Fill an array with the values from ``start`` on, chunk by chunk."""
        position, end = start, start + len(into)
        while position < end:
            stop = min(end, (position // self._chunk + 1) * self._chunk)
            self._read(into[position - start : stop - start], position)
            position = stop

    def _read(self, into: Values, position: int) -> None:
        """Read values of one chunk from its place in the file.

        Chunks are not compressed and never move, so HDF5 is asked once where each one stands; a
        small read past it takes 2 µs instead of 30 µs.
        """
        number, within = divmod(position, self._chunk)
        address = self._address.get(number)
        if address is None:
            info = self._values.id.get_chunk_info_by_coord((number * self._chunk,))
            if info.byte_offset is None or info.filter_mask or info.size != self._chunk * into.itemsize:
                raise StoreError(f"column {self.name!r} has no chunk {number}: the file is damaged")
            address = self._address[number] = int(info.byte_offset)
        if os.preadv(self._fd, [into.data], address + within * into.itemsize) != into.nbytes:
            raise StoreError(f"column {self.name!r} ends too early: the file is damaged")

    def checked(self, row: int) -> Values:
        """Return the values of one sample.

        Raises:
            StoreError: they do not match their checksum.
        """
        values = self.entry(row)
        if col.crc32(values) != self._index.array[row, 1]:
            raise StoreError(f"{self.name} does not match its checksum: the file is damaged here")
        return values

    def block(self, rows: Sequence[int]) -> Values:
        """Return the values of samples that have equally many, ``[n, size]``, all checked.

        Rows that stand one after the other are read together.

        Raises:
            StoreError: a checksum does not match, or the numbers of values differ.
        """
        index, chosen = self._index.array, np.asarray(rows, dtype=np.int64)
        ends = index[chosen, 0]
        starts = np.where(chosen > 0, index[chosen - 1, 0], 0)
        size = int(ends[0] - starts[0])
        if ((ends - starts) != size).any():
            raise StoreError(f"samples of different size in {self.name!r} cannot be read together")
        if self._memory is not None:
            values = self._memory.array[starts[:, None] + np.arange(size)]
        else:
            values = np.empty((len(chosen), size), dtype=col.dtype(self.name))
            breaks = np.flatnonzero(np.diff(starts) != size) + 1
            flat = values.reshape(-1)
            for first, last in pairwise([0, *breaks.tolist(), len(chosen)]):
                self._read_range(flat[first * size : last * size], int(starts[first]))
        if size:
            data, nbytes = memoryview(values.data).cast("B"), values[0].nbytes
            for k, wanted in enumerate(index[chosen, 1].tolist()):
                if zlib.crc32(data[k * nbytes : (k + 1) * nbytes]) != wanted:
                    raise StoreError(f"{self.name} of row {rows[k]} does not match its checksum: damaged")
        return values

    def append(self, entries: Sequence[Values]) -> None:
        """Write new entries behind the last one; the caller makes it a transaction."""
        flat = np.concatenate(entries)
        index = np.empty((len(entries), 2), dtype=np.int64)
        index[:, 0] = self._end + np.cumsum([len(entry) for entry in entries])
        index[:, 1] = [col.crc32(entry) for entry in entries]
        n = len(self._index.array)
        self._index_set.resize(n + len(entries), axis=0)
        self._index_set[n:] = index
        self._checksum = zlib.crc32(index.data, self._checksum)
        _set_checksum(self._index_set, n + len(entries), self._checksum)
        if len(flat):
            self._values.resize(self._end + len(flat), axis=0)
            self._values[self._end :] = flat
        if self._memory is not None:
            self._memory.extend(flat)
        self._index.extend(index)
        self._end += len(flat)


def create_column(file: h5py.File, name: str, n_samples: int) -> None:
    """Make a column in which the samples so far have nothing."""
    kind = col.dtype(name)
    size = _SMALL_CHUNK_BYTES if name in col.IN_MEMORY else _CHUNK_BYTES
    values = {"shape": (0,), "maxshape": (None,), "chunks": (size // kind.itemsize,), "dtype": kind}
    file.create_dataset(f"columns/{name}/values", fillvalue=None, **values)
    index = {"maxshape": (None, 2), "chunks": (_SMALL_CHUNK_BYTES // INDEX_BYTES, 2)}
    rows = np.zeros((n_samples, 2), dtype="<i8")
    made = file.create_dataset(f"columns/{name}/index", data=rows, **index)
    _set_checksum(made, n_samples, zlib.crc32(rows.data) if n_samples else 0)


def _set_checksum(index: h5py.Dataset, n: int, checksum: int) -> None:
    """Write the checksum of an index."""
    index.attrs.modify(CHECKSUM, np.array([n, checksum], dtype="<i8"))


def write_blob(file: h5py.File, name: str, data: bytes) -> None:
    """Write or replace a piece of text with its checksum."""
    if name not in file:
        file.create_dataset(name, shape=(0,), maxshape=(None,), chunks=(_SMALL_CHUNK_BYTES,), dtype="<u1")
    file[name].resize(len(data), axis=0)
    file[name][:] = np.frombuffer(data, dtype=np.uint8)
    file[name].attrs["crc32"] = zlib.crc32(data)


def read_blob(file: h5py.File, name: str) -> bytes:
    """Return a piece of text.

    Raises:
        StoreError: it does not match its checksum.
    """
    if file[name].size > file.id.get_filesize():
        raise StoreError(f"{name} claims {file[name].size} bytes: the file is damaged here")
    data = bytes(file[name][:].tobytes())
    if zlib.crc32(data) != int(file[name].attrs["crc32"]):
        raise StoreError(f"{name} does not match its checksum: the file is damaged here")
    return data
