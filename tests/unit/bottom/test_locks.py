"""Who holds a file or folder is said, ends with its process, and is never inherited."""

import errno
import os
import socket
import time

import pytest

from forked import child, in_child, together
from helmol import locks
from helmol.errors import BusyError
from helmol.locks import Claim

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("folder", [False, True])
def test_a_second_one_is_refused_and_told_who_holds_it(tmp_path, folder):
    target = tmp_path / "new" / "x"
    with Claim(target, folder=folder):
        with pytest.raises(BusyError) as caught:
            Claim(target, folder=folder)
        outcome = in_child(lambda: Claim(target, folder=folder).close())
    for text in (str(caught.value), outcome["refused"]):
        assert text.startswith(f"{target} is in use: process {os.getpid()} on {socket.gethostname()} ")
        assert f"since {time.strftime('%Y-')}" in text
        assert "\n" not in text
    Claim(target, folder=folder).close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").touch()
    with Claim(tmp_path / "x", folder=True), Claim(tmp_path / "x" / "mine"):
        assert {path.name for path in (tmp_path / "x").iterdir()} == {".lock", ".mine.lock", "mine"}
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["mine"]


def test_a_killed_process_holds_nothing(tmp_path):
    def hold():
        claim = Claim(tmp_path / "x")
        (tmp_path / "held").touch()
        time.sleep(60)
        return claim

    process, read = child(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with pytest.raises(BusyError, match=f"process {process} on"):
        Claim(tmp_path / "x")
    os.kill(process, 9)
    os.waitpid(process, 0)
    os.close(read)
    assert (tmp_path / ".x.lock").exists()
    with Claim(tmp_path / "x"), pytest.raises(BusyError, match=f"process {os.getpid()} on"):
        Claim(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["held"]


def test_a_forked_child_neither_holds_nor_frees_what_its_parent_holds(tmp_path):
    claim = Claim(tmp_path / "x")
    wait, go = os.pipe()
    in_child(claim.close)  # says that it lets go, and does not
    with pytest.raises(BusyError):
        Claim(tmp_path / "x")
    process, read = child(lambda: None, wait=wait)  # waits, and has been forked while the name was held
    claim.close()
    Claim(tmp_path / "x").close()
    os.write(go, b".")
    os.waitpid(process, 0)
    for descriptor in (wait, go, read):
        os.close(descriptor)


def test_of_many_at_once_one_wins(tmp_path, many):
    def take():
        with Claim(tmp_path / "new" / "x"):
            time.sleep(0.05)

    for _ in range(many(10, 300)):
        outcomes = together([take] * 4)
        assert sum("ok" in outcome for outcome in outcomes) >= 1
        assert all("ok" in outcome or "in use" in outcome["refused"] for outcome in outcomes)
        assert not list(tmp_path.glob("new/*"))


def test_two_never_hold_one_name_at_a_time(tmp_path, many):
    """Each that holds it makes a folder and takes it away: two would meet."""

    def work():
        met = held = 0
        for _ in range(60):
            try:
                with Claim(tmp_path / "x"):
                    os.mkdir(tmp_path / "inside")
                    os.rmdir(tmp_path / "inside")
                    held += 1
            except BusyError:
                continue
            except FileExistsError:
                met += 1
        return met, held

    for _ in range(many(2, 50)):
        results = [outcome["ok"] for outcome in together([work] * 3)]
        assert [met for met, _ in results] == [0, 0, 0]
        assert sum(held for _, held in results) > 0


def test_two_names_of_one_file_have_one_lock(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link.h5").symlink_to(tmp_path / "data" / "x.h5")
    with Claim(tmp_path / "data" / "x.h5"), pytest.raises(BusyError):
        Claim(tmp_path / "link.h5")


def test_a_file_system_without_locks_is_said_once_and_holds_nothing(tmp_path, monkeypatch, caplog):
    def none(fd, flags):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with Claim(tmp_path / "x"), Claim(tmp_path / "x"), Claim(tmp_path / "y"):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: No locks available: two processes that write the same file there are not noticed"
    ]


def test_a_damaged_lock_blocks_nobody_and_is_no_error(tmp_path):
    (tmp_path / ".x.lock").write_bytes(b"\xff{")
    with Claim(tmp_path / "x"):
        (tmp_path / ".x.lock").write_bytes(b"\xff{")
        with pytest.raises(BusyError, match="another process is writing it"):
            Claim(tmp_path / "x")
