"""The command line: every verb answers fast, and a mistake costs one line."""

import logging
import subprocess
import sys
import warnings

import pytest
import typer

from helmol.cli.main import NAMES, main
from helmol.cli.session import session
from helmol.errors import InputError


def run(capsys, *arguments):
    """Return exit code, standard output and standard error of a call."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    streams = capsys.readouterr()
    return stop.value.code, streams.out, streams.err


def test_all_verbs_are_there():
    assert set(NAMES) == {
        *("doctor", "demo", "generate", "inspect", "train", "evaluate", "predict", "guess"),
        *("import", "convert", "merge", "split", "sweep", "embed", "estimate", "bench", "references"),
        *("models", "export", "fetch", "energies"),
    }


@pytest.mark.parametrize("name", NAMES)
def test_help_of_every_verb(capsys, name):
    code, out, err = run(capsys, name, "--help")
    assert code == 0
    assert f"helmol {name}" in out
    assert "--json" in out
    assert err == ""


def test_no_arguments_show_the_overview(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    assert all(name in out for name in NAMES)


def test_python_can_run_the_package():
    shown = subprocess.run(
        [sys.executable, "-m", "helmol", "--version"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("helmol ")


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert out.startswith("helmol ")


HEAVY = ("torch", "pyscf", "numpy", "scipy", "h5py", "ase", "matplotlib", "yaml")


@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom helmol.cli.main import main\n"
        f"try: main({list(arguments)!r})\nexcept SystemExit: pass\n"
        f"print('heavy:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "there is no verb 'trian'; did you mean 'train'?"),
        (["xyzzy"], "verbs are doctor, demo"),
        (["train"], "Missing argument"),
        (["train", "x.yaml", "--sed", "3"], "No such option"),
        (["train", "x.yaml", "--seed", "three"], "valid integer"),
        (["--nonsense"], "No such option"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, arguments, words):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert words in err
    assert len(err.splitlines()) == 1
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "missing.yaml"], "missing.yaml does not exist"),
        (["generate", "missing.yaml", "--out", "x.h5"], "missing.yaml does not exist"),
        (["import", "md17", "missing.db"], "missing.db does not exist"),
        (["import", "md18", "missing.db"], "unknown format 'md18'"),
        (["inspect", "missing.h5"], "missing.h5"),
        (["merge", "missing.h5", "b.h5", "--out", "c.h5"], "missing.h5"),
        (["split", "missing.h5"], "missing.h5"),
        (["convert", "missing.h5", "--to", "npz", "--out", "x"], "missing.h5"),
        (["evaluate", "norun", "missing.h5"], "no model in norun"),
        (["predict", "norun", "missing.xyz"], "no model in norun"),
        (["guess", "norun", "missing.xyz"], "no model in norun"),
        (["demo", "ethanol"], "molecule"),
    ],
)
def test_a_missing_file_is_one_line_and_leaves_nothing(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *arguments)
    assert code == 1
    assert words in err
    assert err.startswith(f"helmol {arguments[0]}: ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_session_turns_errors_into_codes(capsys, tmp_path):
    for error, code in ((InputError("what"), 1), (OSError(28, "full"), 1), (KeyboardInterrupt(), 130)):
        with pytest.raises(typer.Exit) as stop, session("verb", log_file=tmp_path / "log.txt"):
            raise error
        assert stop.value.exit_code == code
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_session_names_the_full_disk_and_the_traceback(capsys, tmp_path):
    with pytest.raises(typer.Exit), session("verb", log_file=tmp_path / "log.txt"):
        raise OSError(28, "full")
    assert "no space left" in capsys.readouterr().err
    with pytest.raises(typer.Exit), session("verb", log_file=tmp_path / "log.txt"):
        raise RuntimeError("a fault\nof ours")
    assert "unexpected RuntimeError: a fault of ours" in capsys.readouterr().err
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_verb_says_which_package_it_lacks(capsys):
    with pytest.raises(typer.Exit) as stop, session("estimate"):
        raise ModuleNotFoundError("No module named 'pyscf'", name="pyscf")
    assert stop.value.exit_code == 1
    assert capsys.readouterr().err == (
        "helmol estimate: this needs PySCF, which is not installed here: pip install pyscf\n"
    )
    with pytest.raises(typer.Exit), session("estimate"):
        raise ModuleNotFoundError("No module named 'helmol.nothing'", name="helmol.nothing")
    assert "unexpected ModuleNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("level: fooo", "level: unknown preset 'fooo': known are md17"),
        ("level: {auxbasis: foo}", "level: auxbasis 'foo' is of no use without density_fit: true\n"),
        ("level: {method: foo}", "level.method: Input should be 'auto', 'rks' or 'uks' (got 'foo')\n"),
    ],
)
def test_a_wrong_value_is_said_in_plain_words(tmp_path, capsys, keys, message):
    (tmp_path / "spec.yaml").write_text(f"structures: {{files: [x.xyz]}}\n{keys}\n")
    code, _, error = run(capsys, "generate", str(tmp_path / "spec.yaml"), "--out", str(tmp_path / "x.h5"))
    assert code != 0
    assert f"spec.yaml: {message}" in error
    assert "Value error" not in error


def warn_often(log):
    """Warn two thousand times, and stop with an error."""
    for k in range(1000):
        log.warning("molecule %d has no charge", k)
        warnings.warn("B3LYP means\nanother thing", FutureWarning, stacklevel=1)
    raise InputError("and then it stopped")


def test_equal_warnings_of_a_verb_are_one_line_and_a_count(capsys):
    log = logging.getLogger("helmol.test")
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with pytest.raises(typer.Exit), session("predict"):
            warn_often(log)
        lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "molecule 0 has no charge",
        "FutureWarning: B3LYP means another thing",
        "molecule 1 has no charge",
        "molecule 2 has no charge",
        "999 more warnings like: FutureWarning: B3LYP means another thing",
        "997 more warnings like: molecule 3 has no charge",
        "helmol predict: and then it stopped",
    ]
    assert warnings.showwarning is before
    with session("predict", verbose=True):
        for k in range(10):
            log.warning("molecule %d has no charge", k)
    assert len(capsys.readouterr().err.splitlines()) == 10
