"""The store: one packed HDF5 file of samples of one level of theory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt

import helmol
from helmol.arrays import Array, BoolArray, IntArray
from helmol.basis import BasisSet
from helmol.elements import some_symbols
from helmol.errors import BusyError, InputError, StoreError
from helmol.files import replacing
from helmol.locks import Claim
from helmol.places import PathLike
from helmol.progress import Progress
from helmol.store import columns as col
from helmol.store.hdf import VERSION, Column, create_column, read_blob, reading, write_blob
from helmol.store.journal import Lock, TransactionFile, journal_path, recover, set_aside
from helmol.system import LevelOfTheory, Molecule, Sample

SCHEMA = 1
"""Version of the file's layout; a store of another version is refused."""

_DIGESTS = 1 << 256
_ALWAYS = ("id", "numbers", "positions", "charge", "spin", "energy", "forces", "dipole", "provenance", "fock")


class Store:
    """Hold samples of one level of theory in one file; use :meth:`create` or :meth:`open`.

    Reading is by position, ``store[i]``, and checks a checksum per label. Appending is all or
    nothing per call and survives ``kill -9``; a second writer is refused. A store is closed by
    ``close`` or by leaving a ``with`` block. One that is open for reading may be used in forked children, and
    pickled, which is to open it again.
    """

    def __init__(self, path: Path, mode: Literal["r", "a"], claim: Claim | None = None) -> None:
        self.path, self.mode = path, mode
        self._file: h5py.File | None = None
        self._transaction: TransactionFile | None = None
        self._lock: Lock | None = None
        self._process = os.getpid()
        self._claim = claimed(path) if claim is None and mode == "a" else claim
        try:
            self._lock = locked(path, mode)
            self._connect(self._lock)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: PathLike, *, level: LevelOfTheory, basis: BasisSet) -> Store:
        """Make an empty store and open it for appending.

        Raises:
            StoreError: something stands at ``path`` already.
        """
        path = Path(path)
        _refuse_if_there(path)
        claim = claimed(path)
        try:
            # Again while the name is held: of two processes that make one store, one is refused.
            _refuse_if_there(path)
            set_aside(path)
            real = Path(os.path.realpath(path))
            with replacing(real) as temporary, h5py.File(temporary, "w", libver=VERSION) as file:
                write_blob(file, "splits", b"{}")
                _write_metadata(file, level, basis)
                file.attrs["n_samples"], file.attrs["digest_sum"] = 0, f"{0:064x}"
                for name in col.DTYPES:
                    create_column(file, name, n_samples=0)
        except BaseException:
            claim.close()
            raise
        return cls(path, "a", claim)

    @classmethod
    def open(cls, path: PathLike, mode: Literal["r", "a"] = "r") -> Store:
        """Open a store for reading (``"r"``) or for reading and appending (``"a"``).

        Raises:
            StoreError: missing, no store, damaged, another schema, or in use by a writer.
        """
        if mode not in ("r", "a"):
            raise StoreError(f"mode {mode!r} is unknown: expected 'r' or 'a'")
        return cls(Path(path), mode)

    def _connect(self, lock: Lock) -> None:
        """Open the HDF5 file and read all but the large columns."""
        with reading(self.path):
            # Chunks are read in part, not cached whole: a small molecule is a small read.
            self._file = h5py.File(self.path, "r", rdcc_nbytes=0, locking=False)
            if self.mode == "a":
                # Only now is it known that the superblock, by which the end of the file is cut, is whole.
                self._file.close()
                self._transaction = TransactionFile(self.path, lock)
                self._file = h5py.File(self._transaction, "r+", libver=VERSION, rdcc_nbytes=0)
            metadata = json.loads(read_blob(self._file, "metadata"))
            if metadata.get("schema") != SCHEMA:
                raise StoreError(
                    f"store {self.path} has schema {metadata.get('schema')}, this helmol reads {SCHEMA}: "
                    "make it anew or use the helmol that wrote it"
                )
            self.metadata: dict[str, Any] = metadata
            self.level = LevelOfTheory.from_json(metadata["level"])
            self.basis = BasisSet.from_json(metadata["basis"])
            self.splits = _splits(json.loads(read_blob(self._file, "splits")))
            self._load(self._file, lock)
            if not os.path.samestat(os.fstat(lock.fd), os.stat(self.path)):
                raise StoreError("another file has taken its place meanwhile: open it again")

    def _load(self, file: h5py.File, lock: Lock) -> None:
        """Read the indices and the small columns of the committed samples."""
        self._n = int(file.attrs["n_samples"])
        self._digest_sum = int(str(file.attrs["digest_sum"]), 16)
        self._columns = {name: Column(file, name, self._n, fd=lock.fd) for name in file["columns"]}
        if missing := col.DTYPES.keys() - self._columns.keys():
            raise StoreError(f"columns {', '.join(sorted(missing))} are missing: the file is damaged")
        ids = self._columns["id"]
        # Checked: a damaged id would read as one that is not there.
        self._ids = [ids.checked(row).tobytes().decode() for row in range(self._n)]
        self._row = {id: row for row, id in enumerate(self._ids)}

    # reading

    def __repr__(self) -> str:
        splits = ", ".join(f"{name} {len(ids)}" for name, ids in self.splits.items())
        state = f"mode {self.mode!r}" if self._file is not None else "closed"
        return (
            f"Store({str(self.path)!r}, {self._n} samples, {self.level.label}, "
            f"{some_symbols(self.basis.elements)}; {splits or 'no splits'}; {state})"
        )

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Sample]:
        return (self[row] for row in range(self._n))

    def __getitem__(self, row: int) -> Sample:
        """Return a sample with all it has; raises StoreError where its bytes are damaged."""
        return self.read(row)

    def read(self, row: int, *, matrices: Collection[str] | None = None) -> Sample:
        """Return a sample, from its matrices only ``fock`` and those named.

        Args:
            row: position in the store; negative counts from the end.
            matrices: of ``overlap``, ``density`` and names of references; ``None`` for all.

        Raises:
            IndexError: no such row.
            StoreError: a checksum does not match, or the file cannot be read.
        """
        position = row + self._n if row < 0 else row
        if not 0 <= position < self._n:
            raise IndexError(f"row {row} of a store of {self._n} samples")
        wanted = [n for n in self._columns if matrices is None or n in _ALWAYS or _short(n) in matrices]
        self._check_open()
        with self._reading_row(position):
            found = {name: self._columns[name].checked(position) for name in wanted}
            return col.from_columns(found, self.basis)

    @property
    def ids(self) -> list[str]:
        """Ids of all samples, in the order they stand."""
        return list(self._ids)

    def id(self, row: int) -> str:
        """Return the id of a sample."""
        return self._ids[row]

    @property
    def n_atoms(self) -> IntArray:
        """Number of atoms of every sample, ``[n_samples]``."""
        return self._columns["numbers"].lengths

    @property
    def references(self) -> tuple[str, ...]:
        """Names of the cheap Fock matrices that some samples have."""
        return tuple(n.removeprefix(col.REFERENCE) for n in self._columns if n.startswith(col.REFERENCE))

    def numbers(self, row: int) -> IntArray:
        """Return the atomic numbers of a sample without reading its matrices.

        Raises:
            StoreError: a checksum does not match.
        """
        return self.values("numbers", row).astype(np.int64)

    def molecule(self, row: int) -> Molecule:
        """Return the molecule of a sample without reading its matrices.

        Raises:
            StoreError: a checksum does not match.
        """
        self._check_open()
        with self._reading_row(row):
            return col.to_molecule({name: self._columns[name].checked(row) for name in col.MOLECULE})

    def provenance(self, row: int) -> dict[str, Any]:
        """Return where a sample came from, without reading its matrices.

        Raises:
            StoreError: a checksum does not match.
        """
        text = self.values("provenance", row).tobytes()
        with self._reading_row(row):
            return dict(json.loads(text)) if text else {}

    def composition(self, row: int) -> bytes:
        """Return a key that is equal for samples with the same atoms in the same order.

        Raises:
            StoreError: a checksum does not match.
        """
        return self.values("numbers", row).tobytes()

    def read_block(
        self, rows: Sequence[int], columns: Sequence[str]
    ) -> tuple[list[Molecule], dict[str, Array]]:
        """Return many samples with the same atoms in the same order, much faster than one by one.

        Args:
            rows: positions in the store.
            columns: of ``fock overlap density reference_NAME``; every sample must have them.

        Returns:
            The molecules, and by column the packed triangles ``[n, size]`` in house order.

        Raises:
            StoreError: a checksum does not match, or the samples differ in size.
        """
        self._check_open()
        with reading(self.path, f"rows {rows[0]} to {rows[-1]}"):
            found = {name: self._columns[name].block(rows) for name in (*col.MOLECULE, *columns)}
        numbers = found["numbers"].astype(np.int64)
        positions = found["positions"].reshape(len(rows), -1, 3)
        charges, spins = found["charge"][:, 0].tolist(), found["spin"][:, 0].tolist()
        if (numbers != numbers[0]).any():
            raise StoreError(f"store {self.path}: samples of different atoms cannot be read together")
        molecules = Molecule.many(numbers[0], positions, charges=charges, spins=spins)
        return molecules, {name: found[name] for name in columns}

    def has(self, column: str) -> BoolArray:
        """Return which samples have a label: ``energy forces dipole overlap density reference_NAME``."""
        return self._columns[column].lengths > 0 if column in self._columns else np.zeros(self._n, dtype=bool)

    def values(self, column: str, row: int) -> npt.NDArray[Any]:
        """Return the raw values of one label, checked; empty where it is missing."""
        self._check_open()
        with self._reading_row(row):
            return self._columns[column].checked(row)

    def row(self, id: str) -> int:
        """Return the position of a sample.

        Raises:
            StoreError: no sample has this id.
        """
        if id not in self._row:
            raise StoreError(f"store {self.path} has no sample {id!r}")
        return self._row[id]

    def __contains__(self, id: object) -> bool:
        return id in self._row

    def indices(self, split: str) -> list[int]:
        """Return the positions of the samples of a split, in the split's order.

        Raises:
            StoreError: no such split.
        """
        if split not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise StoreError(f"store {self.path} has no split {split!r} (it has {known})")
        return [self.row(id) for id in self.splits[split]]

    @property
    def content_hash(self) -> str:
        """Hash of level, basis and all samples; the order they were written in does not matter."""
        return _content_hash(self.level, self.basis, self._n, self._digest_sum)

    def verify(self, *, progress: Progress | None = None) -> list[str]:
        """Read everything and compare it with its checksums.

        Args:
            progress: is told of every sample.

        Returns:
            One line per damaged sample, and one if the sum over all does not match; empty if whole.
        """
        self._check_open()
        problems, total = [], 0
        for row in range(self._n):
            if progress is not None:
                progress.advance()
            try:
                with self._reading_row(row):
                    found = {name: column.checked(row) for name, column in self._columns.items()}
                    digest = col.digest(found)
                    if digest != found["digest"].tobytes():
                        raise StoreError("the digest does not match its labels")
                    total += int.from_bytes(digest, "big")
                    col.from_columns(found, self.basis)
            except StoreError as error:
                problems.append(str(error))
        if not problems and total % _DIGESTS != self._digest_sum:
            problems.append(f"store {self.path}: the content hash does not match the samples")
        return problems

    # writing

    def append(self, samples: Sequence[Sample]) -> None:
        """Add samples, all of them or, on any error, none.

        Raises:
            StoreError: opened for reading, a duplicate id, or a sample that does not fit the basis
                or the method (restricted, unrestricted).
            OSError: the disk is full; what was committed before stays readable.
        """
        self._writable()
        new: list[dict[str, npt.NDArray[Any]]] = []
        seen: set[str] = set()
        for sample in samples:
            if sample.id in self._row or sample.id in seen:
                raise StoreError(f"store {self.path} has a sample {sample.id!r} already: ids are unique")
            seen.add(sample.id)
            _check_method(sample, self.level)
            new.append(col.to_columns(sample, self.basis))
        if not new:
            return

        total = self._digest_sum + sum(int.from_bytes(e["digest"].tobytes(), "big") for e in new)

        def write(file: h5py.File) -> None:
            for name in sorted({name for entry in new for name in entry} - self._columns.keys()):
                create_column(file, name, self._n)
                self._columns[name] = Column(file, name, self._n, fd=self._held.fd)
            for name, column in self._columns.items():
                empty = np.zeros(0, dtype=col.dtype(name))
                column.append([entry.get(name, empty) for entry in new])
            file.attrs["digest_sum"] = f"{total % _DIGESTS:064x}"
            file.attrs["n_samples"] = self._n + len(new)

        if self._commit(write):
            return
        self._digest_sum = total % _DIGESTS
        for sample in samples:
            self._row[sample.id] = len(self._ids)
            self._ids.append(sample.id)
        self._n = len(self._ids)

    def extend_basis(self, basis: BasisSet) -> None:
        """Add the elements of another basis set that agrees with the store's.

        Raises:
            StoreError: opened for reading, or an element has other functions here.
        """
        self._writable()
        try:
            merged = self.basis.merged(basis)
        except InputError as error:
            raise StoreError(f"store {self.path}: {error}") from error
        if merged.elements != self.basis.elements:
            self._commit(lambda file: _write_metadata(file, self.level, merged))
            self.basis = merged

    def set_splits(self, splits: Mapping[str, Sequence[str]]) -> None:
        """Replace the named splits by explicit lists of ids.

        Raises:
            StoreError: opened for reading, an unknown id, or an id that stands twice.
        """
        self._writable()
        owner: dict[str, str] = {}
        for name, ids in splits.items():
            for id in ids:
                if id in owner:
                    raise StoreError(f"sample {id!r} is in split {owner[id]!r} and again in {name!r}")
                self.row(id)
                owner[id] = name
        fresh = {name: list(ids) for name, ids in splits.items()}
        self._commit(lambda file: write_blob(file, "splits", json.dumps(fresh).encode()))
        self.splits = fresh

    def _writable(self) -> None:
        self._check_open()
        if self.mode != "a":
            raise StoreError(f"store {self.path} is open for reading: open it with mode 'a' to change it")

    def _commit(self, change: Callable[[h5py.File], None]) -> bool:
        """Apply ``change(file)`` as one transaction, or leave everything as it was.

        Returns:
            Whether everything was read again from the file, after a failure late enough to be mended.
        """
        file, transaction = self._file, self._transaction
        if file is None or transaction is None:
            raise StoreError(f"store {self.path} is closed")
        try:
            change(file)
            file.flush()
            transaction.commit()
        except BaseException as error:
            # Also for Ctrl-C: HDF5's caches may be half-way, so start again from what is committed.
            transaction.abandon()
            file.close()
            self._file = None
            recover(self.path, self._held.fd)
            self._connect(self._held)
            if not (transaction.durable and isinstance(error, OSError)):
                raise
            return True
        return False

    def _check_open(self) -> None:
        """Raise if the store is closed; open it again in a forked child, which has lost its lock."""
        if self._file is None:
            raise StoreError(f"store {self.path} is closed")
        if self._process != os.getpid():
            self._open_again()

    def _open_again(self) -> None:
        """Open in a forked child what its parent has open for reading."""
        if self.mode == "a":
            raise StoreError(
                f"store {self.path} is being written by the process that this one was forked from: open it "
                "here for reading after it was closed there"
            )
        before = self._n, self._digest_sum
        self._lock = locked(self.path, self.mode)
        self._process = os.getpid()
        self._connect(self._lock)
        if before != (self._n, self._digest_sum):
            self.close()
            raise StoreError(f"store {self.path} has changed since this process was forked: open it again")

    @property
    def _held(self) -> Lock:
        """The lock of an open store."""
        if self._lock is None:
            raise StoreError(f"store {self.path} is closed")
        return self._lock

    def __reduce__(self) -> tuple[Any, ...]:
        if self.mode == "a":
            raise StoreError(f"store {self.path} is open for writing: pass its path to other processes")
        return Store.open, (self.path, self.mode)

    def _reading_row(self, row: int) -> AbstractContextManager[None]:
        return reading(self.path, f"sample {self._ids[row]!r} (row {row})")

    def close(self) -> None:
        """Close the file and let go of its lock; closing twice is harmless."""
        if self._transaction is not None:
            self._transaction.freeze()
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock is not None:
            self._lock.close()
        if self._claim is not None:
            self._claim.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _splits(data: Any) -> dict[str, list[str]]:
    """Return the splits in a store's text; raises StoreError where it is something else."""
    if not isinstance(data, dict) or not all(isinstance(ids, list) for ids in data.values()):
        raise StoreError("splits are no lists of ids: the file is damaged, or was edited by hand")
    return {name: [str(id) for id in ids] for name, ids in data.items()}


def _check_method(sample: Sample, level: LevelOfTheory) -> None:
    """Raise if a sample has more or fewer spins than the store's method."""
    n_spins, wanted = sample.matrices.n_spins, level.n_spins
    if n_spins != wanted:
        kinds = {1: "a restricted sample [nao, nao]", 2: "an unrestricted sample [2, nao, nao]"}
        raise StoreError(
            f"sample {sample.id!r}: {kinds[n_spins]} does not go into a store of {level.label}, "
            f"which takes {kinds[wanted]} only: make a store of its own for it"
        )


def _short(column: str) -> str:
    """Return what a matrix is called in a sample."""
    return column.removeprefix(col.REFERENCE)


def _refuse_if_there(path: Path) -> None:
    """Raise StoreError if something stands where a store is to be made."""
    if path.exists():
        raise StoreError(f"{path} exists already: open it to append, or choose another name")


PATIENCE = 5.0
"""Seconds to wait for another reader that finishes what a killed writer had begun, where that can be seen."""
SHORT_PATIENCE = 0.2
"""Seconds to wait where it cannot: it may be just done."""


def claimed(path: Path) -> Claim:
    """Hold the name of a store for writing.

    Raises:
        StoreError: another process writes it.
    """
    try:
        return Claim(path)
    except BusyError as error:
        raise StoreError(f"store {error}") from error
    except OSError as error:
        raise StoreError(f"store {path} cannot be written: {error.strerror}") from error


def locked(path: Path, mode: str) -> Lock:
    """Lock a store and finish what a killed writer had begun.

    Raises:
        StoreError: missing, not a file, not permitted, or in use.
    """
    try:
        if not path.is_file():
            raise StoreError(f"store {path} does not exist" if not path.exists() else f"{path} is no file")
        unfinished = journal_path(path).exists()
        patience = 0.0 if mode == "a" else PATIENCE if unfinished else SHORT_PATIENCE
        lock = Lock(path, exclusive=mode == "a", patience=patience)
        if journal_path(path).exists():
            lock.close()
            lock = Lock(path, exclusive=True, patience=PATIENCE)
            recover(path, lock.fd)
            lock.acquire(exclusive=mode == "a", patience=PATIENCE)
    except OSError as error:
        raise StoreError(f"store {path} cannot be opened: {error.strerror}") from error
    return lock


def _write_metadata(file: h5py.File, level: LevelOfTheory, basis: BasisSet) -> None:
    """Write what holds for the whole store."""
    metadata = {
        "schema": SCHEMA,
        "units": {"length": "bohr", "energy": "Eh", "forces": "Eh/bohr", "dipole": "e*bohr"},
        "ao_order": "house",
        "level": level.to_json(),
        "basis": basis.to_json(),
        "code": f"helmol {helmol.__version__}",
    }
    write_blob(file, "metadata", json.dumps(metadata, sort_keys=True).encode())


def _content_hash(level: LevelOfTheory, basis: BasisSet, n: int, digest_sum: int) -> str:
    """Return the hash of a store from the sum of its samples' digests (a sum has no order)."""
    text = json.dumps([level.to_json(), basis.to_json(), n, f"{digest_sum:064x}"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
