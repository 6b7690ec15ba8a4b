"""Files are old or new, never half; what a killed process leaves is nobody's result, and goes."""

import glob
import os
import socket
import time

import pytest

from forked import child, in_child, together
from helmol.files import (
    entries,
    file_stem,
    is_temporary,
    replacing,
    short_name,
    sweep,
    write_json,
    write_text,
)
from helmol.locks import Claim

pytestmark = pytest.mark.faults


def unfinished(folder, name):
    """Let a process die while it writes a file; return what it leaves."""

    def die():
        with replacing(folder / name) as temporary:
            temporary.write_text("half")
            os._exit(9)

    assert in_child(die) == {"died": 9}
    (left,) = [path for path in folder.iterdir() if path.name.startswith(f".{name}")]
    return left


def test_a_pattern_for_results_finds_no_temporary_file(tmp_path):
    unfinished(tmp_path, "a.npz")
    with replacing(tmp_path / "b.npz") as temporary:
        temporary.write_text("new")
        assert list(tmp_path.glob("*.npz")) == list(tmp_path.rglob("*.npz")) == []
        assert entries(tmp_path) == []
    assert [path.name for path in tmp_path.glob("*.npz")] == ["b.npz"]
    assert glob.glob(str(tmp_path / "*")) == [str(tmp_path / "b.npz")]


@pytest.mark.parametrize("folder", [False, True])
def test_what_a_killed_process_left_goes_when_the_place_is_held_again(tmp_path, folder):
    left = unfinished(tmp_path, "a.npz")
    Claim(tmp_path if folder else tmp_path / "b", folder=folder).close()
    assert not left.exists()


def test_what_a_killed_process_left_goes_at_the_next_write_of_another_process(tmp_path):
    left = unfinished(tmp_path, "a.json")
    in_child(lambda: write_json(tmp_path / "b.json", {}))
    assert not left.exists()


def test_what_others_write_stays(tmp_path):
    def write():
        with replacing(tmp_path / "a") as temporary:
            (tmp_path / "begun").touch()
            time.sleep(0.5)
            temporary.write_text("whole")

    process, read = child(write)
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    sweep(tmp_path)
    os.waitpid(process, 0)
    os.close(read)
    assert (tmp_path / "a").read_text() == "whole"
    young, old = (tmp_path / f".a.elsewhere-1-0000000{k}.part" for k in (1, 2))
    for path in (young, old):
        path.touch()
    os.utime(old, (0, time.time() - 2 * 86_400))
    (tmp_path / ".profile").touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "begun", young.name, ".profile"}


def test_an_error_leaves_the_old_file_alone(tmp_path):
    write_text(tmp_path / "a", "old")

    def fail():
        with replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_many_writers_of_one_file_leave_one_of_theirs(tmp_path, many):
    def write(k):
        return lambda: write_text(tmp_path / "a", str(k) * 20_000)

    for _ in range(many(5, 100)):
        assert all("ok" in outcome for outcome in together([write(k) for k in range(4)]))
        assert len(set((tmp_path / "a").read_text())) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_where_a_file_is_to_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder"), replacing(tmp_path / "a"):
        raise AssertionError


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (".unfinished-x1_y2z3a", True),  # of helmol 0.1
        (".config-a8hd73bq.yaml", True),
        (".lock", True),
        (".data.h5.lock", True),
        (f".a.npz.{socket.gethostname().replace('-', '_').replace('.', '_')}-12-0011aabb.part", True),
        ("poetry.lock", False),
        (".gitignore", False),
        ("config.yaml", False),
        ("movie.part", False),
    ],
)
def test_own_leftovers_are_known_by_their_names(name, own):
    assert is_temporary(name) == own


@pytest.mark.parametrize("name", ["a", "x" * 300, "ä" * 200, "\udcff" * 300, "水" * 100])
def test_a_name_fits_into_a_folder_and_stays_one_of_its_own(tmp_path, name):
    short = short_name(name)
    assert len(os.fsencode(short)) <= 150
    assert (short == name) == (len(os.fsencode(name)) <= 150)
    assert short_name(name + "b") != short_name(name + "c")
    write_text(tmp_path / f"{file_stem(name)}.txt", "x")
    write_text(tmp_path / f"{short_name('y' * 240)}.txt", "x")


def test_any_text_makes_a_file_name():
    assert file_stem("a/b c:d*.x") == "a_b_c_d_.x"
    assert file_stem("...") == file_stem("") == "molecule"
    assert file_stem("../../etc") == "etc"
