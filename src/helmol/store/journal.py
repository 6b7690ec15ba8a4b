"""A file whose changes happen together or not at all, whatever kills the writer.

HDF5 changes its metadata in place, so a writer killed at the wrong moment leaves a file that cannot
be opened. Here HDF5 writes into a :class:`TransactionFile`: bytes behind the committed end go to
the file (nobody looks there yet), changes of committed bytes wait in memory. ``commit`` writes
those changes to a journal with a checksum, and only then to the file. After a crash,
:func:`recover` finishes a complete journal and drops an incomplete one.
"""

from __future__ import annotations

import fcntl
import io
import os
import struct
import weakref
import zlib
from pathlib import Path

from helmol.errors import StoreError

PAGE = 4096
_MAGIC = b"HELMOLJ1"
_HEADER = struct.Struct("<8sQQ")  # magic, size of the file after the commit, number of pages
_PAGE_HEADER = struct.Struct("<QQ")  # offset, length
# Offset of the "end of file address" in an HDF5 superblock of version 2 (HDF5 File Format
# Specification 3.0, section II.A): signature 8, versions and sizes 4, two addresses of 8.
_SUPERBLOCK = struct.Struct("<8sB3x16xQ")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def journal_path(path: Path) -> Path:
    """Return where the journal of a store stands while a commit is under way."""
    return path.with_name(path.name + ".journal")


class Lock:
    """Hold an advisory lock on a file: many readers or one writer.

    Raises:
        StoreError: somebody else holds a lock that excludes this one.
    """

    def __init__(self, path: Path, *, exclusive: bool) -> None:
        self._path = path
        self.fd = os.open(path, (os.O_RDWR if exclusive else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            self.acquire(exclusive=exclusive)
        except StoreError:
            self.close()
            raise
        _open_locks.add(self)

    def acquire(self, *, exclusive: bool) -> None:
        """Take or change the lock without waiting."""
        try:
            fcntl.flock(self.fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "is in use by another reader or writer" if exclusive else "is being written"
            raise StoreError(f"store {self._path} {reason}: wait until it has finished") from None

    def close(self) -> None:
        """Release the lock."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


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
            self._pages[number] = bytearray(os.pread(self._lock.fd, length, number * PAGE))
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
            try:
                _write_journal(journal, size=self._size, pages=self._pages)
            except OSError:
                journal.unlink(missing_ok=True)
                raise
            self.durable = True
            _apply(self._lock.fd, {n * PAGE: bytes(page) for n, page in self._pages.items()}, self._size)
            journal.unlink()
            self.durable = False
        self._committed = self._size
        self._pages.clear()

    def abandon(self) -> None:
        """Forget all changes since the last commit; HDF5 must be closed after this, not used."""
        self._dead = True
        self._pages.clear()
        if self._lock.fd >= 0 and not journal_path(self._path).exists():
            os.ftruncate(self._lock.fd, self._committed)

    def freeze(self) -> None:
        """Ignore all further writes (HDF5 rewrites its superblock when it closes)."""
        self._dead = True


def recover(path: Path, fd: int) -> None:
    """Finish the commit that a killed writer had begun, or drop it where its journal is incomplete.

    ``fd`` is a descriptor of the store open for writing, under an exclusive lock.
    """
    journal = journal_path(path)
    try:
        data = journal.read_bytes()
    except FileNotFoundError:
        return
    parsed = _parse_journal(data)
    if parsed is not None:
        _apply(fd, *parsed)
    journal.unlink()


def _write_journal(path: Path, *, size: int, pages: dict[int, bytearray]) -> None:
    """Write and sync the journal, the checksum last."""
    parts = [_HEADER.pack(_MAGIC, size, len(pages))]
    for number, page in sorted(pages.items()):
        parts += [_PAGE_HEADER.pack(number * PAGE, len(page)), bytes(page)]
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


def _parse_journal(data: bytes) -> tuple[dict[int, bytes], int] | None:
    """Return the pages by offset and the final size, or ``None`` where the journal is incomplete."""
    if len(data) < _HEADER.size + 4 or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        return None
    magic, size, count = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        return None
    pages, position = {}, _HEADER.size
    for _ in range(count):
        offset, length = _PAGE_HEADER.unpack_from(data, position)
        position += _PAGE_HEADER.size
        pages[offset] = data[position : position + length]
        position += length
    return pages, size


def _apply(fd: int, pages: dict[int, bytes], size: int) -> None:
    """Write journalled pages to their places; doing it twice is as good as once."""
    for offset, page in pages.items():
        _write_all(fd, memoryview(page), offset)
    os.ftruncate(fd, size)
    os.fsync(fd)


def _write_all(fd: int, view: memoryview, offset: int) -> None:
    """Write every byte or raise."""
    while len(view):
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count
