"""A file whose changes happen together or not at all, whatever kills the writer.

HDF5 changes its metadata in place, so a writer killed at the wrong moment leaves a file that cannot
be opened. Here HDF5 writes into a :class:`TransactionFile`: bytes behind the committed end go to
the file (nobody looks there yet), changes of committed bytes wait in memory. ``commit`` writes
those changes to a journal with a checksum, and only then to the file. After a crash,
:func:`recover` finishes a complete journal and drops an incomplete one. The journal also holds what stood
there before, and the checksum of the bytes behind the old end: it is applied to the file it belongs to, and
to no other that has taken its name since.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import time
import weakref
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helmol.errors import StoreError
from helmol.locks import flock, holder

PAGE = 4096
_MAGIC = b"HELMOLJ2"
# Magic, sizes of the file before and after the commit, CRC-32 of what is between, number of pages.
_HEADER = struct.Struct("<8sQQQQ")
_PAGE_HEADER = struct.Struct("<QQ")  # offset, length; then so many bytes of before and as many of after
_FIRST_MAGIC = b"HELMOLJ1"
# Of helmol 0.1: magic, size after, number of pages; no bytes of before.
_FIRST_HEADER = struct.Struct("<8sQQ")
# Offset of the "end of file address" in an HDF5 superblock of version 2 (HDF5 File Format
# Specification 3.0, section II.A): signature 8, versions and sizes 4, two addresses of 8.
_SUPERBLOCK = struct.Struct("<8sB3x16xQ")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


log = logging.getLogger("helmol.store")


def journal_path(path: Path) -> Path:
    """Return where the journal of a store stands while a commit is under way, whatever link led there."""
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + ".journal")


class Lock:
    """Hold an advisory lock on a file: many readers or one writer.

    Raises:
        StoreError: somebody else holds a lock that excludes this one.
    """

    def __init__(self, path: Path, *, exclusive: bool, patience: float = 0.0) -> None:
        self._path = path
        self.fd = os.open(path, (os.O_RDWR if exclusive else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            self.acquire(exclusive=exclusive, patience=patience)
        except BaseException:
            self.close()
            raise
        _open_locks.add(self)

    def acquire(self, *, exclusive: bool, patience: float = 0.0) -> None:
        """Take or change the lock.

        Args:
            exclusive: for writing.
            patience: seconds to wait for others.
        """
        end = time.monotonic() + patience
        while not flock(self.fd, exclusive=exclusive, path=self._path):
            if time.monotonic() >= end:
                who = f"it is open for reading{_readers(self.fd)}" if exclusive else holder(self._path)
                raise StoreError(f"store {self._path} is in use: {who}; wait until that has finished")
            time.sleep(0.02)

    def close(self) -> None:
        """Release the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _readers(fd: int) -> str:
    """Return which processes of this machine have locked a file, where the system tells (Linux)."""
    node = f":{os.fstat(fd).st_ino}"
    with suppress(OSError, IndexError), open("/proc/locks", encoding="ascii") as file:
        words = [line.split() for line in file]
        pids = sorted({w[4] for w in words if w[1] == "FLOCK" and w[5].endswith(node)})
        return f" by process {', '.join(pids)}" if pids else ""
    return ""


# A forked worker inherits the descriptor and with it the lock; it would keep a store locked after
# its parent was killed. So a child lets go of every lock at birth.
_open_locks: weakref.WeakSet[Lock] = weakref.WeakSet()


def _release_in_child() -> None:
    for lock in list(_open_locks):
        lock.close()


os.register_at_fork(after_in_child=_release_in_child)


class TransactionFile:
    """Give HDF5 a file object (``readinto write seek tell truncate flush``) with transactions.

    A failed write (a full disk) is remembered instead of raised, because HDF5 does not survive an
    exception there; :meth:`commit` raises it.
    """

    def __init__(self, path: Path, lock: Lock) -> None:
        self._path, self._lock = path, lock
        self._drop_uncommitted_tail()
        self._committed = self._size = os.fstat(lock.fd).st_size
        self._pages: dict[int, bytearray] = {}
        self._before: dict[int, bytes] = {}
        self._position = 0
        self._failure: OSError | None = None
        self._dead = False
        self.durable = False
        """Whether the commit under way can no longer be lost, only finished (see :func:`recover`)."""

    def _drop_uncommitted_tail(self) -> None:
        """Cut what a killed writer left behind the end that HDF5's superblock names."""
        head = os.pread(self._lock.fd, _SUPERBLOCK.size, 0)
        if len(head) == _SUPERBLOCK.size:
            signature, version, end = _SUPERBLOCK.unpack(head)
            if signature == _SIGNATURE and version == 2 and 0 < end < os.fstat(self._lock.fd).st_size:
                os.ftruncate(self._lock.fd, end)

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes from the current position."""
        buffer = bytearray(size)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def readinto(self, view: memoryview) -> int:
        """Fill ``view`` from the current position, pending changes included; zeros behind the end."""
        start, size = self._position, len(view)
        got = 0
        while got < size and (part := os.pread(self._lock.fd, size - got, start + got)):
            view[got : got + len(part)] = part
            got += len(part)
        view[got:] = bytes(size - got)
        for number in range(start // PAGE, (min(start + size, self._committed) + PAGE - 1) // PAGE):
            if (page := self._pages.get(number)) is not None:
                low, high = max(start, number * PAGE), min(start + size, number * PAGE + len(page))
                if low < high:
                    view[low - start : high - start] = page[low - number * PAGE : high - number * PAGE]
        self._position += size
        return size

    def write(self, view: memoryview) -> int:
        """Write at the current position: behind the committed end at once, before it into memory."""
        start, size = self._position, len(view)
        self._position += size
        self._size = max(self._size, start + size)
        if self._dead or self._failure is not None:
            return size
        inside = max(0, min(size, self._committed - start))
        try:
            done = 0
            while done < inside:
                done += self._change(start + done, view[done:inside])
            _write_all(self._lock.fd, view[inside:], start + inside)
        except OSError as error:
            self._failure = error
        return size

    def _change(self, offset: int, view: memoryview) -> int:
        """Change committed bytes in memory, up to the end of one page."""
        number, within = divmod(offset, PAGE)
        if number not in self._pages:
            length = min(PAGE, self._committed - number * PAGE)
            self._before[number] = os.pread(self._lock.fd, length, number * PAGE)
            self._pages[number] = bytearray(self._before[number])
        count = min(len(view), PAGE - within)
        self._pages[number][within : within + count] = view[:count]
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}
        self._position = origin[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def truncate(self, size: int) -> int:
        """Set the size; committed bytes are kept until the commit."""
        self._size = max(size, self._committed)
        if not self._dead and self._failure is None:
            try:
                os.ftruncate(self._lock.fd, self._size)
            except OSError as error:
                self._failure = error
        return size

    def flush(self) -> None:
        """Do nothing: only :meth:`commit` makes changes permanent."""

    def commit(self) -> None:
        """Make all changes since the last commit permanent.

        Raises:
            OSError: a write failed (a full disk); the committed content is untouched.
        """
        if self._failure is not None:
            raise self._failure
        os.fsync(self._lock.fd)
        if self._pages:
            journal = journal_path(self._path)
            found = Journal(
                before=self._committed,
                size=self._size,
                tail=_checksum(self._lock.fd, self._committed, self._size),
                pages={n * PAGE: (self._before[n], bytes(page)) for n, page in self._pages.items()},
            )
            try:
                _write_journal(journal, found)
            except OSError:
                journal.unlink(missing_ok=True)
                raise
            self.durable = True
            found.apply(self._lock.fd)
            journal.unlink()
            self.durable = False
        self._committed = self._size
        self._forget()

    def abandon(self) -> None:
        """Forget all changes since the last commit; HDF5 must be closed after this, not used."""
        self._dead = True
        self._forget()
        if self._lock.fd >= 0 and not journal_path(self._path).exists():
            os.ftruncate(self._lock.fd, self._committed)

    def _forget(self) -> None:
        """Drop the changes in memory."""
        self._pages.clear()
        self._before.clear()

    def freeze(self) -> None:
        """Ignore all further writes (HDF5 rewrites its superblock when it closes)."""
        self._dead = True


@dataclass(frozen=True)
class Journal:
    """Hold one commit.

    Attributes:
        before, size: bytes of the file before and after it.
        tail: CRC-32 of what is between; ``None`` where helmol 0.1 wrote the journal.
        pages: by offset the bytes of before (empty in a journal of helmol 0.1) and of after.
    """

    before: int
    size: int
    tail: int | None
    pages: Mapping[int, tuple[bytes, bytes]]

    def apply(self, fd: int) -> None:
        """Write the pages to their places; doing it twice is as good as once."""
        for offset, (_, page) in self.pages.items():
            _write_all(fd, memoryview(page), offset)
        os.ftruncate(fd, self.size)
        os.fsync(fd)

    def belongs(self, fd: int) -> bool:
        """Return whether the commit was begun in this file: what it changes is as before, or as after it."""
        if self.tail is None:
            return True
        if os.fstat(fd).st_size < self.size or _checksum(fd, self.before, self.size) != self.tail:
            return False
        for offset, pair in self.pages.items():
            now = np.frombuffer(os.pread(fd, len(pair[1]), offset), np.uint8)
            before, after = (np.frombuffer(data, np.uint8) for data in pair)
            # Byte by byte: a page that was being written may be old here and new there.
            if len(now) != len(after) or ((now != before) & (now != after)).any():
                return False
        return True


def recover(path: Path, fd: int) -> None:
    """Finish the commit that a killed writer had begun, or drop it where its journal is incomplete.

    A journal of another file, whose place this one has taken, is set aside.

    Args:
        path: of the store.
        fd: descriptor of the store open for writing, under an exclusive lock.
    """
    journal = journal_path(path)
    try:
        data = journal.read_bytes()
    except FileNotFoundError:
        return
    found = _parse_journal(data)
    if found is not None and not found.belongs(fd):
        set_aside(path)
        return
    if found is not None:
        found.apply(fd)
    journal.unlink()


def set_aside(path: Path) -> None:
    """Rename a journal that belongs to no file of this name; with its own file it is good as ever."""
    journal = journal_path(path)
    if journal.exists():
        aside = journal.with_name(f"{journal.name}.of-another-file")
        log.warning(
            "%s is of another file that had this name, and is now %s; beside that file, and named after it, "
            "it completes what was being written there",
            journal, aside.name,
        )  # fmt: skip
        journal.replace(aside)


def _write_journal(path: Path, journal: Journal) -> None:
    """Write and sync the journal, the checksum last."""
    tail = journal.tail or 0
    parts = [_HEADER.pack(_MAGIC, journal.before, journal.size, tail, len(journal.pages))]
    for offset, (before, after) in sorted(journal.pages.items()):
        parts += [_PAGE_HEADER.pack(offset, len(after)), before, after]
    data = b"".join(parts)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        _write_all(fd, memoryview(data + struct.pack("<I", zlib.crc32(data))), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _parse_journal(data: bytes) -> Journal | None:
    """Return the commit, or ``None`` where the journal is incomplete."""
    if len(data) < _FIRST_HEADER.size + 4 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        return None
    pages: dict[int, tuple[bytes, bytes]] = {}
    if data.startswith(_MAGIC):
        _, before, size, tail, count = _HEADER.unpack_from(data)
        position = _HEADER.size
        for _ in range(count):
            offset, length = _PAGE_HEADER.unpack_from(data, position)
            middle = position + _PAGE_HEADER.size + length
            pages[offset] = data[middle - length : middle], data[middle : middle + length]
            position = middle + length
        return Journal(before, size, tail, pages)
    if data.startswith(_FIRST_MAGIC):
        _, size, count = _FIRST_HEADER.unpack_from(data)
        position = _FIRST_HEADER.size
        for _ in range(count):
            offset, length = _PAGE_HEADER.unpack_from(data, position)
            position += _PAGE_HEADER.size
            pages[offset] = b"", data[position : position + length]
            position += length
        return Journal(size, size, None, pages)
    return None


def _checksum(fd: int, start: int, end: int) -> int:
    """Return the CRC-32 of a part of a file."""
    value = 0
    while start < end and (part := os.pread(fd, min(1 << 22, end - start), start)):
        value, start = zlib.crc32(part, value), start + len(part)
    return value


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    """Write every byte or raise."""
    while len(view):
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
