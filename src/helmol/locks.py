"""Hold a file or folder for writing, so that two processes never write the same results.

A lock is a small file beside the target (``.NAME.lock``; in a folder ``.lock``) that the kernel locks
(``flock``) for as long as its owner lives: ``kill -9`` frees it, and what is left of the file blocks nobody.
Its content says who holds it. On NFS the kernel passes the lock on to the server, which keeps it for all
machines (version 4, or 3 with ``lockd``); a mount with ``nolock`` or ``local_lock`` keeps it on one machine
only. Where a file system has no locks at all, that is said once and nothing is held.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
import weakref
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from types import TracebackType

from helmol.errors import BusyError
from helmol.files import short_name, sweep

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
"""What a file system without locks answers."""

ATTEMPTS = 10
"""To read who holds a lock."""

log = logging.getLogger("helmol")


def flock(fd: int, *, exclusive: bool, path: Path) -> bool:
    """Lock an open file without waiting; many may share it, or one has it alone.

    Returns:
        Whether the lock was given. A file system without locks gives it to everybody.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _warn_of_no_locks(path.parent, str(error.strerror))
    return True


@cache
def _warn_of_no_locks(folder: Path, reason: str) -> None:
    """Say once per folder that nothing there can be held."""
    log.warning("%s: %s: two processes that write the same file there are not noticed", folder, reason)


class Claim:
    """Hold a target until :meth:`close`; a context manager.

    Args:
        target: file, or folder, that will be written.
        folder: whether it is a folder; it is made, and removed again at the end where it is empty.

    Raises:
        BusyError: somebody else holds the target; the message says who.
        OSError: the lock's file cannot be written.
    """

    def __init__(self, target: Path, *, folder: bool = False) -> None:
        self._target, self._folder, self._fd = target, folder, -1
        self._made: list[Path] = []
        self._lock = lock_of(target, folder=folder)
        while self._fd < 0:
            self._fd = self._taken()
        _held.add(self)
        sweep(self._lock.parent)

    def _taken(self) -> int:
        """Return the locked descriptor, or -1 where the file went away meanwhile."""
        self._made += [path for path in (self._lock.parent, *self._lock.parent.parents) if not path.exists()]
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            return -1
        try:
            if not flock(fd, exclusive=True, path=self._lock):
                raise BusyError(
                    f"{self._target} is in use: {holder(self._target, folder=self._folder)}; "
                    "wait until it has finished, or choose another name"
                )
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), self._lock.stat()):
                    _sign(fd)
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return -1

    def close(self) -> None:
        """Let go of the target; twice is harmless."""
        if self._fd < 0:
            return
        # Removed while it is held: whoever opened the file before finds another one there, or none.
        with suppress(OSError):
            self._lock.unlink()
        self._abandon()
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()

    def _abandon(self) -> None:
        """Close the descriptor and leave the rest to somebody else."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_of(target: Path, *, folder: bool = False) -> Path:
    """Return where the lock of a target stands."""
    if folder:
        return target / ".lock"
    # Two names of one file have one lock; a long one is cut, for the lock's own must fit as well.
    real = Path(os.path.realpath(target))
    return real.with_name(f".{short_name(real.name)}.lock")


def holder(target: Path, *, folder: bool = False) -> str:
    """Return in words who holds a target, as far as the lock says."""
    for _ in range(ATTEMPTS):
        try:
            with lock_of(target, folder=folder).open(encoding="utf-8") as file:
                record = json.loads(file.readline(10_000))
            who = f"process {int(record['pid'])} on {record['host']}"
            return f"{who} has been writing it since {record['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.01)  # it has the lock, and is about to sign
    return "another process is writing it"


def _sign(fd: int) -> None:
    """Write down who holds the lock."""
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    record = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
    # One write, so that nobody reads half of it; what an earlier, longer record leaves is behind the line.
    with suppress(OSError):
        os.pwrite(fd, (json.dumps(record) + "\n").encode(), 0)


# A forked child inherits the descriptor and with it the lock; it would hold it after its parent was killed.
# So a child lets go of every lock at birth.
_held: weakref.WeakSet[Claim] = weakref.WeakSet()


def _let_go_in_child() -> None:
    for claim in list(_held):
        claim._abandon()


os.register_at_fork(after_in_child=_let_go_in_child)
