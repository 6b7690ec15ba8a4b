"""Whatever a user gives: one line, exit code 1, nothing left behind, nothing that hangs."""

import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from helmol.cli.main import main
from helmol.locks import Claim
from helmol.store import Store
from store_samples import BASIS, LEVEL, water
from toy_store import make_store, settings

pytestmark = pytest.mark.faults

MODEL = Path(__file__).parents[2] / "archive" / "helmol-0.1" / "models" / "fock"

FILE, OUT = "FILE", "OUT"
VERBS = {
    "train": ["train", FILE, "--out", OUT],
    "sweep": ["sweep", FILE, "--out", OUT],
    "generate": ["generate", FILE, "--out", f"{OUT}.h5", "--workers", "1"],
    "inspect": ["inspect", FILE, "--out", OUT],
    "split": ["split", FILE],
    "merge": ["merge", FILE, "GOOD.h5", "--out", f"{OUT}.h5"],
    "references": ["references", FILE, "--add", "minao", "--out", f"{OUT}.h5"],
    "convert": ["convert", FILE, "--to", "npz", "--out", OUT],
    "convert back": ["convert", FILE, "--to", "store", "--out", f"{OUT}.h5"],
    "import md17": ["import", "md17", FILE, "--out", f"{OUT}.h5"],
    "import qh9": ["import", "qh9-stable", FILE, "--out", f"{OUT}.h5"],
    "import qh9d": ["import", "qh9-dynamic", FILE, "--out", f"{OUT}.h5"],
    "import nabladft": ["import", "nabladft", FILE, "--out", f"{OUT}.h5"],
    "import omol": ["import", "omol-csh", FILE, "--out", f"{OUT}.h5"],
    "import extxyz": ["import", "extxyz", FILE, "--level", "pbe/sto-3g", "--out", f"{OUT}.h5"],
    "evaluate run": ["evaluate", FILE, "GOOD.h5", "--out", OUT],
    "evaluate": ["evaluate", "MODEL", FILE, "--out", OUT],
    "predict run": ["predict", FILE, "GOOD.xyz", "--out", OUT],
    "predict": ["predict", "MODEL", FILE, "--out", OUT],
    "export": ["export", FILE, "--out", OUT],
    "guess run": ["guess", FILE, "GOOD.xyz", "--out", OUT],
    "guess": ["guess", "MODEL", FILE, "--out", OUT],
    "embed run": ["embed", FILE, "GOOD.xyz", "--out", OUT],
    "embed": ["embed", "MODEL", FILE, "--out", OUT],
    "estimate": ["estimate", FILE],
    "estimate run": ["estimate", "--model", FILE],
    "bench": ["bench", "--store", FILE],
}


def header(shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def odd_files(folder):
    """Make files and places that no verb can mean; yield their paths."""
    rng = random.Random(0)
    for suffix in (".yaml", ".h5", ".xyz", ".db", ".npz"):
        for name, content in (
            ("empty", b""),
            ("bytes", rng.randbytes(3000)),
            ("zeros", bytes(3000)),
            ("text", b"what: is\nthis\n"),
            ("latin", "märchen: größe\n".encode("latin-1")),
            ("deep", b"[" * 100_000),
            ("hdf", b"\x89HDF\r\n\x1a\n" + rng.randbytes(500)),
            ("sqlite", b"SQLite format 3\x00" + rng.randbytes(5000)),
        ):
            path = folder / f"{name}{suffix}"
            path.write_bytes(content)
            yield path
        (folder / f"folder{suffix}").mkdir()
        yield folder / f"folder{suffix}"
        (folder / f"loop{suffix}").symlink_to(f"loop{suffix}")
        yield folder / f"loop{suffix}"
        yield folder / f"missing{suffix}"
        yield folder / f"text{suffix}" / f"below{suffix}"
        yield folder / ("x" * 300 + suffix)
        path = folder / os.fsdecode(b"\xff\xfe" + suffix.encode())
        path.write_bytes(b"no text in its name")
        yield path
        (folder / f"null{suffix}").symlink_to("/dev/null")
        yield folder / f"null{suffix}"
    (folder / "many.xyz").write_text("844769900\n\nH 0 0 0\n")
    yield folder / "many.xyz"
    (folder / "endless.yaml").symlink_to("/dev/zero")
    yield folder / "endless.yaml"
    (folder / "bomb.yaml").write_text(
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(
            f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        )
    )
    yield folder / "bomb.yaml"
    with zipfile.ZipFile(folder / "lying.npz", "w") as archive:
        archive.writestr("fock.npy", header((10**12,)))
    yield folder / "lying.npz"
    sqlite3.connect(folder / "schema.db").execute("CREATE TABLE data (id INTEGER PRIMARY KEY)").close()
    yield folder / "schema.db"


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    return list(odd_files(tmp_path_factory.mktemp("odd")))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder to work in, with a good file of each kind."""
    make_store(tmp_path / "GOOD.h5")
    (tmp_path / "GOOD.xyz").write_text("3\n\nO 0 0 0\nH 0 0.76 0.59\nH 0 -0.76 0.59\n")
    (tmp_path / "MODEL").symlink_to(MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path.parent))
    return tmp_path


def call(capsys, arguments):
    """Run a command line that must fail; return the one line that it says."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith(f"helmol {arguments[0]}: ")]
    assert stop.value.code == 1, (arguments, error)
    assert len(lines) == 1, (arguments, error)
    assert error.rstrip("\n").endswith(lines[0]), (arguments, error)
    assert "Traceback" not in error, (arguments, error)
    assert "unexpected" not in error, (arguments, error)
    assert len(lines[0]) < 2100
    return lines[0]


@pytest.mark.parametrize("verb", VERBS)
def test_files_that_cannot_be_meant(verb, odd, place, capsys, many):
    before = {path.name for path in place.iterdir()}
    good = (place / "GOOD.h5").read_bytes()
    for path in random.Random(verb).sample(odd, many(25, len(odd))):
        call(capsys, [argument.replace(FILE, str(path)) for argument in VERBS[verb]])
        assert {file.name for file in place.iterdir()} == before, (verb, path)
    assert (place / "GOOD.h5").read_bytes() == good


@pytest.mark.parametrize("verb", ["generate", "train", "sweep"])
def test_any_yaml_is_one_line_or_a_configuration(verb, place, capsys, many):
    """Keys and values of a good file replaced by nonsense, at any depth."""
    base = {**settings(place / "MISSING.h5"), "max_steps": 1}
    good = {
        "train": base,
        "sweep": {"base": {**base, "val": 3}, "cases": {"a": {}, "b": {"lr": 0.1}}, "seeds": [0, 1]},
        "generate": {
            "structures": {"files": ["nothing.xyz"], "max_atoms": 3, "md": {"start": "x", "n_frames": 2}},
            "level": {"xc": "pbe", "basis": "sto-3g", "conv_tol": 1e-8}, "splits": {"train": 1}, "seed": 3,
            "executor": {"kind": "dask", "cluster": "subprocess.Popen", "options": {"args": ["x"]}},
        },
    }[verb]  # fmt: skip
    nonsense = (
        None, "x" * 5000, -1, 1e300, 10**30, float("inf"), float("nan"), [], {}, [[[]]], {"a": {"b": [1]}},
        True, {1: 2}, "..", "/", "\0", "~", ["x"] * 2000, "2001-01-01", 5.5,
    )  # fmt: skip
    rng = random.Random(verb)
    before = {path.name for path in place.iterdir()} | {"a.yaml"}
    for _ in range(many(40, 5000)):
        text = yaml.safe_dump(edited(good, rng, nonsense))
        (place / "a.yaml").write_text(text)
        arguments = [argument.replace(FILE, "a.yaml") for argument in VERBS[verb]]
        call(capsys, arguments)
        assert {file.name for file in place.iterdir()} == before, text


def edited(data, rng, nonsense):
    """Return a copy of nested data with one place changed."""
    if not isinstance(data, (dict, list)) or not data or rng.random() < 0.2:
        return rng.choice(nonsense)
    if isinstance(data, dict):
        key = rng.choice(sorted(data))
        rest = {k: v for k, v in data.items() if k != key}
        change = rng.random()
        if change < 0.15:
            return rest
        if change < 0.3:
            return {**rest, rng.choice(["x", "", "a.b", "ä", key + "s"]): data[key]}
        return {**data, key: edited(data[key], rng, nonsense)}
    place = rng.randrange(len(data))
    return [*data[:place], edited(data[place], rng, nonsense), *data[place + 1 :]]


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "GOOD.h5", "--json", "."],
        ["split", "GOOD.h5", "--json", "."],
        ["predict", "MODEL", "GOOD.xyz", "--out", "GOOD.xyz"],
        ["predict", "MODEL", "GOOD.xyz", "--out", "GOOD.xyz/below"],
        ["convert", "GOOD.h5", "--to", "npz", "--out", "GOOD.xyz"],
        ["train", "a.yaml", "--out", "GOOD.xyz"],
        ["train", "a.yaml", "--out", "GOOD.xyz/below"],
        ["train", "a.yaml", "--out", "x" * 300],
        ["merge", "GOOD.h5", "GOOD.h5", "--out", "c.h5"],
        ["merge", "GOOD.h5", "GOOD.xyz", "--out", "x" * 300],
        ["generate", "GOOD.xyz", "--out", "GOOD.xyz/below.h5"],
        ["generate", "GOOD.xyz", "--out", "GOOD.h5"],
        ["train", "a.yaml", "--set", "lr=.inf"],
        ["train", "a.yaml", "--set", "model.channels=1e9"],
        ["train", "a.yaml", "--set", "lr={"],
        ["train", "a.yaml", "--set", "data=/dev/zero"],
        ["train", "a.yaml", "--set", "init=GOOD.xyz"],
        ["train", "a.yaml", "--set", "init=."],
    ],
)
def test_places_and_settings_that_cannot_be_meant(arguments, place, capsys):
    (place / "a.yaml").write_text(yaml.safe_dump(settings(place / "GOOD.h5")))
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    call(capsys, arguments)
    assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ([], "one of 2 processes (WORLD_SIZE), but LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"),
        (["--processes", "2"], "leave it out under torchrun"),
    ],
)
def test_processes_that_are_not_a_group_are_refused(place, capsys, monkeypatch, more, line):
    (place / "a.yaml").write_text(yaml.safe_dump(settings(place / "GOOD.h5")))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert line in call(capsys, ["train", "a.yaml", "--out", "run", *more])
    assert not (place / "run").exists()


def test_who_holds_a_target_is_one_line(place, capsys):
    (place / "a.yaml").write_text(yaml.safe_dump(settings(place / "GOOD.h5")))
    with Store.create(place / "b.h5", level=LEVEL, basis=BASIS) as store, Claim(place / "run", folder=True):
        store.append([water(0)])
        for arguments in (
            ["train", "a.yaml", "--out", "run"], ["predict", "MODEL", "GOOD.xyz", "--out", "run"],
            ["convert", "GOOD.h5", "--to", "npz", "--out", "run"], ["split", "b.h5"], ["inspect", "b.h5"],
            ["generate", "GOOD.xyz", "--out", "b.h5"],
        ):  # fmt: skip
            line = call(capsys, arguments)
            assert f"in use: process {os.getpid()} on {socket.gethostname()}" in line or "b.h5 exists" in line


def test_an_error_that_nobody_foresaw_is_one_line_too(place, capsys, monkeypatch):
    for error, words in (
        (MemoryError(), "not enough memory"), (RecursionError("deep"), "unexpected RecursionError"),
        (ValueError("a\nb\n" * 5000), "unexpected ValueError: a b a b"), (OSError(28, "full"), "no space"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "unexpected UnicodeDecodeError"),
    ):  # fmt: skip

        def fail(*arguments, error=error, **options):
            raise error

        monkeypatch.setattr("helmol.store.Store.open", fail)
        with pytest.raises(SystemExit) as stop:
            main(["inspect", "GOOD.h5"])
        text = capsys.readouterr().err
        assert stop.value.code == 1
        assert words in text
        assert len(text.splitlines()) == 1
        assert len(text) < 1000
        assert "Traceback" in Path(text.rpartition("traceback: ")[2].rstrip(")\n")).read_text()


def test_a_terminal_without_our_letters_gets_escapes(place):
    """Also for the name of a file that is no text."""
    name = os.fsdecode(b"w\xff.h5")
    make_store(place / name)
    for arguments in (["inspect", name], ["inspect", "ä\udcff.h5"]):
        run = subprocess.run(
            [sys.executable, "-W", "error", "-m", "helmol", *arguments],
            env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
            capture_output=True, check=False,
        )  # fmt: skip
        assert run.returncode == (0 if arguments[1] == name else 1)
        assert b"Traceback" not in run.stderr
        assert run.stdout.isascii()


def test_results_of_any_run_are_plain_json(place, capsys):
    main_result = place / "out.json"
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "GOOD.h5", "--json", str(main_result)])
    assert stop.value.code == 0
    assert json.loads(main_result.read_text())
    assert np.isfinite(json.loads(main_result.read_text())["n_molecules"])
